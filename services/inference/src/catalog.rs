//! What serves: an immutable snapshot of all tasks behind one atomic pointer.

use std::{collections::HashMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tracer_features::embed::Embedder;
use tracer_learn::Pipeline;
use tracer_proto::v1;
use tracer_trace::{TaskName, TokenUsage};

use crate::{audit::Audit, metrics::TaskMetrics};

/// A loaded pipeline version, warm.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) version: u64,
    pub(crate) pipeline: Pipeline,
    /// Taken from the card, so that a request need not look it up.
    pub(crate) threshold: f32,
    pub(crate) embedding_dimension: Option<usize>,
    /// The model that made the embeddings, where the manifest says so.
    pub(crate) embedder: Option<String>,
    /// What its traces told of the teacher's calls.
    pub(crate) usage: Option<TokenUsage>,
    /// What `GetPipeline` answers, but for the suspension.
    pub(crate) description: v1::Pipeline,
}

/// One task, as a request sees it.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) name: TaskName,
    pub(crate) serving: Option<Arc<Serving>>,
    pub(crate) suspended: bool,
    /// What embeds texts that come without an embedding.
    pub(crate) embedder: Option<Arc<dyn Embedder>>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) metrics: Arc<TaskMetrics>,
}

impl Task {
    /// Whether the pipeline was fitted on the vectors of another embedder than the task's,
    /// or of one that is not known.
    pub(crate) fn embeds_otherwise(&self, serving: &Serving) -> bool {
        let (Some(embedder), Some(dimension)) = (&self.embedder, serving.embedding_dimension)
        else {
            return false;
        };
        let identity = embedder.identity();
        serving.embedder.as_deref() != Some(identity.as_str()) || dimension != identity.dimension()
    }

    /// The active pipeline, described.
    pub(crate) fn describe(&self) -> Option<v1::Pipeline> {
        let serving = self.serving.as_ref()?;
        Some(v1::Pipeline {
            suspended: self.suspended,
            ..serving.description.clone()
        })
    }
}

/// All tasks at one moment, by the text of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    tasks: HashMap<Box<str>, Arc<Task>>,
}

impl Snapshot {
    /// The task of this name; the empty name is the default task's.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Task>> {
        self.tasks
            .get(if name.is_empty() { "default" } else { name })
    }

    /// Every task, in the order of the names.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Task>> {
        let mut tasks: Vec<_> = self.tasks.values().collect();
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        tasks
    }
}

/// The snapshot that serves.
///
/// Requests [`load`](Self::load) it once; the follower, alone, replaces it.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    current: ArcSwap<Snapshot>,
}

impl Catalog {
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Adds or replaces a task. Requests under way keep the snapshot they have.
    pub(crate) fn put(&self, task: Task) {
        let mut next = Snapshot::clone(&self.current.load());
        next.tasks.insert(task.name.as_str().into(), Arc::new(task));
        self.current.store(Arc::new(next));
    }
}
