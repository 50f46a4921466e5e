//! Opens the embedders that are configured: each model once, however many tasks share it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use async_trait::async_trait;
use tracer_features::embed::{
    Directory, Embedder, EmbedderConfig, EmbedderKind, Embedders, Hub, ModelFiles, OpenError, open,
};
use tracer_store::Store;
use tracer_trace::TaskName;

use crate::config::{Config, ConfigError};

/// What a path in Tracer's own store begins with.
const IN_STORE: &str = "store:";

type Opened = Option<Arc<dyn Embedder>>;

/// Opens the embedders of all tasks.
pub(crate) async fn open_all(config: &Config, store: &Store) -> anyhow::Result<Embedders> {
    let mut opened: Vec<(&EmbedderConfig, Opened)> = Vec::new();
    let default = share(
        &mut opened,
        "task_defaults",
        &config.task_defaults.embedder,
        store,
    )
    .await?;
    let mut tasks = BTreeMap::new();
    for (name, task) in &config.tasks {
        let section = format!("tasks.{name}");
        let embedder = share(&mut opened, &section, &task.embedder, store).await?;
        tasks.insert(name.to_string(), embedder);
    }
    Ok(Embedders::new(default, tasks))
}

/// Opens the embedder of one task.
pub(crate) async fn open_of(
    config: &Config,
    task: &TaskName,
    store: &Store,
) -> anyhow::Result<Opened> {
    let (place, settings) = match config.tasks.get(task) {
        Some(own) => (format!("tasks.{task}.embedder"), &own.embedder),
        None => (
            "task_defaults.embedder".to_owned(),
            &config.task_defaults.embedder,
        ),
    };
    open_one(&place, settings, Some(store)).await
}

async fn share<'a>(
    opened: &mut Vec<(&'a EmbedderConfig, Opened)>,
    section: &str,
    config: &'a EmbedderConfig,
    store: &Store,
) -> anyhow::Result<Opened> {
    if let Some((_, embedder)) = opened.iter().find(|(same, _)| *same == config) {
        return Ok(embedder.clone());
    }
    let embedder = open_one(&format!("{section}.embedder"), config, Some(store)).await?;
    if let Some(embedder) = &embedder {
        tracing::info!(section, identity = %embedder.identity(), "an embedder is ready");
    }
    opened.push((config, embedder.clone()));
    Ok(embedder)
}

/// Opens one embedder; `place` is where it is configured. Without a store none is looked
/// for there.
pub(crate) async fn open_one(
    place: &str,
    config: &EmbedderConfig,
    store: Option<&Store>,
) -> anyhow::Result<Opened> {
    let files: Box<dyn ModelFiles> = match (config.model.strip_prefix(IN_STORE), store) {
        _ if config.kind == EmbedderKind::Http => Box::new(Directory(PathBuf::new())),
        _ if let Some(model) = config.in_hub() => match Hub::open(config, model).await {
            Ok(hub) => Box::new(hub),
            Err(error) => return Err(ConfigError::new(format!("{place}.{error}")).into()),
        },
        (Some(path), Some(store)) => Box::new(InStore {
            store: store.clone(),
            path: path.trim_matches('/').to_owned(),
        }),
        (Some(_), None) => {
            let problem = format!("{place}.model: a model in the store cannot be used here");
            return Err(ConfigError::new(problem).into());
        }
        (None, _) => Box::new(Directory(PathBuf::from(&config.model))),
    };
    match open(config, files.as_ref()).await {
        Ok(embedder) => Ok(embedder),
        Err(error) if error.is_transient() => {
            Err(error).with_context(|| format!("{place}: the model cannot be read"))
        }
        Err(error @ OpenError::Setting { .. }) => {
            Err(ConfigError::new(format!("{place}.{error}")).into())
        }
        Err(error) => Err(ConfigError::new(format!("{place}: {error}")).into()),
    }
}

/// A path in Tracer's own store.
struct InStore {
    store: Store,
    path: String,
}

#[async_trait]
impl ModelFiles for InStore {
    async fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError> {
        let path = format!("{}/{name}", self.path);
        match self.store.object(&path, most).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes.into())),
            Ok(Some(Err(size))) => Err(OpenError::File {
                file: self.place(name),
                problem: format!("{size} bytes are more than the {most} allowed"),
            }),
            Err(error) => Err(OpenError::Unreadable {
                file: self.place(name),
                detail: error.to_string(),
            }),
        }
    }

    fn place(&self, name: &str) -> String {
        format!("{IN_STORE}{}/{name}", self.path)
    }
}
