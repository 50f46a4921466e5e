//! The static embedder: the mean of the token vectors of a table (model2vec's layout).
//!
//! A directory holds `model.safetensors` with `embeddings` (tokens × dimension), and
//! maybe `weights` (one a token) and `mapping` (the row of each token); `tokenizer.json`;
//! and `config.json`, of which `normalize` and `max_length` count. Unknown tokens do not
//! count (Minish Lab, model2vec).

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::{
    EmbedError, Embedder, EmbedderConfig, Identity, ModelFiles, OpenError, checked,
    config::MAX_DIMENSION,
    files::{self, TOKENIZER, WEIGHTS},
    identity::{hash, prefix_part},
    to_unit,
    tokens::Tokens,
};

const WEIGHTS_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Tokens of a text, unless the configuration says otherwise.
const MAX_TOKENS: usize = 512;

/// Bytes of texts that are embedded at once on the caller's thread: well below a
/// millisecond. More go to a blocking thread.
const LIGHT_BYTES: usize = 2 << 10;

#[derive(Deserialize)]
#[serde(default)]
struct ModelConfig {
    normalize: bool,
    max_length: Option<usize>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            normalize: true,
            max_length: None,
        }
    }
}

/// Shared with blocking threads.
struct Table {
    tokens: Tokens,
    unknown: Option<u32>,
    /// Row-major, a row of `dimension` values each.
    vectors: Vec<f32>,
    weights: Option<Vec<f32>>,
    mapping: Option<Vec<u32>>,
    dimension: usize,
    normalize: bool,
    prefix: String,
}

/// The static embedder.
pub(super) struct Static {
    identity: Identity,
    table: Arc<Table>,
}

impl fmt::Debug for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Static").field(&self.identity).finish()
    }
}

impl Static {
    pub(super) async fn open(
        config: &EmbedderConfig,
        files: &dyn ModelFiles,
    ) -> Result<Self, OpenError> {
        let weights = files::needed(files, WEIGHTS_FILE, WEIGHTS).await?;
        let tokenizer = files::needed(files, TOKENIZER_FILE, TOKENIZER).await?;
        let model: ModelConfig = files::json(files, "config.json").await?.unwrap_or_default();
        let (config, places) = (
            config.clone(),
            [WEIGHTS_FILE, TOKENIZER_FILE].map(|name| files.place(name)),
        );
        let built = tokio::task::spawn_blocking(move || {
            build(&config, &model, &weights, &tokenizer, &places)
        });
        built
            .await
            .unwrap_or_else(|error| Err(OpenError::file(files.place(WEIGHTS_FILE), error)))
    }
}

