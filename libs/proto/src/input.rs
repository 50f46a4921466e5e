//! [`Input`](crate::v1::Input), whose embedding is taken from the wire as a block.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

const TEXT: u32 = 1;
const EMBEDDING: u32 = 2;
const EMBEDDER: u32 = 3;

/// One input to classify: text, an embedding, or both.
///
/// The only message that is not generated. A derived one takes the floats of an
/// embedding one by one into a vector that grows under way, which for a batch of 384 × 256 was
/// a third of the router's work. A test holds it against the derived one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The text; empty when there is none.
    pub text: String,
    /// The embedding; empty when there is none.
    pub embedding: Vec<f32>,
    /// Identity of the model that made the embedding.
    pub embedder: String,
}

impl Message for Input {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.text.is_empty() {
            encoding::string::encode(TEXT, &self.text, buf);
        }
        encoding::float::encode_packed(EMBEDDING, &self.embedding, buf);
        if !self.embedder.is_empty() {
            encoding::string::encode(EMBEDDER, &self.embedder, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            TEXT => (
                "text",
                encoding::string::merge(wire_type, &mut self.text, buf, ctx),
            ),
            EMBEDDING => (
                "embedding",
                merge_floats(wire_type, &mut self.embedding, buf, ctx),
            ),
            EMBEDDER => (
                "embedder",
                encoding::string::merge(wire_type, &mut self.embedder, buf, ctx),
            ),
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|mut error| {
            error.push("Input", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let string = |tag, value: &String| {
            if value.is_empty() {
                0
            } else {
                encoding::string::encoded_len(tag, value)
            }
        };
        string(TEXT, &self.text)
            + encoding::float::encoded_len_packed(EMBEDDING, &self.embedding)
            + string(EMBEDDER, &self.embedder)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.embedding.clear();
        self.embedder.clear();
    }
}

/// Adds floats from the wire. Packed ones that lie in one piece, as a server has them,
/// are copied together; all else is left to the general way, errors too.
fn merge_floats(
    wire_type: WireType,
    values: &mut Vec<f32>,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    let whole = match wire_type {
        WireType::LengthDelimited => whole_block(buf.chunk()),
        _ => None,
    };
    let Some((prefix, block)) = whole else {
        return encoding::float::merge_repeated(wire_type, values, buf, ctx);
    };
    let taken = prefix + block.as_flattened().len();
    values.extend(block.iter().map(|&float| f32::from_le_bytes(float)));
    buf.advance(taken);
    Ok(())
}

/// A length and the floats it announces, if they are all there: the bytes of the
/// length, and the floats'.
fn whole_block(chunk: &[u8]) -> Option<(usize, &[[u8; 4]])> {
    let mut rest = chunk;
    let length = usize::try_from(encoding::decode_varint(&mut rest).ok()?).ok()?;
    let (block, left_over) = rest.get(..length)?.as_chunks();
    left_over
        .is_empty()
        .then_some((chunk.len() - rest.len(), block))
}

#[cfg(test)]
mod tests {
    use prost::{
        Message,
        bytes::{Buf, Bytes},
    };

    use super::Input;

    /// What the generator would have made.
    #[derive(Clone, PartialEq, Message)]
    struct Derived {
        #[prost(string, tag = "1")]
        text: String,
        #[prost(float, repeated, tag = "2")]
        embedding: Vec<f32>,
        #[prost(string, tag = "3")]
        embedder: String,
    }

    /// Both in the same shape; floats by their bits, so that a NaN equals itself.
    type Shape = (String, Vec<u32>, String);

    fn shape(text: String, embedding: &[f32], embedder: String) -> Shape {
        let bits = embedding.iter().map(|value| value.to_bits());
        (text, bits.collect(), embedder)
    }

    fn ours(bytes: impl Buf) -> Result<Shape, String> {
        let input = Input::decode(bytes).map_err(|error| error.to_string())?;
        Ok(shape(input.text, &input.embedding, input.embedder))
    }

    fn derived(bytes: impl Buf) -> Result<Shape, String> {
        let input = Derived::decode(bytes).map_err(|error| error.to_string());
        // The derived one is called otherwise; nothing else of an error may differ.
        let input = input.map_err(|error| error.replace("Derived.", "Input."))?;
        Ok(shape(input.text, &input.embedding, input.embedder))
    }

    /// Whole and in two pieces, the border everywhere.
    fn both_agree(bytes: &[u8]) {
        let expected = derived(bytes);
        assert_eq!(ours(bytes), expected, "{bytes:?}");
        for at in 0..=bytes.len() {
            let pieces = Bytes::copy_from_slice(&bytes[..at]).chain(&bytes[at..]);
            assert_eq!(ours(pieces), expected, "{bytes:?} in two at {at}");
        }
    }

    fn examples() -> Vec<Vec<u8>> {
        let full = Derived {
            text: "grüß dich".to_owned(),
            embedding: vec![0.5, -0.0, f32::NAN, f32::INFINITY, 1e-42],
            embedder: "mini".to_owned(),
        };
        let one_by_one = [
            0x15, 0, 0, 0x80, 0x3f, 0x12, 4, 0, 0, 0, 0x40, 0x15, 1, 2, 3, 4,
        ];
        vec![
            Vec::new(),
            full.encode_to_vec(),
            // Twice: floats are added, strings replaced.
            [full.encode_to_vec(), full.encode_to_vec()].concat(),
            one_by_one.to_vec(),
            // No whole number of floats; longer than what is there; an endless length.
            vec![0x12, 3, 1, 2, 3],
            vec![0x12, 8, 1, 2, 3, 4],
            vec![
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            vec![0x12, 0x84, 0x80, 0x00, 1, 2, 3, 4],
            // A wrong wire type, an unknown field, text that is none.
            vec![0x10, 1],
            vec![0x22, 1, 7, 0x12, 4, 1, 2, 3, 4],
            vec![0x0a, 1, 0xff],
        ]
    }

    #[test]
    fn it_reads_what_a_derived_message_reads() {
        for example in examples() {
            both_agree(&example);
            for cut in 0..example.len() {
                both_agree(&example[..cut]);
            }
        }
    }

    #[test]
    fn it_reads_damaged_bytes_as_a_derived_message_does() {
        let mut state = 9_u64;
        let mut random = move |below: usize| {
            // Knuth's MMIX generator.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let examples = examples();
        for _ in 0..2000 {
            let mut bytes = examples[random(examples.len())].clone();
            for _ in 0..=random(3) {
                if !bytes.is_empty() {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }
            }
            both_agree(&bytes);
        }
    }

    #[test]
    fn it_writes_what_a_derived_message_writes() {
        for example in examples() {
            let Ok(derived) = Derived::decode(example.as_slice()) else {
                continue;
            };
            let mut input = Input::decode(example.as_slice()).unwrap();
            assert_eq!(input.encode_to_vec(), derived.encode_to_vec());
            assert_eq!(input.encoded_len(), derived.encoded_len());
            input.clear();
            assert_eq!(input, Input::default());
        }
    }
}
