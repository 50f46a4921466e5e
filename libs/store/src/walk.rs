//! The walk over the shards of a partition: which of the objects there count.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use tracer_trace::{Offset, PartitionId};

use crate::{
    error::{Result, StoreError},
    shard::ShardInfo,
    shard_log::{CONCURRENCY, ShardLog},
    shard_name::{ShardName, folder},
};

/// How often a listing is made anew when an object it names has gone meanwhile.
const LISTINGS: usize = 8;

/// A shard and the object it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) info: Arc<ShardInfo>,
    pub(crate) meta: ObjectMeta,
}

/// The objects of a partition, told apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// The shards that count: each starts where the one before ends.
    pub(crate) chain: Vec<Link>,
    /// The others: replaced, or left by a writer that was replaced.
    pub(crate) others: Vec<(ShardName, ObjectMeta)>,
}

impl Walk {
    /// The position that follows the last shard that counts.
    pub(crate) fn end(&self) -> Option<Offset> {
        self.chain.last().map(|link| link.info.range.end)
    }
}

impl ShardLog {
    /// Lists a partition and walks its shards. A listing may name objects that were
    /// replaced and deleted before they could be read: it is made anew then.
    pub(crate) async fn walk(&self, partition: &PartitionId) -> Result<Walk> {
        let mut tries = 1;
        loop {
            match self.walk_once(partition).await {
                Err(StoreError::NotFound { path }) if tries < LISTINGS => {
                    tracing::debug!(path, "it has gone since it was listed: listing anew");
                    tries += 1;
                }
                walked => return walked,
            }
        }
    }

    async fn walk_once(&self, partition: &PartitionId) -> Result<Walk> {
        let listed = self.store().list(&folder(partition), None).await?;
        let listed: Vec<(ShardName, ObjectMeta)> = listed
            .into_iter()
            .filter_map(|meta| Some((ShardName::of(&meta.location)?, meta)))
            .collect();
        self.forget_all_but(partition, &listed);
        // Of the shards that start at one position one can count.
        let mut best = BTreeMap::<Offset, usize>::new();
        for (index, (name, _)) in listed.iter().enumerate() {
            let found = best.entry(name.base).or_insert(index);
            if listed[*found].0.rank() < name.rank() {
                *found = index;
            }
        }
        self.read_ahead(best.values().map(|index| &listed[*index]))
            .await?;

        let mut counts = vec![false; listed.len()];
        let mut chain = Vec::new();
        let mut covered = best.keys().next().copied();
        while let Some(index) = covered.and_then(|base| best.get(&base)) {
            let meta = listed[*index].1.clone();
            let info = self.footer(meta.clone()).await?;
            counts[*index] = true;
            covered = Some(info.range.end);
            chain.push(Link { info, meta });
        }
        let others = listed
            .into_iter()
            .zip(counts)
            .filter_map(|(object, counts)| (!counts).then_some(object))
            .collect();
        Ok(Walk { chain, others })
    }

    /// Reads, many at a time, the footers that the walk will want: those of shards
    /// that do not lie inside a range that was replaced.
    async fn read_ahead(&self, best: impl Iterator<Item = &(ShardName, ObjectMeta)>) -> Result<()> {
        let mut replaced = Offset::ZERO;
        let mut wanted = Vec::new();
        for (name, meta) in best {
            if name.base < replaced {
                continue;
            }
            replaced = replaced.max(name.end().unwrap_or_default());
            wanted.push(meta.clone());
        }
        futures::stream::iter(wanted.into_iter().map(|meta| self.footer(meta)))
            .buffer_unordered(CONCURRENCY)
            .try_for_each(|_| async { Ok(()) })
            .await
            .or_else(|error| match error {
                // Nobody may need it: the walk finds out.
                StoreError::NotFound { .. } => Ok(()),
                error if error.is_refusal() => Ok(()),
                error => Err(error),
            })
    }
}
