//! Who made a vector.

use std::fmt;

use ring::digest::{Context, SHA256};

/// Hexadecimal digits of a hash in an identity: 64 bits tell the models of a company apart.
const HASH_DIGITS: usize = 16;

/// Longest identity in bytes. A trace carries it, and its fields are bounded.
pub(crate) const MAX_IDENTITY_BYTES: usize = 200;

/// What makes vectors: the kind of embedder, the model, and what else changes them.
///
/// Two embedders with the same text give the same vectors, up to rounding. Traces and
/// pipelines carry the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    text: Box<str>,
    dimension: usize,
}

impl Identity {
    /// An identity by the name that callers use for the model.
    pub fn named(name: &str, dimension: usize) -> Self {
        Self {
            text: name.into(),
            dimension,
        }
    }

    /// `kind:model:dimension`, then what was done with the model.
    pub(super) fn composed(kind: &str, model: &str, dimension: usize, rest: &[String]) -> Self {
        let mut text = format!("{kind}:{model}:{dimension}");
        for part in rest {
            text.push(':');
            text.push_str(part);
        }
        Self::named(&text, dimension)
    }

    /// The text that traces and pipelines carry.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Values of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A short hash of some bytes, each part framed by its length.
pub(super) fn hash(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    let mut hex: String = hex.collect();
    hex.truncate(HASH_DIGITS);
    hex
}

/// How a prefix shows in an identity: not at all when it is empty.
pub(super) fn prefix_part(prefix: &str) -> Option<String> {
    (!prefix.is_empty()).then(|| format!("prefix-{}", &hash(&[prefix.as_bytes()])[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_changes_vectors() {
        let rest = ["mean".to_owned(), "unit".to_owned()];
        let identity = Identity::composed("bert", "00ff", 384, &rest);
        assert_eq!(identity.to_string(), "bert:00ff:384:mean:unit");
        assert_eq!(identity.dimension(), 384);
    }

    #[test]
    fn the_hash_is_sha_256_of_framed_parts() {
        // printf '\x03\0\0\0\0\0\0\0abc' | sha256sum
        assert_eq!(hash(&[b"abc"]).len(), HASH_DIGITS);
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(prefix_part(""), None);
        assert_ne!(prefix_part("query: "), prefix_part("passage: "));
    }
}
