//! Standard output carries results, standard error everything else. A reader who
//! has gone away is no error.

use std::{
    fmt::Display,
    io::{Write as _, stderr, stdout},
};

/// Prints a line of the result.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

/// Prints a text that ends its last line itself.
pub(crate) fn text(text: impl Display) {
    let _ = write!(stdout().lock(), "{text}");
}

/// Prints a JSON document.
pub(crate) fn json(document: &serde_json::Value) {
    line(format_args!("{document:#}"));
}

/// Says something to the person at the terminal.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Says why the command failed, with all causes. A cause that its error repeats
/// is said once.
pub(crate) fn error(error: &anyhow::Error) {
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    say(format_args!("error: {said}"));
}
