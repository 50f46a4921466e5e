//! Pipelines to serve and requests to send: made up, and the same in every run.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use tracer_learn::{Dataset, FitConfig, Input, Pipeline, Row, Scratch, Verdict, refit};
use tracer_proto::v1;
use tracer_store::{Manifest, Registry, Store, VersionFiles};
use tracer_trace::TaskName;

use crate::demo::rng::Rng;

/// As many labels as Banking77 has.
pub(super) const CLASSES: usize = 77;
/// The dimension of `MiniLM`'s embeddings.
pub(super) const DIMENSION: usize = 384;
/// Rows of each label that the pipelines are fitted on.
const ROWS_OF_A_CLASS: usize = 40;
/// Share of the rows whose label is drawn, as teachers do now and then.
const NOISE: f64 = 0.01;
/// Different requests of a kind, sent in turn.
pub(super) const REQUESTS: usize = 512;
/// Inputs of a batch.
pub(super) const BATCH: usize = 256;

/// What a task's inputs carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) text: bool,
    /// Dimension of the embedding; 0 for none.
    pub(super) dimension: usize,
}

impl Parts {
    /// How long the embedding's noise is beside its centre, and the share of words
    /// that tell another label. With text and embedding each is unclear at times, so
    /// that models on both are better than one.
    fn difficulty(self) -> (f32, f64) {
        if self.text && self.dimension > 0 {
            (4.3, 0.35)
        } else {
            (1.0, 0.0)
        }
    }
}

/// The tasks of the benchmark: a name, what the inputs carry, and the candidates.
const TASKS: [(&str, Parts, &[&str]); 3] = [
    (DENSE, parts(false, DIMENSION), &["dense_logistic"]),
    (TEXT, parts(true, 0), &["lexical_logistic"]),
    // What a refit of real traces ends at most often.
    (
        BLEND,
        parts(true, DIMENSION),
        &["dense_logistic", "lexical_logistic", "mlp_1"],
    ),
];

/// One linear model on embeddings.
pub(super) const DENSE: &str = "dense";
/// One linear model on lexical features.
pub(super) const TEXT: &str = "text";
/// Up to three models on both.
pub(super) const BLEND: &str = "blend";

const fn parts(text: bool, dimension: usize) -> Parts {
    Parts { text, dimension }
}

/// What inputs of one label look like.
#[derive(Debug)]
pub(super) struct World {
    common: Vec<String>,
    /// By label.
    words: Vec<Vec<String>>,
    /// By label.
    centres: Vec<Vec<f32>>,
}

/// One made-up input.
#[derive(Debug)]
pub(super) struct Sample {
    text: String,
    embedding: Vec<f32>,
}

impl World {
    /// Labels that differ by a few words and by the middle of their embeddings.
    pub(super) fn new(dimension: usize) -> Self {
        let mut rng = Rng::new(1);
        let common = (0..60).map(|_| word(&mut rng)).collect();
        let words = (0..CLASSES)
            .map(|_| (0..5).map(|_| word(&mut rng)).collect())
            .collect();
        let centres = (0..CLASSES)
            .map(|_| unit((0..dimension).map(|_| gauss(&mut rng)).collect()))
            .collect();
        Self {
            common,
            words,
            centres,
        }
    }

    /// An input of a label: about 40 characters, and a unit vector.
    pub(super) fn sample(&self, class: usize, parts: Parts, rng: &mut Rng) -> Sample {
        let (spread, strays) = parts.difficulty();
        let mut words: Vec<&str> = Vec::new();
        for _ in 0..3 {
            let stray = rng.chance(strays);
            let own = &self.words[if stray { rng.below(CLASSES) } else { class }];
            words.push(&own[rng.below(own.len())]);
        }
        for _ in 0..3 {
            let common = &self.common[rng.below(self.common.len())];
            words.insert(rng.below(words.len() + 1), common);
        }
        let centre = &self.centres[class];
        let spread = spread / (centre.len().max(1) as f32).sqrt();
        let embedding = centre.iter().map(|c| c + spread * gauss(rng)).collect();
        Sample {
            text: words.join(" "),
            embedding: unit(embedding),
        }
    }
}

