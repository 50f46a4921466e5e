//! What takes the place of a text that may not be kept.
//!
//! A keyed hash of the normalised text tells copies of an input apart from others, and
//! puts them on their side of every split; the counted n-grams are what lexical features
//! are made of. Without a key anybody can hash a text they suspect and compare. The
//! n-grams are hashed without one, since whoever routes must make the same: short words
//! can be found again by trying them.

use std::fmt::{self, Write as _};

use ring::hmac;

use crate::{HashedText, Hasher, LexiconConfig, normalise};

/// The secret that keys the hashes of inputs. Empty, they are not secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InputKey(Vec<u8>);

impl InputKey {
    /// A key of any length.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A secret is not shown.
impl fmt::Debug for InputKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.is_empty() { "none" } else { "secret" };
        write!(f, "InputKey({known})")
    }
}

/// What is known of a text that nobody kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Withheld {
    /// The first 128 bits of the HMAC-SHA-256 of the normalised text, in hexadecimal.
    pub hash: String,
    /// Its n-grams.
    pub hashed: HashedText,
}

const BEFORE_KEY: &str = "-k";

/// Turns texts into what may be kept of them.
#[derive(Clone, Debug)]
pub struct Withholder {
    key: hmac::Key,
    hasher: Hasher,
}

impl Withholder {
    /// Under a key, with the n-grams of a configuration.
    pub fn new(key: &InputKey, config: &LexiconConfig) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key.0),
            hasher: Hasher::new(config),
        }
    }

    /// A name of how texts are cut and hashed, and under which key: of texts that were
    /// withheld under different ones, copies are not known as such. It tells eight
    /// digits of a hash of the key.
    pub fn scheme(&self) -> String {
        let tag = hmac::sign(&self.key, b"tracer input key");
        let tag = hexadecimal(&tag.as_ref()[..4]);
        format!("{}{BEFORE_KEY}{tag}", self.hasher.config().scheme())
    }

    /// Whether n-grams of a scheme are those of a configuration, whatever the key.
    pub fn is_cut_as(scheme: &str, config: &LexiconConfig) -> bool {
        let cut = scheme.split_once(BEFORE_KEY).map(|(cut, _)| cut);
        cut == Some(config.scheme().as_str())
    }

    /// What may be kept of a text.
    pub fn withhold(&self, text: &str) -> Withheld {
        let tag = hmac::sign(&self.key, normalise(text).as_bytes());
        Withheld {
            hash: hexadecimal(&tag.as_ref()[..16]),
            hashed: self.hasher.hash(text),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_normalised_text_and_the_key() {
        let config = LexiconConfig::default();
        let under = |key: &str| Withholder::new(&InputKey::new(key), &config);
        let one = under("secret").withhold("Where  is MY card");
        assert_eq!(one, under("secret").withhold("where is my card"));
        assert_eq!(one.hashed, Hasher::new(&config).hash("where is my card"));
        let other = under("").withhold("where is my card");
        assert_ne!(one.hash, other.hash);
        assert_ne!(under("secret").scheme(), under("").scheme());
        for scheme in [under("secret").scheme(), under("").scheme()] {
            assert!(Withholder::is_cut_as(&scheme, &config));
            let other = LexiconConfig {
                max_chars: 7,
                ..config.clone()
            };
            assert!(!Withholder::is_cut_as(&scheme, &other));
        }
        assert!(!Withholder::is_cut_as("", &config));
        // As `printf 'where is my card' | openssl dgst -sha256 -hmac secret` has it.
        assert_eq!(one.hash, "99be35ae51b6459ca40fb80dc5164f08");
        assert_eq!(
            format!("{:?}", InputKey::new("swordfish")),
            "InputKey(secret)"
        );
    }
}
