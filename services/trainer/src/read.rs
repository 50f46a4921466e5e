//! Reading the traces of a task: all of them, or of more than a refit fits on a sample that
//! is drawn without ever having all in memory.
//!
//! 1. The *survey* reads the narrow columns and keeps a hundred bytes a trace: hashes of
//!    its id and its input, its time and where it stands.
//! 2. Duplicates are dropped by those, and the sample is drawn (`tracer_learn::draw`).
//! 3. The traces of the sample are read whole.

use std::collections::{BTreeMap, HashMap};

use tracer_features::{InputKey, Withholder, normalise, stable_hash};
use tracer_learn::{Facts, FitConfig, RowInput, draw};
use tracer_store::{ShardLog, Store, StoreError, Visitor};
use tracer_trace::{OffsetRange, StoredTrace, TaskName, Trace, parquet_schema::Columns};

use crate::{
    cost::{Calls, Told},
    keep::Keys,
    progress::Reporter,
    refit::Partition,
};

/// Shards between two words on how far it is.
const SHARDS_AT_A_TIME: usize = 8;

/// The traces of a task, each once, in order of their time.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) traces: Vec<Trace>,
    /// Where the traces are a sample: what each stands for when it trains.
    pub(crate) weights: Option<Vec<f64>>,
    /// Traces that are not in the sample.
    pub(crate) not_drawn: usize,
    /// Traces before duplicates were dropped.
    pub(crate) all: usize,
    /// What they tell of their calls, each once: all of them, drawn or not.
    pub(crate) told: Told,
}

/// What is read of the shards, and how.
#[derive(Clone, Copy, Default)]
pub(crate) enum Extent<'a> {
    /// All of it: whole, or a sample if it is too much for a refit.
    #[default]
    All,
    /// A range of each partition, as a refit has read it before.
    Again {
        ranges: &'a [OffsetRange],
        /// Whether that refit drew a sample while it read; without it as much as is there
        /// decides.
        sampled: Option<bool>,
    },
}

/// How a task is read.
pub(crate) struct Reading<'a> {
    pub(crate) shards: &'a ShardLog,
    /// Where embeddings that are made are kept.
    pub(crate) embeddings: Option<&'a Store>,
    pub(crate) task: &'a TaskName,
    pub(crate) partitions: &'a [Partition],
    pub(crate) extent: Extent<'a>,
    pub(crate) config: &'a FitConfig,
    /// Within so many milliseconds copies of a text with one label count once.
    pub(crate) window: i64,
    pub(crate) key: &'a InputKey,
    pub(crate) reporter: &'a Reporter,
}