/// Two or three syllables.
fn word(rng: &mut Rng) -> String {
    let (consonants, vowels) = ("bcdfghjklmnprstvwz", "aeiou");
    let mut word = String::new();
    for _ in 0..2 + rng.below(2) {
        for letters in [consonants, vowels] {
            let at = rng.below(letters.len());
            word.push_str(&letters[at..=at]);
        }
    }
    word
}

/// Nearly normal: the sum of twelve uniform numbers.
fn gauss(rng: &mut Rng) -> f32 {
    ((0..12).map(|_| rng.unit()).sum::<f64>() - 6.0) as f32
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    for v in &mut vector {
        *v /= length.max(f32::MIN_POSITIVE);
    }
    vector
}

/// A task that was published, and by what it decides.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) task: &'static str,
    pub(super) surrogate: String,
    pub(super) coverage: f64,
    /// Microseconds of a decision in this process, without any server.
    pub(super) decision_us: f64,
}

/// Fits a pipeline for each task and publishes it to the store that a server on
/// `directory` reads.
pub(super) async fn publish(directory: &Path) -> anyhow::Result<Vec<Published>> {
    let registry = registry(directory)?;
    let world = World::new(DIMENSION);
    let mut published = Vec::new();
    for (task, parts, candidates) in TASKS {
        let data = dataset(&world, parts, "", 2)?;
        let pipeline = fit(task, data, candidates).await?;
        let decision_us = time_decision(&pipeline, &world, parts)?;
        let card = pipeline.card();
        registry
            .publish(&TaskName::new(task)?, version(&pipeline), "bench")
            .await?;
        published.push(Published {
            task,
            surrogate: card.surrogate.clone(),
            coverage: card.shadow.coverage,
            decision_us,
        });
    }
    Ok(published)
}

/// The registry that a server on `directory` follows.
pub(super) fn registry(directory: &Path) -> anyhow::Result<Registry> {
    let url = directory.join("store").to_string_lossy().into_owned();
    Ok(Registry::new(Store::open(&url, &BTreeMap::new())?))
}

async fn fit(
    task: &'static str,
    data: Dataset,
    candidates: &'static [&'static str],
) -> anyhow::Result<Pipeline> {
    let fitted = tokio::task::spawn_blocking(move || {
        let config = FitConfig {
            only: candidates.iter().map(|&name| name.to_owned()).collect(),
            ..FitConfig::default()
        };
        refit(task, &data, &config, &mut |_| {})
    });
    let outcome = fitted
        .await??
        .pop()
        .context("a refit gives an outcome for its target")?;
    match (outcome.pipeline, outcome.verdict) {
        (Some(pipeline), _) => Ok(pipeline),
        (None, Verdict::Refused { reason }) => bail!("task {task}: refused: {reason}"),
        (None, Verdict::Passed) => bail!("task {task}: passed without a pipeline"),
    }
}

fn version(pipeline: &Pipeline) -> VersionFiles {
    let card = pipeline.card();
    VersionFiles {
        model: pipeline.to_bytes().into(),
        report_json: "{}".into(),
        report_html: Bytes::new(),
        manifest: Manifest {
            family: card.family.to_string(),
            surrogate: card.surrogate.clone(),
            ..Manifest::default()
        },
    }
}

/// One of two pipelines of the task [`DENSE`] that are told apart by their answers.
#[derive(Debug)]
pub(super) struct Twin {
    /// What its labels begin with.
    pub(super) prefix: &'static str,
    pub(super) threshold: f32,
    files: VersionFiles,
}

impl Twin {
    /// Publishes it as the next version.
    pub(super) async fn publish(&self, registry: &Registry) -> anyhow::Result<()> {
        let task = TaskName::new(DENSE)?;
        registry.publish(&task, self.files.clone(), "bench").await?;
        Ok(())
    }

