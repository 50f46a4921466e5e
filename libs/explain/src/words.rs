//! Words, numbers and names, as texts and pages show them.

/// One line of plain characters, shortened to `longest`: nothing in it moves a cursor,
/// changes a direction of writing or is invisible.
pub(crate) fn tidy(text: &str, longest: usize) -> String {
    let visible = |c: char| {
        !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
    };
    let plain: String = text
        .chars()
        // Enough to fill a line however much of it is invisible.
        .take(longest * 16)
        .filter(|&c| visible(c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut out = String::new();
    for word in plain.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    let longer = text.chars().count() > longest * 16;
    if out.chars().count() > longest || longer {
        out = out.chars().take(longest.saturating_sub(1)).collect();
        out.push('…');
    }
    out
}

/// With commas at the thousands.
pub(crate) fn number(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share; the blank before the sign does not break.
pub(crate) fn percent(share: f64) -> String {
    // An empty sum is -0.
    let value = 100.0 * share + 0.0;
    // 99.97 % is not all.
    if (99.95..100.0).contains(&value) {
        return "99.9\u{a0}%".to_owned();
    }
    format!("{value:.1}\u{a0}%")
}

/// As people write targets: 95 %, 97.5 %.
pub(crate) fn target(share: f64) -> String {
    format!("{}\u{a0}%", (share * 1e6).round() / 1e4)
}

/// Text between tags, or within the quotes of an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Escaped, and may be broken where its words are.
pub(crate) fn broken(text: &str) -> String {
    escape(text).replace('_', "_<wbr>").replace('+', "+<wbr>")
}