impl Reading<'_> {
    pub(crate) async fn read(&self) -> Result<Read, StoreError> {
        let sampled = match self.extent {
            Extent::Again {
                sampled: Some(sampled),
                ..
            } => sampled,
            _ => self.is_too_much(),
        };
        if sampled {
            self.sample().await
        } else {
            self.whole().await
        }
    }

    /// Whether there are more traces than a refit fits on.
    fn is_too_much(&self) -> bool {
        let infos = self.partitions.iter().flat_map(|(_, shards)| shards);
        let rows = infos.filter_map(|info| info.rows_by_task.get(self.task));
        let rows: u64 = rows.sum();
        let cap = self.config.max_fit_traces as u64;
        cap != 0 && rows > cap + cap.div_ceil(4)
    }

    /// All traces, at once.
    async fn whole(&self) -> Result<Read, StoreError> {
        let whole = Whole {
            partition: 0,
            keys: Keys::new(self.window),
            calls: Calls::default(),
            traces: Vec::new(),
        };
        let visit = |whole: &mut Whole, partition| whole.partition = partition;
        let whole = self
            .visit("traces", Columns::Learning, whole, visit)
            .await?;
        let all = whole.traces.len();
        let read = blocking(move || {
            let Whole {
                keys,
                calls,
                traces,
                ..
            } = whole;
            let mut traces: Vec<Option<Trace>> = traces.into_iter().map(Some).collect();
            let latest = keys.latest();
            let told = calls.told(&latest, |place| keys.time(place));
            let kept = keys.without_copies(latest).into_iter();
            let kept = kept.filter_map(|place| traces[place as usize].take());
            (kept.collect(), told)
        });
        let (traces, told) = read.await;
        Ok(Read {
            traces,
            all,
            told,
            ..Read::default()
        })
    }

    /// A sample, without having all in memory.
    async fn sample(&self) -> Result<Read, StoreError> {
        let survey = self.survey().await?;
        let all = survey.facts.len();
        let config = self.config.clone();
        let Drawn {
            mut chosen,
            left_out: not_drawn,
            told,
        } = blocking(move || survey.draw(&config)).await;
        let mut weights = vec![0.0; chosen.iter().map(Vec::len).sum()];
        for choice in chosen.iter().flatten() {
            weights[choice.rank as usize] = choice.weight;
        }
        let gather = Gather {
            chosen: Vec::new(),
            next: 0,
            last: None,
            traces: Vec::with_capacity(weights.len()),
        };
        let begin = |gather: &mut Gather, partition: u32| {
            gather.chosen = std::mem::take(&mut chosen[partition as usize]);
            (gather.next, gather.last) = (0, None);
        };
        let mut gathered = self
            .visit("the sample", Columns::Fitting, gather, begin)
            .await?
            .traces;
        gathered.sort_unstable_by_key(|(rank, _)| *rank);
        // Some may have expired since the survey.
        let weights: Vec<f64> = gathered
            .iter()
            .map(|(rank, _)| weights[*rank as usize])
            .collect();
        Ok(Read {
            traces: gathered.into_iter().map(|(_, trace)| trace).collect(),
            weights: Some(weights),
            not_drawn,
            all,
            told,
        })
    }

    /// The facts of all traces. What must be read for them shows on the way: then they
    /// are gathered anew.
    async fn survey(&self) -> Result<Survey, StoreError> {
        let (mut columns, mut withholder) = (Columns::Surveying, None);
        loop {
            let survey = Survey {
                task: self.task.as_str().to_owned(),
                seed: self.config.seed,
                partition: 0,
                embeddings: columns == Columns::Learning,
                withholder: withholder.clone(),
                keys: Keys::new(self.window),
                calls: Calls::default(),
                facts: Vec::new(),
                places: Vec::new(),
                labels: HashMap::new(),
                schemes: BTreeMap::new(),
                lacks_text: false,
            };
            let begin = |survey: &mut Survey, partition| survey.partition = partition;
            let survey = self.visit("the survey", columns, survey, begin).await?;
            if survey.lacks_text && columns == Columns::Surveying {
                columns = Columns::Learning;
                continue;
            }
            if !survey.schemes.is_empty() && withholder.is_none() {
                // Once one text is withheld, all are taken so: see `rows.rs`.
                let lexicon = &self.config.lexicon;
                let usable = survey
                    .schemes
                    .iter()
                    .filter(|(s, _)| Withholder::is_cut_as(s, lexicon));
                let most = usable
                    .max_by_key(|(_, count)| **count)
                    .map(|(scheme, _)| scheme);
                let own = Withholder::new(self.key, lexicon);
                if most == Some(&own.scheme()) {
                    withholder = Some(own);
                    continue;
                }
            }
            return Ok(survey);
        }
    }

    async fn visit<V: Visitor>(
        &self,
        what: &str,
        columns: Columns,
        mut visitor: V,
        mut begin: impl FnMut(&mut V, u32),
    ) -> Result<V, StoreError> {
        let total: usize = self.partitions.iter().map(|(_, infos)| infos.len()).sum();
        let mut done = 0;
        for (number, (_, infos)) in self.partitions.iter().enumerate() {
            begin(&mut visitor, number as u32);
            for infos in infos.chunks(SHARDS_AT_A_TIME) {
                let task = Some(self.task);
                visitor = match self.extent {
                    Extent::All => self.shards.visit(infos, task, columns, visitor).await?,
                    Extent::Again { ranges, .. } => {
                        let within =
                            self.shards
                                .visit_within(infos, ranges[number], task, columns, visitor);
                        within.await?
                    }
                };
                done += infos.len();
                self.reporter.step(what, done as u64, total as u64);
            }
        }
        Ok(visitor)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // The refit has panicked, which is caught where its thread ends.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the runtime shuts down: {error}"),
        },
    }
}

