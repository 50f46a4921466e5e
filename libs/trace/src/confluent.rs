//! Payloads as Confluent's serializers frame them.
//!
//! A frame is the magic byte 0, the schema's id as four bytes, and the payload. A
//! protobuf payload is preceded by the path to its message in the schema: how many
//! indexes, then each, as zigzag varints, where the single byte 0 stands for the first
//! message. JSON stands there as it is.
//!
//! No protobuf message begins with the byte 0, which would be a field number 0, and no
//! JSON does: a payload that begins with it is framed, or it is nothing.

use crate::{DecodeError, wire::varint};

pub(crate) const MAGIC: u8 = 0;
const HEADER: usize = 5;

/// Messages are not nested deeper in a schema than this.
const MOST_INDEXES: i64 = 32;

/// A payload taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    /// What comes before the payload.
    pub(crate) head: &'a [u8],
    /// The payload.
    pub(crate) payload: &'a [u8],
    /// Whether it is JSON.
    pub(crate) json: bool,
}

pub(crate) fn unframe(framed: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let malformed = |detail: String| Err(DecodeError::MalformedFrame(detail));
    match framed.first() {
        Some(&MAGIC) if framed.len() > HEADER => {}
        Some(&MAGIC) => return malformed(format!("it has {} bytes only", framed.len())),
        first => {
            let first = first.copied().unwrap_or_default();
            return malformed(format!("it begins with the byte {first}, not with 0"));
        }
    }
    let (head, payload) = framed.split_at(HEADER);
    // '{' as a number of indexes is negative: no frame of protobuf has it.
    if payload[0] == b'{' {
        return Ok(Frame {
            head,
            payload,
            json: true,
        });
    }
    match skip_indexes(payload) {
        Some(rest) => Ok(Frame {
            head: &framed[..framed.len() - rest.len()],
            payload: rest,
            json: false,
        }),
        // Somebody's JSON may begin with white space.
        None if payload.trim_ascii_start().first() == Some(&b'{') => Ok(Frame {
            head,
            payload,
            json: true,
        }),
        None => malformed("what it holds is neither JSON nor protobuf".to_owned()),
    }
}

fn skip_indexes(mut rest: &[u8]) -> Option<&[u8]> {
    let mut zigzag = || {
        let value = varint(&mut rest).ok()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    };
    let count = zigzag().filter(|count| (0..=MOST_INDEXES).contains(count))?;
    for _ in 0..count {
        zigzag().filter(|index| *index >= 0)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart() {
        for (framed, head, payload, json) in [
            (&b"\0\0\0\0\x07{}"[..], 5, &b"{}"[..], true),
            (b"\0\0\0\0\x07\0\x0a\x01x", 6, b"\x0a\x01x", false),
            // The path [1, 0].
            (b"\0\0\0\0\x07\x04\x02\x00\x0a\x01x", 8, b"\x0a\x01x", false),
            (b"\0\0\0\0\x07\0", 6, b"", false),
        ] {
            let frame = unframe(framed).unwrap();
            assert_eq!(frame.head, &framed[..head]);
            assert_eq!((frame.payload, frame.json), (payload, json));
        }
        for broken in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\0",
            b"{}",
            b"\x01\0\0\0\x07{}",
            // 33 indexes, and an index that is negative.
            b"\0\0\0\0\x07\x42",
            b"\0\0\0\0\x07\x02\x01",
            b"\0\0\0\0\x07\x80",
        ] {
            let error = unframe(broken).unwrap_err();
            assert_eq!(error.reason(), "malformed_frame", "{broken:?}");
        }
    }
}
