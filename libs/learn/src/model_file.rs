//! Pipelines as bytes: safetensors with a JSON header, nothing that can run code.
//!
//! A tensor's name is the path to it: `first.0.weights` is the weights of the
//! first component of the first stage.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use tracer_features::{Lexicon, LexiconConfig};

use crate::{
    acceptor::Acceptor,
    component::{Component, Needs},
    logistic::Logistic,
    model::{Forest, Mlp, Tensor, TensorData},
    ood::{Guard, GuardHeader},
    pipeline::{Pipeline, PipelineCard, Residual, Stage},
    surrogate::Surrogate,
};

/// The version of the layout this code writes and the only one it reads: no
/// release has written an older one.
pub const SCHEMA_VERSION: u32 = 3;

/// The key of the JSON header in the safetensors metadata.
const HEADER: &str = "tracer.pipeline";

#[derive(Serialize, Deserialize)]
struct Header {
    schema_version: u32,
    card: PipelineCard,
    labels: Vec<String>,
    lexicon: Option<LexiconConfig>,
    guard: Option<GuardHeader>,
    first: StageHeader,
    residual: Option<ResidualHeader>,
}

#[derive(Serialize, Deserialize)]
struct StageHeader {
    components: Vec<ComponentKind>,
    acceptor: Acceptor,
}

#[derive(Serialize, Deserialize)]
struct ResidualHeader {
    entry: f32,
    stage: StageHeader,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ComponentKind {
    Dense,
    Lexical,
    Fused,
    Mlp,
    LexicalMlp,
    Forest,
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
    /// Written by older code, in a layout that is no longer read.
    #[error(
        "the pipeline has schema version {found}; this code reads {SCHEMA_VERSION} only: refit"
    )]
    OlderSchema {
        /// The version in the file.
        found: u32,
    },
    /// The parts contradict each other.
    #[error("damaged pipeline: {0}")]
    Damaged(String),
}

fn malformed(e: impl std::fmt::Display) -> ModelError {
    ModelError::Malformed(e.to_string())
}

fn damaged(e: impl std::fmt::Display) -> ModelError {
    ModelError::Damaged(e.to_string())
}

impl Pipeline {
    /// The pipeline as safetensors.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tensors = Vec::new();
        if let Some(lexicon) = &self.lexicon {
            tensors.push(Tensor::u32("lexicon.buckets", lexicon.buckets().to_vec()));
            let idf = lexicon.idf().to_vec();
            tensors.push(Tensor::f32("lexicon.idf", &[idf.len()], idf));
        }
        let guard = self.guard.as_ref().map(|guard| {
            let (header, stored) = guard.parts();
            tensors.push(Tensor::u32("guard.starts", stored.starts.to_vec()));
            tensors.push(Tensor::i8("guard.codes", stored.codes.to_vec()));
            header
        });
        let first = self.first.write("first", &mut tensors);
        let residual = self.residual.as_ref().map(|residual| ResidualHeader {
            entry: residual.entry,
            stage: residual.stage.write("residual", &mut tensors),
        });
        let header = Header {
            schema_version: SCHEMA_VERSION,
            card: self.card.clone(),
            labels: self.labels.clone(),
            lexicon: self.lexicon.as_ref().map(|l| l.config().clone()),
            guard,
            first,
            residual,
        };
        serialise(&tensors, &header)
    }

    /// Reads a pipeline back and checks that all its parts fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let json = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get(HEADER))
            .ok_or_else(|| malformed("the safetensors metadata has no tracer.pipeline"))?;
        let version: serde_json::Value = serde_json::from_str(json).map_err(malformed)?;
        let found = version
            .get("schema_version")
            .and_then(serde_json::Value::as_u64)
            .map_or(0, |found| u32::try_from(found).unwrap_or(u32::MAX));
        if found > SCHEMA_VERSION {
            return Err(ModelError::NewerSchema { found });
        }
        if found < SCHEMA_VERSION {
            return Err(ModelError::OlderSchema { found });
        }
        let header: Header = serde_json::from_str(json).map_err(malformed)?;
        let mut tensors = tensors(&SafeTensors::deserialize(bytes).map_err(malformed)?)?;
        let lexicon = header
            .lexicon
            .map(|config| read_lexicon(&config, &mut tensors))
            .transpose()?;
        let shape = Shape {
            classes: header.labels.len(),
            dimension: header.card.embedding_dimension,
            columns: lexicon.as_ref().map(Lexicon::len),
        };
        if shape.classes == 0 {
            return Err(damaged("there are no labels"));
        }
        let first = Stage::read("first", header.first, shape, &mut tensors)?;
        let residual = header
            .residual
            .map(|residual| -> Result<Residual, ModelError> {
                if !residual.entry.is_finite() {
                    return Err(damaged("the entry of the second stage is not finite"));
                }
                Ok(Residual {
                    entry: residual.entry,
                    stage: Stage::read("residual", residual.stage, shape, &mut tensors)?,
                })
            })
            .transpose()?;
        let guard = header
            .guard
            .map(|header| {
                let (mut starts, mut codes) = (Vec::new(), Vec::new());
                for tensor in take(&mut tensors, "guard") {
                    match (tensor.name.as_str(), tensor.data) {
                        ("starts", TensorData::U32(values)) => starts = values,
                        ("codes", TensorData::I8(values)) => codes = values,
                        _ => {}
                    }
                }
                Guard::from_parts(
                    header,
                    starts,
                    codes,
                    shape.classes,
                    first.surrogate.components().len(),
                    shape.dimension,
                    shape.columns.is_some(),
                )
                .map_err(damaged)
            })
            .transpose()?;
        if !header.card.threshold.is_finite() {
            return Err(damaged("the threshold is not finite"));
        }
        let needs = residual
            .as_ref()
            .map_or(first.needs(), |r| first.needs().or(r.stage.needs()));
        let stated = Needs {
            dense: header.card.embedding_dimension.is_some(),
            lexical: header.card.needs_text,
        };
        if needs != stated || lexicon.is_some() != needs.lexical {
            return Err(damaged(
                "the card and the components differ in what they need",
            ));
        }
        Ok(Self {
            card: header.card,
            labels: header.labels,
            lexicon,
            guard,
            first,
            residual,
        })
    }
}