/// Keeps all.
struct Whole {
    partition: u32,
    keys: Keys,
    calls: Calls,
    traces: Vec<Trace>,
}

impl Visitor for Whole {
    fn see(&mut self, rows: Vec<StoredTrace>) {
        for StoredTrace { mut trace, .. } in rows {
            self.keys.push(self.partition, &trace);
            self.calls.push(&mut trace);
            self.traces.push(trace);
        }
    }
}

/// Where a trace stands: its partition, the offset of its record, and its place in that.
#[derive(Clone, Copy)]
struct Place {
    partition: u32,
    nth: u32,
    offset: u64,
}

struct Survey {
    task: String,
    seed: u64,
    partition: u32,
    /// Whether embeddings are read.
    embeddings: bool,
    withholder: Option<Withholder>,
    keys: Keys,
    calls: Calls,
    facts: Vec<Facts>,
    places: Vec<Place>,
    /// Numbers of labels, by the hash of their normalised text.
    labels: HashMap<u64, u32>,
    /// How often texts are withheld in which way.
    schemes: BTreeMap<String, u64>,
    lacks_text: bool,
}

impl Visitor for Survey {
    fn see(&mut self, rows: Vec<StoredTrace>) {
        if self.lacks_text && !self.embeddings {
            // It is done again.
            return;
        }
        for StoredTrace { offset, mut trace } in rows {
            self.calls.push(&mut trace);
            let label = stable_hash(&[normalise(&trace.teacher).as_bytes()]);
            let next = self.labels.len() as u32;
            let label = *self.labels.entry(label).or_insert(next);
            if let Some(withheld) = &trace.withheld {
                *self.schemes.entry(withheld.scheme.clone()).or_default() += 1;
            }
            let text = trace
                .input
                .as_deref()
                .filter(|text| !text.trim().is_empty());
            let of = |input| Facts::of(&self.task, self.seed, input, label);
            let facts = match (&trace.withheld, text, &self.withholder) {
                (Some(withheld), _, _) => of(RowInput::Withheld(&withheld.hash)),
                (None, Some(text), Some(withholder)) => {
                    of(RowInput::Withheld(&withholder.withhold(text).hash))
                }
                (None, Some(text), None) => of(RowInput::Text(text)),
                (None, None, _) => {
                    self.lacks_text = true;
                    of(RowInput::Embedding(
                        trace.embedding.as_deref().unwrap_or_default(),
                    ))
                }
            };
            let nth = match self.places.last() {
                Some(last) if last.partition == self.partition && last.offset == offset => {
                    last.nth + 1
                }
                _ => 0,
            };
            self.keys.push(self.partition, &trace);
            self.facts.push(facts);
            self.places.push(Place {
                partition: self.partition,
                nth,
                offset,
            });
        }
    }
}

/// A trace of the sample.
struct Chosen {
    offset: u64,
    nth: u32,
    /// Its place in the sample, by time.
    rank: u32,
    weight: f64,
}

/// A sample that was drawn of a survey.
struct Drawn {
    /// By partition, in the order of offsets.
    chosen: Vec<Vec<Chosen>>,
    /// Distinct traces that are not in it.
    left_out: usize,
    told: Told,
}

impl Survey {
    fn draw(self, config: &FitConfig) -> Drawn {
        let Self {
            keys,
            calls,
            facts,
            places,
            partition,
            ..
        } = self;
        let latest = keys.latest();
        let told = calls.told(&latest, |place| keys.time(place));
        drop(calls);
        let kept = keys.without_copies(latest);
        drop(keys);
        let in_order: Vec<Facts> = kept.iter().map(|&place| facts[place as usize]).collect();
        drop(facts);
        let drawn = draw(&in_order, config);
        let mut chosen = Vec::new();
        chosen.resize_with(partition as usize + 1, Vec::new);
        for (rank, (row, weight)) in drawn.rows.into_iter().enumerate() {
            let place = places[kept[row] as usize];
            chosen[place.partition as usize].push(Chosen {
                offset: place.offset,
                nth: place.nth,
                rank: rank as u32,
                weight,
            });
        }
        for chosen in &mut chosen {
            chosen.sort_unstable_by_key(|chosen| (chosen.offset, chosen.nth));
        }
        Drawn {
            chosen,
            left_out: drawn.left_out,
            told,
        }
    }
}

