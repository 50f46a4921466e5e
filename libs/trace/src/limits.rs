//! Bounds on everything that comes from outside.

use serde::{Deserialize, Serialize};

/// Bounds on one trace. What exceeds them is rejected with the field's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest payload in bytes, before decoding.
    pub max_payload_bytes: usize,
    /// Longest input text in bytes.
    pub max_input_bytes: usize,
    /// Longest label in bytes.
    pub max_label_bytes: usize,
    /// Longest id in bytes.
    pub max_id_bytes: usize,
    /// Most dimensions of an embedding.
    pub max_embedding_dimension: usize,
    /// Most entries of the metadata.
    pub max_metadata_entries: usize,
    /// Longest metadata in bytes, keys and values together.
    pub max_metadata_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload_bytes: 1 << 20,
            max_input_bytes: 64 << 10,
            max_label_bytes: 256,
            max_id_bytes: 256,
            max_embedding_dimension: 8192,
            max_metadata_entries: 64,
            max_metadata_bytes: 16 << 10,
        }
    }
}
