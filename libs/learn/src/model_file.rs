//! Pipelines as bytes: safetensors with a JSON header, nothing that can run code.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use tracer_features::{Lexicon, LexiconConfig};

use crate::{
    acceptor::Acceptor,
    logistic::Logistic,
    pipeline::{Pipeline, PipelineCard},
    surrogate::{Component, Surrogate},
};

/// The version of the layout this code writes and the newest it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The key of the JSON header in the safetensors metadata.
const HEADER: &str = "tracer.pipeline";

#[derive(Serialize, Deserialize)]
struct Header {
    schema_version: u32,
    card: PipelineCard,
    labels: Vec<String>,
    acceptor: Acceptor,
    components: Vec<ComponentHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ComponentHeader {
    Dense,
    Lexical { lexicon: LexiconConfig },
}

/// Bytes that are no pipeline this code can serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not safetensors, cut short, or without the header.
    #[error("not a pipeline: {0}")]
    Malformed(String),
    /// Written by newer code.
    #[error("the pipeline has schema version {found}; this code reads up to {SCHEMA_VERSION}")]
    NewerSchema {
        /// The version in the file.
        found: u32,
    },
    /// The parts contradict each other.
    #[error("damaged pipeline: {0}")]
    Damaged(String),
}

fn damaged(e: impl std::fmt::Display) -> ModelError {
    ModelError::Damaged(e.to_string())
}

impl Pipeline {
    /// The pipeline as safetensors.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut components = Vec::new();
        for (i, component) in self.surrogate.components().iter().enumerate() {
            let model = component.model();
            let stride = model.intercepts().len();
            tensors.push((
                format!("{i}.weights"),
                Dtype::F32,
                vec![model.features(), stride],
                le_bytes(model.weights()),
            ));
            tensors.push((
                format!("{i}.intercepts"),
                Dtype::F32,
                vec![stride],
                le_bytes(model.intercepts()),
            ));
            components.push(match component {
                Component::Dense(_) => ComponentHeader::Dense,
                Component::Lexical { lexicon, .. } => {
                    let buckets = lexicon
                        .buckets()
                        .iter()
                        .flat_map(|b| b.to_le_bytes())
                        .collect();
                    tensors.push((
                        format!("{i}.buckets"),
                        Dtype::U32,
                        vec![lexicon.len()],
                        buckets,
                    ));
                    tensors.push((
                        format!("{i}.idf"),
                        Dtype::F32,
                        vec![lexicon.len()],
                        le_bytes(lexicon.idf()),
                    ));
                    ComponentHeader::Lexical {
                        lexicon: lexicon.config().clone(),
                    }
                }
            });
        }
        let header = Header {
            schema_version: SCHEMA_VERSION,
            card: self.card.clone(),
            labels: self.labels.clone(),
            acceptor: self.acceptor.clone(),
            components,
        };
        let json = serde_json::to_string(&header).expect("a header of plain values");
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes)
                .expect("as many bytes as the shape says");
            (name.clone(), view)
        });
        safetensors::serialize(views, Some(HashMap::from([(HEADER.to_owned(), json)])))
            .expect("tensors of distinct names")
    }

    /// Reads a pipeline back and checks that all its parts fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let malformed = |e: &dyn std::fmt::Display| ModelError::Malformed(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(&e))?;
        let json = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get(HEADER))
            .ok_or_else(|| malformed(&"the safetensors metadata has no tracer.pipeline"))?;
        let version: serde_json::Value = serde_json::from_str(json).map_err(|e| malformed(&e))?;
        let found = version
            .get("schema_version")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0) as u32;
        if found > SCHEMA_VERSION {
            return Err(ModelError::NewerSchema { found });
        }
        let header: Header = serde_json::from_str(json).map_err(|e| malformed(&e))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| malformed(&e))?;
        let classes = header.labels.len();
        let mut components = Vec::new();
        for (i, component) in header.components.iter().enumerate() {
            let model = Logistic::from_parts(
                classes,
                floats(&tensors, &format!("{i}.weights"))?,
                floats(&tensors, &format!("{i}.intercepts"))?,
            )
            .map_err(damaged)?;
            components.push(match component {
                ComponentHeader::Dense => Component::Dense(model),
                ComponentHeader::Lexical { lexicon } => {
                    let buckets = words(&tensors, &format!("{i}.buckets"), Dtype::U32)?
                        .map(u32::from_le_bytes)
                        .collect();
                    let lexicon = Lexicon::from_parts(
                        lexicon,
                        buckets,
                        floats(&tensors, &format!("{i}.idf"))?,
                    )
                    .map_err(damaged)?;
                    if lexicon.len() != model.features() {
                        return Err(damaged("the lexicon and its model differ in size"));
                    }
                    Component::Lexical { lexicon, model }
                }
            });
        }
        if components.is_empty() {
            return Err(damaged("there are no components"));
        }
        if !header.acceptor.is_sound() || header.acceptor.reliability.classes() != classes {
            return Err(damaged("the acceptor does not fit the labels"));
        }
        if !header.card.threshold.is_finite() {
            return Err(damaged("the threshold is not finite"));
        }
        let surrogate = Surrogate::new(components);
        if surrogate.embedding_dimension() != header.card.embedding_dimension
            || surrogate.needs_text() != header.card.needs_text
        {
            return Err(damaged(
                "the card and the components differ in what they need",
            ));
        }
        Ok(Self {
            card: header.card,
            labels: header.labels,
            surrogate,
            acceptor: header.acceptor,
        })
    }
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn words<'a>(
    tensors: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
) -> Result<impl Iterator<Item = [u8; 4]> + use<'a>, ModelError> {
    let tensor = tensors
        .tensor(name)
        .map_err(|e| damaged(format!("{name}: {e}")))?;
    if tensor.dtype() != dtype {
        return Err(damaged(format!(
            "{name} is {:?}, expected {dtype:?}",
            tensor.dtype()
        )));
    }
    let (words, _) = tensor.data().as_chunks::<4>();
    Ok(words.iter().copied())
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, ModelError> {
    Ok(words(tensors, name, Dtype::F32)?
        .map(f32::from_le_bytes)
        .collect())
}
