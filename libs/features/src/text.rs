//! Text normalisation, shared by features and splits.

use crate::hashing::{SEED, finish, update};

/// Lower-cases a text and folds every run of white space into one blank.
///
/// Two inputs that differ only in case or spacing are the same input to every
/// feature, and stand on the same side of every split.
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    normalise_into(text, &mut out);
    out
}

/// [`normalise`] into a buffer that is used again.
pub(crate) fn normalise_into(text: &str, out: &mut String) {
    out.clear();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        if word.is_ascii() {
            let start = out.len();
            out.push_str(word);
            out[start..].make_ascii_lowercase();
        } else {
            out.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
}

/// A 64-bit hash of several byte strings that is the same on every platform and
/// in every release: splits and feature hashing stand on it.
///
/// The parts are framed by their lengths, so `["ab", "c"]` and `["a", "bc"]` differ.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut state = SEED;
    for part in parts {
        for byte in (part.len() as u64).to_le_bytes() {
            state = update(state, byte);
        }
        for &byte in *part {
            state = update(state, byte);
        }
    }
    finish(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_and_space() {
        assert_eq!(normalise("  Where\tis MY\n\ncard? "), "where is my card?");
        assert_eq!(normalise(" \n "), "");
    }

    #[test]
    fn the_hash_is_pinned() {
        // Splits of existing deployments depend on these values.
        assert_eq!(
            stable_hash(&[b"task", b"where is my card?"]),
            0x525b_4e3d_3b36_4f6a
        );
        assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    }
}
