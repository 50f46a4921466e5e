//! The BERT encoder: sentence-transformers' layout, on candle.
//!
//! MiniLM, BGE, E5 and GTE of BERT's architecture, and those of (XLM-)RoBERTa's. Texts
//! that come together are packed, not padded: the dense layers see their tokens one after
//! the other, and attention is done for all texts of one length at once. What a text
//! becomes so hardly depends on the texts it came with.

mod encoder;
mod gelu;

use std::{fmt, time::Duration};

use async_trait::async_trait;

use self::encoder::{Encoder, EncoderConfig};
use super::{
    EmbedError, Embedder, EmbedderConfig, Identity, ModelFiles, OpenError,
    batch::{Batcher, Gather},
    checked,
    files::{self, SETTINGS, TOKENIZER, WEIGHTS},
    identity::{hash, prefix_part},
    layout::Layout,
    to_unit,
    tokens::Tokens,
};

/// Tokens of one pass: they bound its memory.
const PASS_TOKENS: usize = 4_096;

/// The embedder.
pub(super) struct Bert {
    identity: Identity,
    batcher: Batcher,
    prefix: String,
    lower_case: bool,
}

impl fmt::Debug for Bert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bert").field(&self.identity).finish()
    }
}

impl Bert {
    pub(super) async fn open(
        config: &EmbedderConfig,
        files: &dyn ModelFiles,
    ) -> Result<Self, OpenError> {
        let layout = Layout::read(config, files).await?;
        let names = ["config.json", "tokenizer.json", "model.safetensors"].map(|n| layout.file(n));
        let places = names.clone().map(|name| files.place(&name));
        let settings = files::needed(files, &names[0], SETTINGS).await?;
        let encoder = serde_json::from_slice::<EncoderConfig>(&settings);
        let encoder = encoder.map_err(|error| OpenError::file(&places[0], error))?;
        encoder
            .check()
            .map_err(|problem| OpenError::file(&places[0], problem))?;
        let tokenizer = files::needed(files, &names[1], TOKENIZER).await?;
        let weights = files::needed(files, &names[2], WEIGHTS).await?;
        let config = config.clone();
        let place = places[2].clone();
        let built = tokio::task::spawn_blocking(move || {
            let read = [&weights[..], &tokenizer[..], &settings[..]];
            build(&config, layout, &encoder, read, &places)
        });
        built
            .await
            .unwrap_or_else(|error| Err(OpenError::file(place, error)))
    }
}

fn build(
    config: &EmbedderConfig,
    layout: Layout,
    encoder: &EncoderConfig,
    read: [&[u8]; 3],
    [_, tokenizer_place, weights_place]: &[String; 3],
) -> Result<Bert, OpenError> {
    let [weights, tokenizer, _] = read;
    let longest = encoder.longest();
    let max_tokens = layout.max_tokens.unwrap_or(512).clamp(1, longest);
    let tokens = Tokens::new(tokenizer, tokenizer_place, max_tokens, true)?;
    let dimension = encoder.hidden_size;
    let identity = identity(config, &layout, read, dimension, max_tokens);
    let encoder =
        Encoder::load(encoder, weights).map_err(|error| OpenError::file(weights_place, error))?;
    let (pooling, normalize) = (layout.pooling, layout.normalize);
    let gather = Gather {
        batch: config.max_batch,
        wait: Duration::from_millis(config.max_wait_ms),
        queue: config.max_queue,
        delay: Duration::from_millis(config.max_queue_ms),
    };
    let embed = move |texts: &[String]| {
        let ids = texts.iter().map(|text| tokens.of(text));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let mut vectors = passes(&ids, |pass| encoder.embed(pass, pooling))?;
        if normalize {
            for vector in &mut vectors {
                to_unit(vector);
            }
        }
        checked(vectors, texts.len(), dimension)
    };
    let batcher =
        Batcher::start(gather, embed).map_err(|error| OpenError::file(weights_place, error))?;
    Ok(Bert {
        identity,
        batcher,
        prefix: layout.prefix,
        lower_case: layout.lower_case,
    })
}

