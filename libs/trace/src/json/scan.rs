//! Walks over the text of a JSON document without making anything of it.
//!
//! Every step answers `None` for what it does not understand, be it wrong or only unusual.
//! What is not looked at closely here is handed to `serde_json` with its bounds: the text
//! of a value stands alone, so it is valid in the document if it is valid by itself.

use std::borrow::Cow;

use serde_json::Value;

use super::number;

/// Values nested deeper are left to the long way, which has a bound of its own.
const DEEPEST: usize = 64;

/// Where in a document one is.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a document; `None` when it is no text.
    pub(super) fn of(document: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(document).ok()?;
        Some(Self { text, at: 0 })
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes white space and this byte.
    pub(super) fn pass(&mut self, byte: u8) -> Option<()> {
        self.is(byte).then_some(())
    }

    /// Passes white space, and this byte if it comes next.
    pub(super) fn is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// Nothing but white space is left.
    pub(super) fn ended(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Passes a null, if there is one.
    pub(super) fn is_null(&mut self) -> bool {
        let is = self.peek() == Some(b'n') && self.text[self.at..].starts_with("null");
        self.at += if is { "null".len() } else { 0 };
        is
    }

    /// A text; one in which nothing is escaped is not copied.
    pub(super) fn text(&mut self) -> Option<Cow<'a, str>> {
        self.pass(b'"')?;
        let start = self.at;
        let escaped = self.pass_text()?;
        if !escaped {
            return Some(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let quoted = &self.text[start - 1..self.at];
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    }

    /// Passes a text and the quotation mark at its end. Answers whether anything in it
    /// is escaped.
    fn pass_text(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            self.at = next_special(bytes, self.at);
            match bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return None,
            }
        }
    }

    /// A number as the nearest 64-bit float.
    pub(super) fn float(&mut self) -> Option<f64> {
        self.peek()?;
        let (value, bytes) = number::read(&self.text.as_bytes()[self.at..])?;
        self.at += bytes;
        Some(value)
    }

    /// A whole number that is not negative and has no more than 18 digits.
    pub(super) fn whole(&mut self) -> Option<i64> {
        const MOST: usize = 18;
        self.peek()?;
        let (bytes, mut at, mut value) = (self.text.as_bytes(), self.at, 0);
        let count = number::digits(bytes, &mut at, &mut value);
        let more = matches!(bytes.get(at), Some(b'.' | b'e' | b'E'));
        if !(1..=MOST).contains(&count) || more || count > 1 && bytes[self.at] == b'0' {
            return None;
        }
        self.at = at;
        i64::try_from(value).ok()
    }

    /// Any value.
    pub(super) fn value(&mut self) -> Option<Value> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    self.pass_text()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    if depth > DEEPEST {
                        return None;
                    }
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b'}' | b']' | b',' | b':' => return None,
                // Of a number or a literal it is only known where it ends.
                _ => self.pass_word(),
            }
            if depth == 0 {
                return serde_json::from_str(&self.text[start..self.at]).ok();
            }
        }
    }

    fn pass_word(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let ends = |byte: &u8| {
            let mark = matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"');
            mark || matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
        };
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }
}

/// The next byte from `at` on that ends a text, escapes something, or may not stand in a
/// text; the length when there is none. Eight bytes are looked at at a time.
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of each byte that is zero, perhaps also of bytes after the first
    // such one: the first is right.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let escape = zero(word ^ (ONES * u64::from(b'\\')));
        let found = (control | quote | escape) & (ONES << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for special in [0, 1, 0x1f, b'"', b'\\'] {
            for length in 1..40 {
                for place in 0..length {
                    let mut bytes = vec![0x80_u8; length];
                    for (index, byte) in bytes.iter_mut().enumerate() {
                        *byte = [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff][index % 8];
                    }
                    assert_eq!(next_special(&bytes, 0), length);
                    bytes[place] = special;
                    assert_eq!(next_special(&bytes, 0), place);
                    assert_eq!(next_special(&bytes, place + 1), length);
                }
            }
        }
        assert_eq!(next_special(b"ab", 7), 7);
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        for (text, rest) in [
            ("1,", ","),
            ("\"a\\\"]}\" }", " }"),
            ("[1, {\"a\": [\"]\"]}], 2", ", 2"),
            ("true}", "}"),
            ("null", ""),
        ] {
            let mut cursor = Cursor::of(text.as_bytes()).unwrap();
            assert!(cursor.value().is_some(), "{text}");
            assert_eq!(&text[cursor.at..], rest);
        }
        for text in [
            "",
            "]",
            ",",
            "[1",
            "[1}",
            "{]",
            "\"a",
            "\"\\",
            "nul",
            "1 2]".trim_end_matches(']'),
        ] {
            let mut cursor = Cursor::of(text.as_bytes()).unwrap();
            let whole = cursor.value().is_some() && cursor.ended();
            assert!(!whole, "{text}");
        }
    }
}
