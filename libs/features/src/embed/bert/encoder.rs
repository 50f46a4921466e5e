//! The transformer (Devlin et al. 2019; Liu et al. 2019 for RoBERTa's positions).

use std::collections::HashMap;

use candle_core::{D, DType, Device, Module as _, Result, Tensor, bail, safetensors::load_buffer};
use candle_nn::{LayerNorm, Linear, ops::softmax_last_dim};
use serde::Deserialize;

use super::gelu::Gelu;

use crate::embed::Pooling;

/// `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EncoderConfig {
    #[serde(default = "bert")]
    model_type: String,
    pub(super) hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

fn bert() -> String {
    "bert".to_owned()
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn epsilon() -> f64 {
    1e-12
}

impl EncoderConfig {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let Self {
            model_type,
            hidden_act,
            hidden_size: hidden,
            num_attention_heads: heads,
            ..
        } = self;
        if !matches!(model_type.as_str(), "bert" | "roberta" | "xlm-roberta") {
            return Err(format!(
                "a model of type {model_type:?} is not known here; bert, roberta and xlm-roberta are"
            ));
        }
        if Activation::of(hidden_act).is_none() {
            return Err(format!("the activation {hidden_act:?} is not known here"));
        }
        if let Some(kind) = &self.position_embedding_type
            && kind != "absolute"
        {
            return Err(format!("positions of type {kind:?} are not known here"));
        }
        let bounded = (1..=8_192).contains(hidden)
            && (1..=256).contains(&self.num_hidden_layers)
            && (1..=65_536).contains(&self.intermediate_size)
            && (8..=65_536).contains(&self.max_position_embeddings)
            && self.pad_token_id.unwrap_or(0) < 4
            && *heads > 0
            && hidden.is_multiple_of(*heads);
        if !bounded {
            return Err("a size cannot be right".to_owned());
        }
        Ok(())
    }

    /// Where positions begin.
    fn first_position(&self) -> usize {
        match self.model_type.as_str() {
            "bert" => 0,
            _ => self.pad_token_id.unwrap_or(1) + 1,
        }
    }

    /// The longest text in tokens.
    pub(super) fn longest(&self) -> usize {
        self.max_position_embeddings - self.first_position()
    }
}

#[derive(Clone, Copy, Debug)]
enum Activation {
    Gelu,
    GeluTanh,
    Relu,
}

impl Activation {
    fn of(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.apply_op1_no_bwd(&Gelu),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
        }
    }
}

/// The encoder, in 32-bit floats.
pub(super) struct Encoder {
    words: Tensor,
    /// A row a place in the text, with the one segment there is added.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    hidden: usize,
    vocabulary: usize,
}

struct Layer {
    /// Queries, keys and values side by side.
    queries_keys_values: Linear,
    output: Linear,
    output_norm: LayerNorm,
    up: Linear,
    down: Linear,
    down_norm: LayerNorm,
    heads: usize,
    activation: Activation,
}

/// The tensors of a file, whatever they are called in front.
struct Weights {
    tensors: HashMap<String, Tensor>,
    front: String,
}

