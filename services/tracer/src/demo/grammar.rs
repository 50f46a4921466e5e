//! Patterns that expand to sentences.
//!
//! `(a|b|c)` is one of its alternatives, `{name}` a slot, and everything else
//! stands for itself. Alternatives nest and may be empty.

use super::{desk::slots::slot, rng::Rng};

/// Expands a pattern.
///
/// The patterns are constants of this crate, and a test expands all of them, so
/// a mistake in one is a bug and panics.
pub(crate) fn expand(pattern: &str, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(pattern.len());
    expand_into(pattern, rng, &mut out);
    tidy(&out)
}

fn expand_into(pattern: &str, rng: &mut Rng, out: &mut String) {
    let mut rest = pattern;
    while let Some(at) = rest.find(['(', '{']) {
        out.push_str(&rest[..at]);
        if rest[at..].starts_with('{') {
            let end = at + rest[at..].find('}').expect("a slot ends with a brace");
            expand_into(slot(&rest[at + 1..end], rng).as_ref(), rng, out);
            rest = &rest[end + 1..];
        } else {
            let (alternatives, after) = group(&rest[at..]);
            expand_into(rng.pick(&alternatives), rng, out);
            rest = after;
        }
    }
    out.push_str(rest);
}

/// Splits `(a|b)rest` into its alternatives and the rest.
fn group(text: &str) -> (Vec<&str>, &str) {
    let mut alternatives = Vec::new();
    let (mut depth, mut start) = (0, 1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b'|' if depth == 1 => {
                alternatives.push(&text[start..at]);
                start = at + 1;
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    alternatives.push(&text[start..at]);
                    return (alternatives, &text[at + 1..]);
                }
            }
            _ => {}
        }
    }
    panic!("no end of the alternatives in {text:?}");
}

/// Joins the spaces that empty alternatives leave behind.
pub(crate) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() && !word.starts_with([',', '.', '!', '?', ';', ':']) {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn alternatives_nest_and_may_be_empty() {
        let mut rng = Rng::new(1);
        let seen: BTreeSet<String> = (0..200)
            .map(|_| expand("a (b(c|d)|) e", &mut rng))
            .collect();
        let expected = ["a bc e", "a bd e", "a e"].map(String::from);
        assert_eq!(seen, BTreeSet::from(expected));
    }

    #[test]
    fn punctuation_keeps_no_space_before_it() {
        assert_eq!(tidy("  so  , what ?"), "so, what?");
    }
}
