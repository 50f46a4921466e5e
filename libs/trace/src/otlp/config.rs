//! How a span becomes a trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TaskName;

/// Which spans are calls of a classifier, and where their parts stand.
///
/// The defaults fit a chat completion that answers `{"label": "…"}` or the bare label.
/// Attributes are looked up in the span first, then in its resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// Only spans with these attributes count; the value `*` takes any.
    pub select: BTreeMap<String, String>,
    /// The task of all spans; empty to ask the spans.
    pub task: String,
    /// The attribute that names the task.
    pub task_attribute: String,
    /// What names the task of a span without that attribute.
    pub task_fallback: TaskFallback,
    /// The attribute with the input; empty for the last user message.
    pub input_attribute: String,
    /// The attribute with the label; empty for the assistant's message.
    pub label_attribute: String,
    /// Where the label stands in an answer that is JSON, as a JSON pointer
    /// (RFC 6901). Empty takes the answer as it is.
    pub label_pointer: String,
    /// The attribute with the true label, where somebody knows it.
    pub ground_truth_attribute: String,
    /// Attributes that are kept as metadata.
    pub metadata_attributes: Vec<String>,
    /// A record with more spans is rejected as a whole.
    pub max_spans_per_record: usize,
}

/// What names the task of a span that does not name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskFallback {
    /// The resource's `service.name`; characters that a task name cannot have become `-`.
    #[default]
    ServiceName,
    /// The span's name, likewise.
    SpanName,
    /// The task `default`.
    Default,
}

/// A setting that cannot work: its key and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}")]
pub struct InvalidOtlpConfig {
    key: &'static str,
    problem: String,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            select: BTreeMap::new(),
            task: String::new(),
            task_attribute: "tracer.task".to_owned(),
            task_fallback: TaskFallback::ServiceName,
            input_attribute: String::new(),
            label_attribute: String::new(),
            label_pointer: "/label".to_owned(),
            ground_truth_attribute: "tracer.ground_truth".to_owned(),
            metadata_attributes: Vec::new(),
            max_spans_per_record: 10_000,
        }
    }
}

impl OtlpConfig {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), InvalidOtlpConfig> {
        let bad = |key, problem: String| Err(InvalidOtlpConfig { key, problem });
        if let Err(error) = TaskName::new(&self.task)
            && !self.task.is_empty()
        {
            return bad("task", format!("is no task: {error}"));
        }
        if !self.label_pointer.is_empty() && !self.label_pointer.starts_with('/') {
            let pointer = &self.label_pointer;
            return bad(
                "label_pointer",
                format!("is {pointer:?}: a JSON pointer is empty or begins with \"/\""),
            );
        }
        if self.max_spans_per_record == 0 {
            return bad("max_spans_per_record", "must be positive".to_owned());
        }
        Ok(())
    }

    /// Whether an attribute can matter: the others are never looked into.
    pub(super) fn wants(&self, key: &str) -> bool {
        const PREFIXES: [&str; 6] = [
            "gen_ai.",
            "llm.",
            "tracer.",
            "openinference.",
            "input.",
            "output.",
        ];
        PREFIXES.iter().any(|prefix| key.starts_with(prefix))
            || key == super::SERVICE_NAME
            || [
                &self.task_attribute,
                &self.input_attribute,
                &self.label_attribute,
                &self.ground_truth_attribute,
            ]
            .into_iter()
            .chain(&self.metadata_attributes)
            .chain(self.select.keys())
            .any(|wanted| wanted == key)
    }
}