    /// One without a pipeline, to hold answers against.
    #[cfg(test)]
    pub(super) fn of(prefix: &'static str, threshold: f32) -> Self {
        Self {
            prefix,
            threshold,
            files: VersionFiles {
                model: Bytes::new(),
                report_json: Bytes::new(),
                report_html: Bytes::new(),
                manifest: Manifest::default(),
            },
        }
    }
}

/// Fits two pipelines on traces that differ, with labels of their own.
pub(super) async fn twins(world: &World, parts: Parts) -> anyhow::Result<[Twin; 2]> {
    let twin = async |prefix, seed| {
        let data = dataset(world, parts, prefix, seed)?;
        let pipeline = fit(DENSE, data, &["dense_logistic"]).await?;
        anyhow::Ok(Twin {
            prefix,
            threshold: pipeline.card().threshold,
            files: version(&pipeline),
        })
    };
    Ok([twin("a:", 2).await?, twin("b:", 4).await?])
}

/// The median over many passes of a pass's mean: what a decision takes on a thread
/// that nothing disturbs, over inputs that differ.
fn time_decision(pipeline: &Pipeline, world: &World, parts: Parts) -> anyhow::Result<f64> {
    let mut rng = Rng::new(3);
    let samples: Vec<Sample> = (0..REQUESTS)
        .map(|i| world.sample(i % CLASSES, parts, &mut rng))
        .collect();
    let mut scratch = Scratch::default();
    let mut passes = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        for sample in &samples {
            let input = Input {
                text: parts.text.then_some(sample.text.as_str()),
                embedding: (parts.dimension > 0).then_some(sample.embedding.as_slice()),
            };
            std::hint::black_box(pipeline.decide(input, &mut scratch)?);
        }
        passes.push(started.elapsed().as_secs_f64() * 1e6 / REQUESTS as f64);
    }
    passes.sort_by(f64::total_cmp);
    Ok(passes[passes.len() / 2])
}

fn dataset(world: &World, parts: Parts, prefix: &str, seed: u64) -> anyhow::Result<Dataset> {
    let mut data = Dataset::new();
    let mut rng = Rng::new(seed);
    for i in 0..CLASSES * ROWS_OF_A_CLASS {
        let class = i % CLASSES;
        let sample = world.sample(class, parts, &mut rng);
        let label = if rng.chance(NOISE) {
            rng.below(CLASSES)
        } else {
            class
        };
        data.push(Row {
            text: parts.text.then_some(sample.text.as_str()),
            embedding: (parts.dimension > 0).then_some(sample.embedding.as_slice()),
            label: &format!("{prefix}label_{label:02}"),
        })?;
    }
    Ok(data)
}

/// Requests that were never trained on, encoded: `Route` of one input each.
pub(super) fn routes(world: &World, task: &str, parts: Parts) -> Vec<Bytes> {
    let mut rng = Rng::new(3);
    (0..REQUESTS)
        .map(|i| {
            let request = v1::RouteRequest {
                task: task.to_owned(),
                input: Some(input(world, i, parts, &mut rng)),
                ..v1::RouteRequest::default()
            };
            request.encode_to_vec().into()
        })
        .collect()
}

/// The same for `RouteBatch`.
pub(super) fn batches(world: &World, task: &str, parts: Parts) -> Vec<Bytes> {
    let mut rng = Rng::new(3);
    (0..8)
        .map(|_| {
            let request = v1::RouteBatchRequest {
                task: task.to_owned(),
                inputs: (0..BATCH)
                    .map(|i| input(world, i, parts, &mut rng))
                    .collect(),
                ..v1::RouteBatchRequest::default()
            };
            request.encode_to_vec().into()
        })
        .collect()
}

fn input(world: &World, i: usize, parts: Parts, rng: &mut Rng) -> v1::Input {
    let sample = world.sample(i % CLASSES, parts, rng);
    v1::Input {
        text: if parts.text {
            sample.text
        } else {
            String::new()
        },
        embedding: if parts.dimension > 0 {
            sample.embedding
        } else {
            Vec::new()
        },
        embedder: String::new(),
    }
}
