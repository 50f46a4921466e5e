//! All spans of a record, one after the other.

use std::collections::BTreeMap;

use super::{
    Context,
    config::OtlpConfig,
    read::{Read, trace},
    span::{Attributes, Span},
};
use crate::{BadSpans, DecodeError, Decoded, Rejected, Trace};

/// Where a span stands in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: usize,
    pub(super) span: usize,
}

/// A record of spans in one of the encodings. A group shares a resource.
pub(super) trait Carrier {
    /// How many spans each group has.
    fn sizes(&self) -> Vec<usize>;
    /// The attributes of a group's resource.
    fn resource(&self, group: usize, config: &OtlpConfig) -> Result<Attributes, DecodeError>;
    /// Reads a span. What was read before an error stays.
    fn span(&self, at: Place, config: &OtlpConfig, span: &mut Span) -> Result<(), DecodeError>;
    /// A record of some of the spans, in the same encoding.
    fn only(&self, places: &[Place]) -> Vec<u8>;
}

/// Why a span is no trace, without being wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It is no call of a language model.
    NotACall,
    /// It has not the attributes that are asked for.
    NotSelected,
    /// The call failed: there is no answer.
    FailedCall,
    /// The instrumentation recorded neither the messages nor the answer.
    NoContent,
}

impl SkipReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::NotACall,
        Self::NotSelected,
        Self::FailedCall,
        Self::NoContent,
    ];

    /// A short name: a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotACall => "not_a_call",
            Self::NotSelected => "not_selected",
            Self::FailedCall => "failed_call",
            Self::NoContent => "no_content",
        }
    }
}

/// Bad spans that an error names.
const MOST_NAMED: usize = 8;

/// How much larger than the longest payload the traces of a record may be. Every span
/// of a group may have the attributes of its resource, which the record holds once.
const MOST_GROWTH: usize = 8;

/// Bytes of the texts of a trace that may be long, or come from the resource.
fn text_bytes(trace: &Trace) -> usize {
    let metadata = trace.metadata.iter();
    let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    trace.input.as_ref().map_or(0, String::len) + metadata
}

/// Bad spans of one kind.
#[derive(Default)]
struct Bad {
    places: Vec<Place>,
    named: Vec<(String, DecodeError)>,
}

pub(super) fn too_many(size: usize, max: usize) -> DecodeError {
    DecodeError::TooLarge {
        field: "spans",
        size,
        max,
        unit: "spans",
    }
}

/// Reads every span. Those that are bad become one rejection for each kind of error,
/// which holds them alone: so much can be replayed, and no more than came is sent on.
pub(super) fn read(carrier: &impl Carrier, context: &Context<'_>, out: &mut Decoded) {
    let mut bad = BTreeMap::<&'static str, Bad>::new();
    let max = context.limits.max_payload_bytes.saturating_mul(MOST_GROWTH);
    let mut bytes = 0_usize;
    for (group, size) in carrier.sizes().into_iter().enumerate() {
        let resource = carrier.resource(group, context.config);
        for number in 0..size {
            let at = Place {
                group,
                span: number,
            };
            let mut span = Span::default();
            let read = carrier.span(at, context.config, &mut span);
            let read = read.and_then(|()| trace(&span, resource.as_ref(), context));
            let read = read.and_then(|read| {
                if let Read::Trace(trace) = &read {
                    let grown = bytes.saturating_add(text_bytes(trace));
                    if grown > max {
                        return Err(DecodeError::TooLarge {
                            field: "spans",
                            size: grown,
                            max,
                            unit: "bytes",
                        });
                    }
                    bytes = grown;
                }
                Ok(read)
            });
            match read {
                Ok(Read::Trace(trace)) => out.traces.push(*trace),
                Ok(Read::Skip(reason)) => out.skip(reason),
                Err(error) => {
                    let bad = bad.entry(error.reason()).or_default();
                    bad.places.push(at);
                    if bad.named.len() < MOST_NAMED {
                        let name = match span.id.as_str() {
                            "" => format!("number {number} of resource {group}"),
                            id => id.chars().take(32).collect(),
                        };
                        bad.named.push((name, error));
                    }
                }
            }
        }
    }
    for Bad { places, named } in bad.into_values() {
        out.rejected.push(Rejected {
            payload: [context.head, &carrier.only(&places)].concat(),
            count: places.len() as u64,
            error: DecodeError::Spans(BadSpans {
                count: places.len(),
                named,
            }),
        });
    }
}
