//! What names of topics and tasks have in common.

/// True for 1 to `max` characters that are safe in a path, in a metric label and
/// in a name of Kafka: `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`.
pub(crate) fn is_plain(name: &str, max: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=max).contains(&name.len()) && name.bytes().all(allowed)
}

/// A name that was refused, short enough for an error message.
pub(crate) fn excerpt(name: &str, max: usize) -> String {
    name.chars().take(max + 1).collect()
}

/// Gives a name that is parsed by `$name::new` its ways in and out of text.
macro_rules! text_of_name {
    ($name:ident, $invalid:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $invalid;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $invalid;

            fn try_from(name: String) -> Result<Self, Self::Error> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}
pub(crate) use text_of_name;