fn build(
    config: &EmbedderConfig,
    model: &ModelConfig,
    weights: &[u8],
    tokenizer: &[u8],
    [weights_file, tokenizer_file]: &[String; 2],
) -> Result<Static, OpenError> {
    let bad = |problem: String| OpenError::file(weights_file, problem);
    let tensors = SafeTensors::deserialize(weights).map_err(|error| bad(error.to_string()))?;
    let embeddings = tensors
        .tensor("embeddings")
        .map_err(|_| bad("there is no tensor \"embeddings\"".to_owned()))?;
    let &[rows, dimension] = embeddings.shape() else {
        return Err(bad("\"embeddings\" is no matrix".to_owned()));
    };
    if rows == 0 || !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(bad(format!("\"embeddings\" is {rows} × {dimension}")));
    }
    let vectors =
        floats(&embeddings).map_err(|problem| bad(format!("\"embeddings\" {problem}")))?;
    if vectors.iter().any(|value| !value.is_finite()) {
        return Err(bad(
            "\"embeddings\" has a value that is no number".to_owned()
        ));
    }
    let optional = |name| tensors.tensor(name).ok();
    let token_weights = optional("weights")
        .map(|tensor| floats(&tensor))
        .transpose()
        .map_err(|problem| bad(format!("\"weights\" {problem}")))?;
    let mapping = optional("mapping")
        .map(|tensor| indices(&tensor, rows))
        .transpose()
        .map_err(|problem| bad(format!("\"mapping\" {problem}")))?;

    let max_tokens = match config.max_tokens {
        0 => model.max_length.unwrap_or(MAX_TOKENS).clamp(1, 65_536),
        own => own,
    };
    let tokens = Tokens::new(tokenizer, tokenizer_file, max_tokens, false)?;
    let unknown = unknown_token(tokenizer, &tokens);
    let normalize = config.normalize.unwrap_or(model.normalize);
    let prefix = config.prefix.clone().unwrap_or_default();
    let rest: Vec<String> = normalize
        .then(|| "unit".to_owned())
        .into_iter()
        .chain((max_tokens != MAX_TOKENS).then(|| format!("max-{max_tokens}")))
        .chain(prefix_part(&prefix))
        .collect();
    let identity = if config.name.is_empty() {
        Identity::composed("static", &hash(&[weights, tokenizer]), dimension, &rest)
    } else {
        Identity::named(&config.name, dimension)
    };
    let table = Table {
        tokens,
        unknown,
        vectors,
        weights: token_weights,
        mapping,
        dimension,
        normalize,
        prefix,
    };
    Ok(Static {
        identity,
        table: Arc::new(table),
    })
}

/// The token that stands for what the tokenizer does not know.
fn unknown_token(tokenizer: &[u8], tokens: &Tokens) -> Option<u32> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        unk_token: Option<String>,
        unk_id: Option<u32>,
    }
    let file: File = serde_json::from_slice(tokenizer).ok()?;
    let named = file.model.unk_token.and_then(|token| tokens.id(&token));
    named.or(file.model.unk_id)
}

/// The values of a tensor as `f32`.
fn floats(tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Ok(parts(data).map(f32::from_le_bytes).collect()),
        Dtype::F64 => Ok(parts(data).map(|b| f64::from_le_bytes(b) as f32).collect()),
        Dtype::F16 => Ok(parts(data)
            .map(|b| half::f16::from_le_bytes(b).to_f32())
            .collect()),
        Dtype::BF16 => Ok(parts(data)
            .map(|b| half::bf16::from_le_bytes(b).to_f32())
            .collect()),
        // A quantised table: its scale falls out of the unit length.
        Dtype::I8 => Ok(parts(data)
            .map(|b| f32::from(i8::from_le_bytes(b)))
            .collect()),
        other => Err(format!("is of type {other:?}, which is not known here")),
    }
}

/// The values of a tensor as rows of a table.
fn indices(tensor: &TensorView<'_>, rows: usize) -> Result<Vec<u32>, String> {
    let data = tensor.data();
    let values: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => parts(data).map(i64::from_le_bytes).collect(),
        Dtype::I32 => parts(data)
            .map(|b| i64::from(i32::from_le_bytes(b)))
            .collect(),
        other => return Err(format!("is of type {other:?}, which is not known here")),
    };
    let row = |value: i64| {
        u32::try_from(value)
            .ok()
            .filter(|row| (*row as usize) < rows)
    };
    let mapped: Option<Vec<u32>> = values.into_iter().map(row).collect();
    mapped.ok_or_else(|| format!("names a row beyond the {rows} there are"))
}

fn parts<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.as_chunks::<N>().0.iter().copied()
}

impl Table {
    fn embed(&self, text: &str) -> Result<Vec<f32>, EmbedError> {
        let prefixed;
        let text = if self.prefix.is_empty() {
            text
        } else {
            prefixed = format!("{}{text}", self.prefix);
            &prefixed
        };
        let mut sum = vec![0.0_f32; self.dimension];
        let mut count = 0_u32;
        for token in self.tokens.of(text)? {
            if Some(token) == self.unknown {
                continue;
            }
            let Some(vector) = self.row(token) else {
                let detail = format!("the table has no row for token {token}");
                return Err(EmbedError::Refused { detail });
            };
            let weights = self.weights.as_ref();
            let weight = weights.map_or(1.0, |all| all.get(token as usize).copied().unwrap_or(1.0));
            for (sum, value) in sum.iter_mut().zip(vector) {
                *sum += weight * value;
            }
            count += 1;
        }
        if count > 0 {
            for value in &mut sum {
                *value /= count as f32;
            }
        }
        if self.normalize {
            to_unit(&mut sum);
        }
        Ok(sum)
    }

