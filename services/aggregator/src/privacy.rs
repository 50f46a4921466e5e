//! What is kept of inputs whose text may not be.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracer_features::{InputKey, LexiconConfig, Withheld, Withholder};
use tracer_source::Record;
use tracer_trace::{DecodeError, TaskName, Trace, WithheldInput};

/// What is stored of an input's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreInput {
    /// The text.
    #[default]
    Full,
    /// A keyed hash and the hashed n-grams that lexical features are made of.
    Hash,
    /// Nothing: what is learned is learned of embeddings.
    None,
}

/// What is asked of the configured tasks, and of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputPolicies {
    /// Tasks without an entry of their own.
    pub default: StoreInput,
    /// Tasks with one.
    pub tasks: BTreeMap<TaskName, StoreInput>,
    /// Keys the hashes.
    pub key: InputKey,
}

/// Applies the policies.
pub(crate) struct Privacy {
    default: StoreInput,
    tasks: BTreeMap<TaskName, StoreInput>,
    withholder: Withholder,
    scheme: String,
    /// A task withholds its inputs. What is no trace belongs to no task, so then nothing
    /// of it is shown.
    withholds: bool,
}

impl Privacy {
    pub(crate) fn new(policies: &InputPolicies) -> Self {
        let withholder = Withholder::new(&policies.key, &LexiconConfig::default());
        let mut all = policies.tasks.values().chain([&policies.default]);
        Self {
            default: policies.default,
            tasks: policies.tasks.clone(),
            scheme: withholder.scheme(),
            withholder,
            withholds: all.any(|policy| *policy != StoreInput::Full),
        }
    }

    /// Whether any task withholds its inputs: [`Privacy::apply`] does nothing otherwise.
    pub(crate) fn withholds(&self) -> bool {
        self.withholds
    }

    /// Takes the text out of a trace, when its task asks for it.
    pub(crate) fn apply(&self, trace: &mut Trace) {
        if !self.withholds {
            return;
        }
        let policy = self.tasks.get(&trace.task).unwrap_or(&self.default);
        match policy {
            StoreInput::Full => {}
            StoreInput::None => trace.input = None,
            StoreInput::Hash => {
                trace.withheld = trace.input.take().map(|text| {
                    let Withheld { hash, hashed } = self.withholder.withhold(&text);
                    Box::new(WithheldInput {
                        hash,
                        scheme: self.scheme.clone(),
                        counts: hashed.counts().to_vec(),
                    })
                });
            }
        }
    }

    /// What may be said of an error: messages quote what they are about.
    pub(crate) fn told<'a>(&self, error: &'a DecodeError) -> Cow<'a, DecodeError> {
        if self.withholds {
            Cow::Owned(DecodeError::Withheld(error.reason()))
        } else {
            Cow::Borrowed(error)
        }
    }

    /// What may be shown of a record that is no trace.
    pub(crate) fn shown<'a>(&self, record: &'a Record) -> Cow<'a, Record> {
        if self.withholds {
            Cow::Owned(Record {
                payload: Bytes::new(),
                ..record.clone()
            })
        } else {
            Cow::Borrowed(record)
        }
    }
}