/// Keeps the traces of the sample.
struct Gather {
    chosen: Vec<Chosen>,
    next: usize,
    /// The last trace that was seen.
    last: Option<(u64, u32)>,
    traces: Vec<(u32, Trace)>,
}

impl Visitor for Gather {
    fn see(&mut self, rows: Vec<StoredTrace>) {
        for StoredTrace { offset, trace } in rows {
            let nth = match self.last {
                Some((last, nth)) if last == offset => nth + 1,
                _ => 0,
            };
            self.last = Some((offset, nth));
            // What has expired meanwhile is passed over.
            while self
                .chosen
                .get(self.next)
                .is_some_and(|chosen| (chosen.offset, chosen.nth) < (offset, nth))
            {
                self.next += 1;
            }
            if let Some(chosen) = self.chosen.get(self.next)
                && (chosen.offset, chosen.nth) == (offset, nth)
            {
                self.traces.push((chosen.rank, trace));
                self.next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tracer_features::LexiconConfig;
    use tracer_store::Store;
    use tracer_telemetry::Metrics;
    use tracer_trace::{Decision, Offset, PartitionId, Routing, TopicName, WithheldInput};

    use super::*;
    use crate::{Teacher, keeper::Shared};

    const CAP: usize = 400;

    /// What a trace holds of its input.
    #[derive(Clone, Copy, Debug)]
    enum Holds {
        Text,
        Embedding,
        Withheld,
    }

    fn trace(id: u64, holds: Holds) -> Trace {
        let text = format!("input {}", id % 1700);
        let (lexicon, key) = (LexiconConfig::default(), InputKey::new("secret"));
        let withheld = || {
            let withholder = Withholder::new(&key, &lexicon);
            let kept = withholder.withhold(&text);
            Box::new(WithheldInput {
                hash: kept.hash,
                scheme: withholder.scheme(),
                counts: kept.hashed.counts().to_vec(),
            })
        };
        // One in three of a withholding task is from before.
        let is_withheld = matches!(holds, Holds::Withheld) && !id.is_multiple_of(3);
        let embedding = matches!(holds, Holds::Embedding);
        Trace {
            id: format!("id-{}", id % 2400),
            task: TaskName::default(),
            input: (!embedding && !is_withheld).then(|| text.clone()),
            withheld: is_withheld.then(withheld),
            embedding: embedding.then(|| vec![(id % 1700) as f32, 1.0]),
            embedder: None,
            teacher: format!("label-{}", if id.is_multiple_of(50) { 9 } else { id % 3 }),
            ground_truth: Some("not read".to_owned()),
            timestamp: chrono::DateTime::from_timestamp(1_000_000 + (id * 7919 % 2500) as i64, 0),
            metadata: BTreeMap::from([("input_tokens".to_owned(), (id % 7).to_string())]),
            routing: id.is_multiple_of(5).then_some(Routing {
                pipeline_version: 1,
                decision: Decision::Handled,
                label: None,
                score: None,
                audit: true,
                propensity: 0.1,
            }),
        }
    }

    /// Three partitions of shards with a thousand traces, several of one record.
    async fn filled(holds: Holds) -> (ShardLog, Vec<Partition>) {
        let store = Store::open("memory://", &BTreeMap::new()).unwrap();
        let shards = ShardLog::new(store);
        let mut partitions = Vec::new();
        for number in 0..3_u64 {
            let partition = PartitionId::new(TopicName::default(), number as i32);
            for start in [0, 100] {
                let rows = (0..500).map(|i| StoredTrace {
                    offset: start + i / 5,
                    trace: trace(number * 1000 + start * 5 + i, holds),
                });
                let range = OffsetRange::new(Offset(start), Offset(start + 100)).unwrap();
                shards
                    .append(&partition, range, rows.collect())
                    .await
                    .unwrap();
            }
            let infos = shards.shards(&partition).await.unwrap();
            partitions.push((partition, infos));
        }
        (shards, partitions)
    }

    /// What is drawn without ever having all is what is drawn of all.
    #[tokio::test]
    async fn the_sample_is_drawn_as_if_all_were_in_memory() {
        for holds in [Holds::Text, Holds::Embedding, Holds::Withheld] {
            let (shards, partitions) = filled(holds).await;
            let (task, key) = (TaskName::default(), InputKey::new("secret"));
            let reporter = Reporter::new(&task, &Metrics::new(), Shared::default());
            let config = FitConfig {
                max_fit_traces: CAP,
                ..FitConfig::default()
            };
            let reading = Reading {
                shards: &shards,
                embeddings: None,
                task: &task,
                partitions: &partitions,
                extent: Extent::All,
                config: &config,
                window: 1000,
                key: &key,
                reporter: &reporter,
            };
            let sampled = reading.read().await.unwrap();
            let whole = reading.whole().await.unwrap();
            assert_eq!((sampled.all, whole.all), (3000, 3000));
            // Drawn or not, and copies within a window too: each was a call.
            assert_eq!(sampled.told, whole.told);
            let cost = sampled.told.cost(&Teacher::default(), 0.5);
            assert!((cost.calls_saved - 9.0 * 480.0).abs() < 1e-6, "{cost:?}");
            assert_eq!(cost.usage.unwrap().traces, 3000);
            assert!((2000..=2400).contains(&whole.traces.len()), "{holds:?}");
            assert!(
                whole
                    .traces
                    .iter()
                    .all(|trace| trace.ground_truth.is_none())
            );
            assert!(whole.weights.is_none() && whole.not_drawn == 0);

            let withholder = Withholder::new(&key, &config.lexicon);
            let mut labels = Vec::new();
            let facts: Vec<Facts> = whole
                .traces
                .iter()
                .map(|trace| {
                    let label = labels.iter().position(|label| *label == trace.teacher);
                    let label = label.unwrap_or_else(|| {
                        labels.push(trace.teacher.clone());
                        labels.len() - 1
                    });
                    let of = |input| Facts::of("default", 0, input, label as u32);
                    match (holds, &trace.input, &trace.withheld) {
                        (Holds::Text, Some(text), _) => of(RowInput::Text(text)),
                        (_, Some(text), _) => {
                            of(RowInput::Withheld(&withholder.withhold(text).hash))
                        }
                        (_, None, Some(withheld)) => of(RowInput::Withheld(&withheld.hash)),
                        (_, None, None) => {
                            of(RowInput::Embedding(trace.embedding.as_deref().unwrap()))
                        }
                    }
                })
                .collect();
            let drawn = draw(&facts, &config);
            let expected: Vec<&Trace> = drawn
                .rows
                .iter()
                .map(|(row, _)| &whole.traces[*row])
                .collect();
            assert!(sampled.traces.iter().eq(expected), "{holds:?}");
            let weights: Vec<f64> = drawn.rows.iter().map(|(_, weight)| *weight).collect();
            assert_eq!(sampled.weights, Some(weights));
            assert_eq!(sampled.not_drawn, drawn.left_out);
            assert!(
                (CAP..CAP * 3 / 2).contains(&sampled.traces.len()),
                "{}",
                sampled.traces.len()
            );
            let labels: BTreeSet<&str> =
                sampled.traces.iter().map(|t| t.teacher.as_str()).collect();
            assert_eq!(labels.len(), 4, "a rare label stays");
        }
    }

    #[tokio::test]
    async fn a_task_that_fits_is_read_whole() {
        let (shards, partitions) = filled(Holds::Text).await;
        let (task, key) = (TaskName::default(), InputKey::default());
        let reporter = Reporter::new(&task, &Metrics::new(), Shared::default());
        for (max_fit_traces, whole) in [(0, true), (2400, true), (2000, false)] {
            let config = FitConfig {
                max_fit_traces,
                ..FitConfig::default()
            };
            let reading = Reading {
                shards: &shards,
                embeddings: None,
                task: &task,
                partitions: &partitions,
                extent: Extent::All,
                config: &config,
                window: 0,
                key: &key,
                reporter: &reporter,
            };
            let read = reading.read().await.unwrap();
            assert_eq!(read.weights.is_none(), whole, "{max_fit_traces}");
            let task = TaskName::new("another").unwrap();
            let nothing = Reading {
                task: &task,
                ..reading
            };
            assert!(nothing.read().await.unwrap().traces.is_empty());
        }
    }
}