    fn row(&self, token: u32) -> Option<&[f32]> {
        let row = match &self.mapping {
            Some(mapping) => *mapping.get(token as usize)?,
            None => token,
        };
        let start = row as usize * self.dimension;
        self.vectors.get(start..start + self.dimension)
    }

    fn embed_all(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let vectors = texts.iter().map(|text| self.embed(text));
        let vectors = vectors.collect::<Result<Vec<_>, _>>()?;
        checked(vectors, texts.len(), self.dimension)
    }
}

#[async_trait]
impl Embedder for Static {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        if texts.iter().map(String::len).sum::<usize>() <= LIGHT_BYTES {
            return self.table.embed_all(&texts);
        }
        let table = Arc::clone(&self.table);
        let embedded = tokio::task::spawn_blocking(move || table.embed_all(&texts)).await;
        embedded.unwrap_or_else(|error| {
            let detail = error.to_string();
            Err(EmbedError::Model { detail })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::{Directory, EmbedderKind, open};
    use std::{collections::BTreeMap, path::Path};

    const WORDS: [&str; 5] = ["[PAD]", "[UNK]", "where", "is", "parcel"];

    fn tokenizer() -> String {
        let vocab: BTreeMap<&str, usize> = WORDS.into_iter().zip(0..).collect();
        serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": { "type": "Lowercase" },
            "pre_tokenizer": { "type": "Whitespace" },
            "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
        })
        .to_string()
    }

