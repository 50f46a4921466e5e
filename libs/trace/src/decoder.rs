//! From a record to the traces in it.

use crate::{
    BorrowedTrace, DecodeError, Format, Limits, Origin, OtlpConfig, SkipReason, Trace, confluent,
    decode::check_size,
    json,
    otlp::{self, Context},
    protobuf,
    wire::{Field, Fields},
};

/// What was in a record. Reused from record to record.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The traces, in their order.
    pub traces: Vec<Trace>,
    /// What should have been traces and are none.
    pub rejected: Vec<Rejected>,
    /// How many spans were passed over, in the order of [`SkipReason::ALL`].
    pub skipped: [u64; SkipReason::ALL.len()],
}

/// A part of a record that is no trace: spans that are wrong for one kind of reason.
#[derive(Debug, PartialEq)]
pub struct Rejected {
    /// What is wrong. It names the spans.
    pub error: DecodeError,
    /// How many spans.
    pub count: u64,
    /// A record of these spans alone, encoded as the whole one is.
    pub payload: Vec<u8>,
}

impl Decoded {
    /// Empties it for the next record.
    pub fn clear(&mut self) {
        self.traces.clear();
        self.rejected.clear();
        self.skipped = Default::default();
    }

    pub(crate) fn skip(&mut self, reason: SkipReason) {
        let place = SkipReason::ALL.iter().position(|one| *one == reason);
        if let Some(place) = place {
            self.skipped[place] += 1;
        }
    }
}

/// Decodes and validates records under one configuration.
///
/// What [`Format::Auto`] takes a payload for:
///
/// * Beginning with the byte 0, a Confluent frame: neither JSON nor a protobuf message
///   can begin so.
/// * An object of JSON, when the first byte that is not white space is `{`: spans, when
///   it has the key `resourceSpans`, which no trace has, and otherwise a trace.
/// * Otherwise protobuf: spans, when all of its fields are submessages of number 1,
///   and otherwise a trace, which has its label in field 5.
#[derive(Clone, Debug)]
pub struct Decoder {
    limits: Limits,
    otlp: OtlpConfig,
}

impl Decoder {
    /// A decoder under these limits that reads spans as `otlp` says.
    pub fn new(limits: Limits, otlp: OtlpConfig) -> Self {
        Self { limits, otlp }
    }

    /// The trace of a record that is a JSON object as most senders write it, without a
    /// copy of its texts. `None` says nothing about the record: [`Decoder::decode`] does,
    /// and takes what stands here for the same trace.
    pub fn plain<'a>(
        &self,
        record: &'a [u8],
        origin: &Origin<'_>,
        format: Format,
    ) -> Option<BorrowedTrace<'a>> {
        let json = matches!(format, Format::Auto | Format::Json);
        if !json || check_size(record, &self.limits).is_err() {
            return None;
        }
        json::plain(record, Some(origin), &self.limits)?.ok()
    }

    /// Decodes one record into `out`, which is emptied first. An error is of the record
    /// as a whole: nothing of it was read.
    pub fn decode(
        &self,
        record: &[u8],
        origin: &Origin<'_>,
        format: Format,
        out: &mut Decoded,
    ) -> Result<(), DecodeError> {
        out.clear();
        check_size(record, &self.limits)?;
        let part = Part {
            decoder: self,
            origin,
            head: &[],
            payload: record,
        };
        match format {
            Format::Auto => part.auto(out),
            Format::Json => part.one(json::decode, out),
            Format::Protobuf => part.one(protobuf::decode, out),
            Format::Confluent => part.framed(out),
            Format::OtlpJson => otlp::from_json(&json::parse(record)?, &part.context(), out),
            Format::OtlpProto => otlp::from_proto(record, &part.context(), out),
        }
    }
}

/// The payload of a record, and the frame it stands in.
#[derive(Clone, Copy)]
struct Part<'a> {
    decoder: &'a Decoder,
    origin: &'a Origin<'a>,
    head: &'a [u8],
    payload: &'a [u8],
}

type One = fn(&[u8], Option<&Origin<'_>>, &Limits) -> Result<Trace, DecodeError>;

impl<'a> Part<'a> {
    fn context(&self) -> Context<'a> {
        Context {
            config: &self.decoder.otlp,
            limits: &self.decoder.limits,
            origin: self.origin,
            head: self.head,
        }
    }

    fn one(&self, decode: One, out: &mut Decoded) -> Result<(), DecodeError> {
        let trace = decode(self.payload, Some(self.origin), &self.decoder.limits)?;
        out.traces.push(trace);
        Ok(())
    }

    fn auto(&self, out: &mut Decoded) -> Result<(), DecodeError> {
        let payload = self.payload;
        if payload[0] == confluent::MAGIC {
            return self.framed(out);
        }
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return self.protobuf(out).map_err(|error| match error {
                // Whoever sent text meant JSON.
                DecodeError::MalformedProtobuf(_) if is_text(payload) => {
                    DecodeError::MalformedJson(
                        "the payload is text, but not a JSON object".to_owned(),
                    )
                }
                error => error,
            });
        }
        match self.json(out) {
            // A protobuf message with a text or a submessage in front starts with the
            // byte of '\n', and its length may be the byte of '{'.
            Err(error @ DecodeError::MalformedJson(_)) if payload[0] != b'{' => {
                self.protobuf(out).map_err(|_| error)
            }
            read => read,
        }
    }

    fn json(&self, out: &mut Decoded) -> Result<(), DecodeError> {
        // Spans are none of what goes the short way.
        if let Some(trace) = json::plain(self.payload, Some(self.origin), &self.decoder.limits) {
            out.traces.push(trace?.into());
            return Ok(());
        }
        let value = json::parse(self.payload)?;
        if value.get(otlp::RESOURCE_SPANS).is_some() {
            return otlp::from_json(&value, &self.context(), out);
        }
        let trace = json::from_value(&value, Some(self.origin), &self.decoder.limits)?;
        out.traces.push(trace);
        Ok(())
    }

    fn protobuf(&self, out: &mut Decoded) -> Result<(), DecodeError> {
        let of_spans = |field| matches!(field, Ok((1, Field::Bytes(_))));
        if Fields::of(self.payload).all(of_spans) {
            return otlp::from_proto(self.payload, &self.context(), out).map_err(|error| {
                // Or a trace of nothing but an id: that is what it lacks then.
                match self.one(protobuf::decode, out) {
                    Err(DecodeError::MalformedProtobuf(_)) | Ok(()) => error,
                    Err(lacks) => lacks,
                }
            });
        }
        self.one(protobuf::decode, out)
    }

    fn framed(&self, out: &mut Decoded) -> Result<(), DecodeError> {
        let frame = confluent::unframe(self.payload)?;
        let within = Part {
            head: frame.head,
            payload: frame.payload,
            ..*self
        };
        if frame.json {
            within.json(out)
        } else {
            check_size(frame.payload, &self.decoder.limits)?;
            within.protobuf(out)
        }
    }
}

fn is_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()))
}
