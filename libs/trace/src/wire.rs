//! Protobuf on the wire, field by field, without building a message.
//!
//! For what must be told apart or walked before anybody knows how large it is: two
//! bytes can stand for an empty submessage of any size in memory, and so a decoder of
//! whole messages lets a small payload take a large one's memory. Here nothing is
//! allocated, and who walks the fields counts them.

/// The value of a field, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a string, a bytes field or a submessage.
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a field of another type than it must have")),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text that is not UTF-8"))
    }
}

/// Bytes that are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const CUT: Malformed = Malformed("it ends within a field");

/// The fields of a message, in their order: number and value. Ends after the first
/// error.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let tag = varint(&mut self.rest)?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(Malformed("a field number that cannot be"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut self.rest)?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
                self.rest = rest;
                Field::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_| CUT)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(CUT)?;
                self.rest = rest;
                Field::Bytes(bytes)
            }
            5 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
                self.rest = rest;
                Field::Fixed32(u32::from_le_bytes(*bytes))
            }
            _ => return Err(Malformed("a wire type that is not in use")),
        };
        Ok((number, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

/// Takes a varint of at most ten bytes off the front.
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 {
        CUT
    } else {
        Malformed("a number of more than ten bytes")
    })
}

/// Puts a field of bytes at the end of a message.
pub(crate) fn put_bytes(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_their_order_and_end_at_the_first_error() {
        let mut message = vec![0x08, 0x96, 0x01];
        put_bytes(&mut message, 2, &[7; 200]);
        message.extend([0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0]);
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(
            fields,
            [
                (1, Field::Varint(150)),
                (2, Field::Bytes(&[7; 200])),
                (3, Field::Fixed32(1)),
                (4, Field::Fixed64(2)),
            ]
        );
        for broken in [
            &[0x0a, 5, 1][..],
            &[0x0a],
            &[0x08],
            &[0x00, 0x00],
            &[0x0b],
            &[0x80; 12],
            &[0x09, 1, 2],
        ] {
            let mut fields = Fields::of(broken);
            assert!(fields.next().unwrap().is_err(), "{broken:?}");
            assert!(fields.next().is_none());
        }
    }
}