impl Weights {
    fn read(bytes: &[u8]) -> Result<Self> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let tensors = load_buffer(bytes, &Device::Cpu)?;
        let named = tensors.keys().find_map(|name| name.strip_suffix(WORDS));
        let Some(front) = named.map(str::to_owned) else {
            bail!("there is no tensor {WORDS:?}");
        };
        Ok(Self { tensors, front })
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = format!("{}{name}", self.front);
        let Some(tensor) = self.tensors.get(&name) else {
            bail!("there is no tensor {name:?}");
        };
        if tensor.dims() != shape {
            bail!("{name:?} is {:?}, not {shape:?}", tensor.dims());
        }
        tensor.to_dtype(DType::F32)?.contiguous()
    }

    fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.get(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.get(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&self, name: &str, config: &EncoderConfig) -> Result<LayerNorm> {
        let shape = [config.hidden_size];
        // Files from before 2019 have the other names.
        let either = |new: &str, old: &str| {
            self.get(&format!("{name}.{new}"), &shape).or_else(|error| {
                self.get(&format!("{name}.{old}"), &shape)
                    .map_err(|_| error)
            })
        };
        let (weight, bias) = (either("weight", "gamma")?, either("bias", "beta")?);
        Ok(LayerNorm::new(weight, bias, config.layer_norm_eps))
    }

    fn layer(&self, index: usize, config: &EncoderConfig) -> Result<Layer> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let mut weights = Vec::with_capacity(3);
        let mut biases = Vec::with_capacity(3);
        for part in ["query", "key", "value"] {
            let linear = name(&format!("attention.self.{part}"));
            weights.push(self.get(&format!("{linear}.weight"), &[hidden, hidden])?);
            biases.push(self.get(&format!("{linear}.bias"), &[hidden])?);
        }
        let queries_keys_values =
            Linear::new(Tensor::cat(&weights, 0)?, Some(Tensor::cat(&biases, 0)?));
        Ok(Layer {
            queries_keys_values,
            output: self.linear(&name("attention.output.dense"), hidden, hidden)?,
            output_norm: self.norm(&name("attention.output.LayerNorm"), config)?,
            up: self.linear(&name("intermediate.dense"), hidden, inner)?,
            down: self.linear(&name("output.dense"), inner, hidden)?,
            down_norm: self.norm(&name("output.LayerNorm"), config)?,
            heads: config.num_attention_heads,
            activation: Activation::of(&config.hidden_act).unwrap_or(Activation::Gelu),
        })
    }
}

/// Texts of one length that stand one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    /// The first token.
    start: usize,
    texts: usize,
    /// Tokens of each.
    len: usize,
}

/// The groups of texts in their order.
fn groups(texts: &[&[u32]]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut start = 0;
    for text in texts {
        match groups.last_mut() {
            Some(group) if group.len == text.len() => group.texts += 1,
            _ => groups.push(Group {
                start,
                texts: 1,
                len: text.len(),
            }),
        }
        start += text.len();
    }
    groups
}

impl Encoder {
    pub(super) fn load(config: &EncoderConfig, bytes: &[u8]) -> Result<Self> {
        let weights = Weights::read(bytes)?;
        let hidden = config.hidden_size;
        let words = format!("{}embeddings.word_embeddings.weight", weights.front);
        let vocabulary = weights.tensors.get(&words).map_or(0, |t| t.dims()[0]);
        let words = weights.get("embeddings.word_embeddings.weight", &[vocabulary, hidden])?;
        let positions = config.max_position_embeddings;
        let positions = weights
            .get(
                "embeddings.position_embeddings.weight",
                &[positions, hidden],
            )?
            .narrow(0, config.first_position(), config.longest())?;
        let segments = format!("{}embeddings.token_type_embeddings.weight", weights.front);
        let positions = match weights.tensors.get(&segments) {
            Some(segments) if segments.dims().len() == 2 && segments.dims()[1] == hidden => {
                positions.broadcast_add(&segments.narrow(0, 0, 1)?.to_dtype(DType::F32)?)?
            }
            Some(segments) => bail!("the segments are {:?}", segments.dims()),
            None => positions,
        };
        let layers = (0..config.num_hidden_layers).map(|i| weights.layer(i, config));
        Ok(Self {
            words,
            positions,
            norm: weights.norm("embeddings.LayerNorm", config)?,
            layers: layers.collect::<Result<_>>()?,
            hidden,
            vocabulary,
        })
    }