/// All that changes vectors: what was `read` (the encoder's settings with the weights, since
/// weights alone do not say the activation, say), and what is done around it.
fn identity(
    config: &EmbedderConfig,
    layout: &Layout,
    read: [&[u8]; 3],
    dimension: usize,
    max_tokens: usize,
) -> Identity {
    if !config.name.is_empty() {
        return Identity::named(&config.name, dimension);
    }
    let rest: Vec<String> = [layout.pooling.as_str().to_owned()]
        .into_iter()
        .chain(layout.normalize.then(|| "unit".to_owned()))
        .chain(layout.lower_case.then(|| "lower".to_owned()))
        .chain([format!("max-{max_tokens}")])
        .chain(prefix_part(&layout.prefix))
        .collect();
    Identity::composed("bert", &hash(&read), dimension, &rest)
}

/// Embeds texts of tokens in passes of bounded size, the short ones first, and puts the
/// vectors back in order.
fn passes(
    ids: &[Vec<u32>],
    mut embed: impl FnMut(&[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>>,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|text| ids[*text].len());
    let mut vectors = vec![Vec::new(); ids.len()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |text: &&usize| {
            tokens += ids[**text].len();
            tokens <= PASS_TOKENS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (pass, later) = rest.split_at(count);
        rest = later;
        let texts: Vec<&[u32]> = pass.iter().map(|text| ids[*text].as_slice()).collect();
        let embedded = embed(&texts).map_err(|error| EmbedError::Model {
            // The first line: candle adds a backtrace where one is asked for.
            detail: error.to_string().lines().take(1).collect(),
        })?;
        for (text, vector) in pass.iter().zip(embedded) {
            vectors[*text] = vector;
        }
    }
    Ok(vectors)
}

#[async_trait]
impl Embedder for Bert {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn embed(&self, mut texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        for text in &mut texts {
            if self.lower_case {
                *text = text.to_lowercase();
            }
            if !self.prefix.is_empty() {
                text.insert_str(0, &self.prefix);
            }
        }
        self.batcher.embed(texts).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Pooling;

    #[test]
    fn what_changes_vectors_changes_the_identity() {
        let layout = |lower_case| Layout {
            transformer: String::new(),
            pooling: Pooling::Mean,
            normalize: true,
            prefix: String::new(),
            max_tokens: None,
            lower_case,
        };
        let config = EmbedderConfig::default();
        let of = |layout: &Layout, settings: &[u8]| {
            let read = [&b"weights"[..], &b"tokenizer"[..], settings];
            identity(&config, layout, read, 3, 128).to_string()
        };
        let plain = of(&layout(false), b"gelu");
        assert!(plain.ends_with(":3:mean:unit:max-128"), "{plain}");
        assert_ne!(of(&layout(false), b"relu"), plain);
        let lower = of(&layout(true), b"gelu");
        assert!(lower.ends_with(":3:mean:unit:lower:max-128"), "{lower}");
        let named = EmbedderConfig {
            name: "ours".to_owned(),
            ..EmbedderConfig::default()
        };
        let own = identity(&named, &layout(true), [&[], &[], &[]], 3, 128);
        assert_eq!(own.as_str(), "ours");
    }

    #[test]
    fn passes_are_bounded_and_the_order_is_kept() {
        let ids: Vec<Vec<u32>> = [5, 3_000, 1, 2_000, 7_000, 2]
            .map(|len: u32| (0..len).collect())
            .to_vec();
        let mut sizes = Vec::new();
        let vectors = passes(&ids, |pass| {
            sizes.push(pass.iter().map(|text| text.len()).collect::<Vec<_>>());
            Ok(pass.iter().map(|text| vec![text.len() as f32]).collect())
        });
        assert_eq!(
            vectors.unwrap(),
            [[5.0], [3_000.0], [1.0], [2_000.0], [7_000.0], [2.0]]
        );
        assert_eq!(sizes, [vec![1, 2, 5, 2_000], vec![3_000], vec![7_000]]);
    }
}