/// What every part of a pipeline must agree on.
#[derive(Clone, Copy)]
struct Shape {
    classes: usize,
    /// Of the embedding.
    dimension: Option<usize>,
    /// Of the lexicon.
    columns: Option<usize>,
}

impl Stage {
    fn write(&self, path: &str, tensors: &mut Vec<Tensor>) -> StageHeader {
        let mut components = Vec::new();
        for (i, component) in self.surrogate.components().iter().enumerate() {
            let (kind, parts) = match component {
                Component::Dense(model) => (ComponentKind::Dense, linear_parts(model)),
                Component::Lexical(model) => (ComponentKind::Lexical, linear_parts(model)),
                Component::Fused(model) => (ComponentKind::Fused, linear_parts(model)),
                Component::Mlp(model) => (ComponentKind::Mlp, model.parts()),
                Component::LexicalMlp(model) => (ComponentKind::LexicalMlp, model.parts()),
                Component::Forest(model) => (ComponentKind::Forest, model.parts()),
            };
            add(tensors, &format!("{path}.{i}"), parts);
            components.push(kind);
        }
        StageHeader {
            components,
            acceptor: self.acceptor.clone(),
        }
    }

    fn read(
        path: &str,
        header: StageHeader,
        shape: Shape,
        tensors: &mut Tensors,
    ) -> Result<Self, ModelError> {
        if header.components.is_empty() {
            return Err(damaged(format!("stage {path} has no components")));
        }
        if !header.acceptor.is_sound() || header.acceptor.reliability.classes() != shape.classes {
            return Err(damaged(format!(
                "the acceptor of stage {path} does not fit the labels"
            )));
        }
        let dimension = || {
            shape
                .dimension
                .ok_or_else(|| damaged("a component needs an embedding and the card has none"))
        };
        let columns = || {
            shape
                .columns
                .ok_or_else(|| damaged("a component needs text and there is no lexicon"))
        };
        let components = header
            .components
            .iter()
            .enumerate()
            .map(|(i, kind)| {
                let parts = take(tensors, &format!("{path}.{i}"));
                let mlp =
                    |inputs, parts| Mlp::from_parts(inputs, shape.classes, parts).map_err(damaged);
                let linear = |features| read_linear(parts.clone(), features, shape.classes);
                Ok(match kind {
                    ComponentKind::Dense => Component::Dense(linear(dimension()?)?),
                    ComponentKind::Lexical => Component::Lexical(linear(columns()?)?),
                    ComponentKind::Fused => {
                        let features = columns()?
                            .checked_add(dimension()?)
                            .ok_or_else(|| damaged("the embedding's dimension is too large"))?;
                        Component::Fused(linear(features)?)
                    }
                    ComponentKind::Mlp => {
                        let inputs = (0, dimension()?);
                        Component::Mlp(mlp(inputs, parts)?)
                    }
                    ComponentKind::LexicalMlp => {
                        let inputs = (columns()?, 0);
                        Component::LexicalMlp(mlp(inputs, parts)?)
                    }
                    ComponentKind::Forest => Component::Forest(
                        Forest::from_parts(dimension()?, shape.classes, parts).map_err(damaged)?,
                    ),
                })
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        Ok(Self {
            surrogate: Surrogate::new(components),
            acceptor: header.acceptor,
        })
    }
}

fn linear_parts(model: &Logistic) -> Vec<Tensor> {
    let stride = model.intercepts().len();
    vec![
        Tensor::f32(
            "weights",
            &[model.features(), stride],
            model.weights().to_vec(),
        ),
        Tensor::f32("intercepts", &[stride], model.intercepts().to_vec()),
    ]
}

fn read_linear(
    mut parts: Vec<Tensor>,
    features: usize,
    classes: usize,
) -> Result<Logistic, ModelError> {
    let mut floats = |name: &str| match parts.iter().position(|t| t.name == name) {
        Some(at) => match parts.swap_remove(at).data {
            TensorData::F32(values) => Ok(values),
            _ => Err(damaged(format!("{name} are not f32"))),
        },
        None => Err(damaged(format!("{name} are missing"))),
    };
    let model = Logistic::from_parts(classes, floats("weights")?, floats("intercepts")?)
        .map_err(damaged)?;
    if model.features() != features {
        return Err(damaged(format!(
            "a linear model has {} features, its inputs {features}",
            model.features()
        )));
    }
    Ok(model)
}

fn read_lexicon(config: &LexiconConfig, tensors: &mut Tensors) -> Result<Lexicon, ModelError> {
    let (mut buckets, mut idf) = (None, None);
    for tensor in take(tensors, "lexicon") {
        match (tensor.name.as_str(), tensor.data) {
            ("buckets", TensorData::U32(values)) => buckets = Some(values),
            ("idf", TensorData::F32(values)) => idf = Some(values),
            _ => {}
        }
    }
    let (Some(buckets), Some(idf)) = (buckets, idf) else {
        return Err(damaged("the lexicon is incomplete"));
    };
    Lexicon::from_parts(config, buckets, idf).map_err(damaged)
}

/// Tensors by the path before their last name.
type Tensors = BTreeMap<String, Vec<Tensor>>;

/// Adds parts under a path.
fn add(tensors: &mut Vec<Tensor>, path: &str, parts: Vec<Tensor>) {
    tensors.extend(parts.into_iter().map(|part| Tensor {
        name: format!("{path}.{}", part.name),
        ..part
    }));
}

/// Takes the parts under a path out, by their names below it.
fn take(tensors: &mut Tensors, path: &str) -> Vec<Tensor> {
    tensors.remove(path).unwrap_or_default()
}

/// A path has one step (`guard`, `lexicon`) or two (`first.0`).
fn split_name(name: &str) -> Option<(&str, &str)> {
    let (root, rest) = name.split_once('.')?;
    if matches!(root, "first" | "residual") {
        let (number, rest) = rest.split_once('.')?;
        Some((&name[..root.len() + 1 + number.len()], rest))
    } else {
        Some((root, rest))
    }
}

fn tensors(file: &SafeTensors<'_>) -> Result<Tensors, ModelError> {
    let mut all = Tensors::new();
    for (name, view) in file.iter() {
        let (path, own) =
            split_name(name).ok_or_else(|| damaged(format!("unknown tensor {name:?}")))?;
        let data = match view.dtype() {
            Dtype::F32 => TensorData::F32(words(view.data()).map(f32::from_le_bytes).collect()),
            Dtype::U32 => TensorData::U32(words(view.data()).map(u32::from_le_bytes).collect()),
            Dtype::I8 => TensorData::I8(words(view.data()).map(i8::from_le_bytes).collect()),
            Dtype::U16 => TensorData::U16(words(view.data()).map(u16::from_le_bytes).collect()),
            other => return Err(damaged(format!("{name} is {other:?}"))),
        };
        all.entry(path.to_owned()).or_default().push(Tensor {
            name: own.to_owned(),
            shape: view.shape().to_vec(),
            data,
        });
    }
    Ok(all)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn serialise(tensors: &[Tensor], header: &Header) -> Vec<u8> {
    let json = serde_json::to_string(header).expect("a header of plain values");
    let bytes: Vec<(Dtype, Vec<u8>)> = tensors
        .iter()
        .map(|tensor| match &tensor.data {
            TensorData::F32(v) => (Dtype::F32, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            TensorData::U32(v) => (Dtype::U32, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            TensorData::I8(v) => (Dtype::I8, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            TensorData::U16(v) => (Dtype::U16, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, (dtype, bytes))| {
        let view = TensorView::new(*dtype, tensor.shape.clone(), bytes)
            .expect("as many bytes as the shape says");
        (tensor.name.clone(), view)
    });
    safetensors::serialize(views, Some(HashMap::from([(HEADER.to_owned(), json)])))
        .expect("tensors of distinct names")
}