    fn bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|value| to(*value)).collect()
    }

    /// Five tokens in two dimensions.
    fn write(directory: &Path, extra: bool, config: &str) {
        let table = [9.0_f32, 9.0, 7.0, 7.0, 1.0, 0.0, 0.0, 1.0, 2.0, 2.0];
        let table = bytes(&table, f32::to_le_bytes);
        let weights = bytes(&[1.0_f32, 1.0, 1.0, 3.0, 1.0], f32::to_le_bytes);
        let mapping = bytes(&[0_i64, 1, 2, 2, 4], i64::to_le_bytes);
        let view = |dtype, shape, data| TensorView::new(dtype, shape, data).unwrap();
        let mut tensors = vec![("embeddings", view(Dtype::F32, vec![5, 2], &table))];
        if extra {
            tensors.push(("weights", view(Dtype::F32, vec![5], &weights)));
            tensors.push(("mapping", view(Dtype::I64, vec![5], &mapping)));
        }
        let serialized = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(directory.join(WEIGHTS_FILE), serialized).unwrap();
        std::fs::write(directory.join(TOKENIZER_FILE), tokenizer()).unwrap();
        std::fs::write(directory.join("config.json"), config).unwrap();
    }

    fn config(directory: &Path) -> EmbedderConfig {
        EmbedderConfig {
            kind: EmbedderKind::Static,
            model: directory.display().to_string(),
            ..EmbedderConfig::default()
        }
    }

    async fn opened(config: &EmbedderConfig) -> Result<Arc<dyn Embedder>, OpenError> {
        let files = Directory(config.model.clone().into());
        Ok(open(config, &files).await?.unwrap())
    }

    async fn of(embedder: &Arc<dyn Embedder>, text: &str) -> Vec<f32> {
        let mut vectors = embedder.embed(vec![text.to_owned()]).await.unwrap();
        assert_eq!(vectors.len(), 1);
        vectors.remove(0)
    }

    #[tokio::test]
    async fn the_mean_of_the_tokens_that_are_known() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), false, r#"{"normalize": false}"#);
        let config = config(directory.path());
        let embedder = opened(&config).await.unwrap();
        assert_eq!(of(&embedder, "Where is").await, [0.5, 0.5]);
        assert_eq!(of(&embedder, "where zebra parcel").await, [1.5, 1.0]);
        assert_eq!(of(&embedder, "zebra").await, [0.0, 0.0]);

        // What is too long is cut, and a long text takes the other way.
        let cut = EmbedderConfig {
            max_tokens: 2,
            ..config.clone()
        };
        let cut = opened(&cut).await.unwrap();
        assert_eq!(of(&cut, "where is parcel").await, [0.5, 0.5]);
        assert_eq!(of(&cut, &"is ".repeat(LIGHT_BYTES)).await, [0.0, 1.0]);

        // Whoever says so: the files of the model too.
        write(
            directory.path(),
            false,
            r#"{"normalize": false, "max_length": 2}"#,
        );
        let short = opened(&config).await.unwrap();
        assert_eq!(of(&short, "where is parcel").await, [0.5, 0.5]);
        assert_eq!(short.identity(), cut.identity());
        write(directory.path(), false, r#"{"normalize": false}"#);

        let prefixed = EmbedderConfig {
            prefix: Some("parcel ".to_owned()),
            ..config.clone()
        };
        let prefixed = opened(&prefixed).await.unwrap();
        assert_eq!(of(&prefixed, "where").await, [1.5, 1.0]);
        let identities = [&embedder, &cut, &prefixed].map(|e| e.identity().as_str().to_owned());
        assert!(identities[0].starts_with("static:") && identities[0].ends_with(":2"));
        assert!(identities[1].ends_with(":2:max-2"), "{}", identities[1]);
        assert!(identities[2].contains(":prefix-"), "{}", identities[2]);

        let unit = EmbedderConfig {
            normalize: Some(true),
            name: "ours".to_owned(),
            ..config
        };
        let unit = opened(&unit).await.unwrap();
        let half = 0.5_f32.sqrt();
        assert_eq!(of(&unit, "where is").await, [half, half]);
        assert_eq!(unit.identity().as_str(), "ours");
    }

    #[tokio::test]
    async fn weights_and_mapping_count() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), true, r#"{"normalize": false}"#);
        let embedder = opened(&config(directory.path())).await.unwrap();
        // "is" stands on the row of "where", with weight 3.
        assert_eq!(of(&embedder, "is").await, [3.0, 0.0]);
        assert_eq!(of(&embedder, "is parcel").await, [2.5, 1.0]);
    }

    #[tokio::test]
    async fn what_is_damaged_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let path = directory.path();
        let expect = async |part: &str, named: &str| {
            let error = opened(&config).await.unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(named), "{error}");
        };
        expect(WEIGHTS_FILE, "no such file").await;
        write(path, false, "{}");
        std::fs::write(path.join(WEIGHTS_FILE), b"\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        expect(WEIGHTS_FILE, "").await;
        write(path, false, "{}");
        std::fs::write(path.join(TOKENIZER_FILE), "{}").unwrap();
        expect(TOKENIZER_FILE, "").await;
        write(path, false, "[");
        expect("config.json", "").await;
        write(path, false, "{}");
        let beyond = bytes(&[0_i64, 1, 2, 3, 5], i64::to_le_bytes);
        let table = bytes(&[0.0_f32; 10], f32::to_le_bytes);
        let tensors = vec![
            (
                "embeddings",
                TensorView::new(Dtype::F32, vec![5, 2], &table).unwrap(),
            ),
            (
                "mapping",
                TensorView::new(Dtype::I64, vec![5], &beyond).unwrap(),
            ),
        ];
        let serialized = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(path.join(WEIGHTS_FILE), serialized).unwrap();
        expect("mapping", "beyond the 5").await;
    }
}
