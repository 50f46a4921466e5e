//! The last record of a shard's range, by which its log is known again.

use std::{fmt, str::FromStr};

use tracer_trace::Offset;

/// Bytes of the digest that are kept: a log that was created anew is no attack.
const DIGEST_BYTES: usize = 16;

/// The last record that was read into a shard: its offset, and a digest of its time
/// and its payload.
///
/// A position is only a number. In a log that was created anew it may exist as well,
/// and reading on there would silently leave out whatever the new log has before it.
/// Whoever resumes reads this record again: when another one stands in its place, the
/// log is not the one the shards were made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Where it stands.
    pub offset: Offset,
    /// The first half of a SHA-256, in lower-case hexadecimal.
    digest: String,
}

impl LastRecord {
    /// Describes a record.
    pub fn of(offset: Offset, timestamp_ms: Option<i64>, payload: &[u8]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        // One byte tells a record without a time from one at any time.
        match timestamp_ms {
            Some(time) => {
                context.update(&[1]);
                context.update(&time.to_le_bytes());
            }
            None => context.update(&[0]),
        }
        context.update(payload);
        Self {
            offset,
            digest: hex(&context.finish().as_ref()[..DIGEST_BYTES]),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Display for LastRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.offset, self.digest)
    }
}

impl FromStr for LastRecord {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (offset, digest) = text.split_once(' ').ok_or("it has no digest")?;
        let is_digest = digest.len() == 2 * DIGEST_BYTES
            && digest
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digest {
            return Err("its digest is not 32 hexadecimal digits");
        }
        Ok(Self {
            offset: Offset(offset.parse().map_err(|_| "its offset is not a number")?),
            digest: digest.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_time_and_payload_count() {
        let record = LastRecord::of(Offset(7), Some(3), b"abc");
        for other in [
            LastRecord::of(Offset(8), Some(3), b"abc"),
            LastRecord::of(Offset(7), Some(4), b"abc"),
            LastRecord::of(Offset(7), None, b"abc"),
            LastRecord::of(Offset(7), Some(3), b"abd"),
        ] {
            assert_ne!(other, record);
        }
        assert_eq!(record.to_string().parse(), Ok(record));
    }

    /// The digest stands in footers: it must stay what it is. The value is that of
    /// `printf '\0abc' | sha256sum`.
    #[test]
    fn the_digest_is_pinned() {
        assert_eq!(
            LastRecord::of(Offset(7), None, b"abc").to_string(),
            "7 609f6e36d2405585188d5cfd761f407c"
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "7", "7 abc", "x 00112233445566778899aabbccddeeff"] {
            assert!(text.parse::<LastRecord>().is_err(), "{text:?}");
        }
    }
}