    /// The vectors of some texts of tokens, each with at least one and at most as many as
    /// there are positions. Texts of one length should stand together.
    pub(super) fn embed(&self, texts: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        let ids: Vec<u32> = texts.concat();
        if texts.iter().any(|text| text.is_empty()) {
            bail!("a text without tokens");
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            bail!("the token {id} is beyond the {} there are", self.vocabulary);
        }
        let places: Vec<u32> = texts.iter().flat_map(|text| 0..text.len() as u32).collect();
        let count = ids.len();
        let ids = Tensor::from_vec(ids, count, &Device::Cpu)?;
        let places = Tensor::from_vec(places, count, &Device::Cpu)?;
        let words = self.words.index_select(&ids, 0)?;
        let positions = self.positions.index_select(&places, 0)?;
        let mut x = self.norm.forward(&(words + positions)?)?;
        let groups = groups(texts);
        for layer in &self.layers {
            x = layer.forward(&x, &groups)?;
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for group in &groups {
            let shape = (group.texts, group.len, self.hidden);
            let tokens = x
                .narrow(0, group.start, group.texts * group.len)?
                .reshape(shape)?;
            let pooled = match pooling {
                Pooling::Mean => tokens.mean(1)?,
                Pooling::Max => tokens.max(1)?,
                Pooling::Cls => tokens.narrow(1, 0, 1)?.squeeze(1)?,
            };
            vectors.extend(pooled.to_vec2::<f32>()?);
        }
        Ok(vectors)
    }
}

impl Layer {
    /// Tokens × hidden, as it comes and goes.
    fn forward(&self, x: &Tensor, groups: &[Group]) -> Result<Tensor> {
        let attended = self.output.forward(&self.attend(x, groups)?)?;
        let x = self.output_norm.forward(&(attended + x)?)?;
        let inner = self.activation.apply(&self.up.forward(&x)?)?;
        self.down_norm.forward(&(self.down.forward(&inner)? + x)?)
    }

    fn attend(&self, x: &Tensor, groups: &[Group]) -> Result<Tensor> {
        let hidden = x.dim(1)?;
        let size = hidden / self.heads;
        let all = self.queries_keys_values.forward(x)?;
        let mut attended = Vec::with_capacity(groups.len());
        for group in groups {
            let rows = group.texts * group.len;
            let of_group = all.narrow(0, group.start, rows)?;
            // Texts × heads × tokens × size.
            let part = |index: usize| {
                of_group
                    .narrow(1, index * hidden, hidden)?
                    .reshape((group.texts, group.len, self.heads, size))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let queries = (part(0)? * (1.0 / (size as f64).sqrt()))?;
            let scores = queries.matmul(&part(1)?.transpose(D::Minus1, D::Minus2)?)?;
            let mixed = softmax_last_dim(&scores)?.matmul(&part(2)?)?;
            attended.push(mixed.transpose(1, 2)?.reshape((rows, hidden))?);
        }
        Tensor::cat(&attended, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_length_are_a_group() {
        let texts: [&[u32]; 4] = [&[1, 2], &[3, 4], &[5, 6, 7], &[8]];
        let group = |start, texts, len| Group { start, texts, len };
        assert_eq!(
            groups(&texts),
            [group(0, 2, 2), group(4, 1, 3), group(7, 1, 1)]
        );
        assert!(groups(&[]).is_empty());
    }

    fn config(change: &str) -> std::result::Result<(), String> {
        let mut config = serde_json::json!({
            "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 4, "hidden_act": "gelu",
            "max_position_embeddings": 16,
        });
        let (key, value) = change.split_once('=').unwrap();
        config[key] = serde_json::from_str(value).unwrap();
        let config: EncoderConfig = serde_json::from_value(config).unwrap();
        config.check()
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert_eq!(config("hidden_act=\"relu\""), Ok(()));
        assert_eq!(config("model_type=\"xlm-roberta\""), Ok(()));
        for (change, named) in [
            ("model_type=\"mpnet\"", "mpnet"),
            ("hidden_act=\"swish\"", "swish"),
            ("position_embedding_type=\"relative_key\"", "relative_key"),
            ("num_attention_heads=3", "size"),
            ("num_attention_heads=0", "size"),
            ("hidden_size=100000", "size"),
            ("max_position_embeddings=0", "size"),
        ] {
            let error = config(change).unwrap_err();
            assert!(error.contains(named), "{change}: {error}");
        }
    }
}
