//! Who refits a task now: an append-only log for each task, and the requests for refits.
//!
//! ```text
//! leases/{task}/{seq:020}.json
//! leases/{task}/requests/{id}.json
//! ```
//!
//! An entry says who has the task from then on, or that nobody has. It is put if absent
//! under the number after the last, so of any number of rivals one gets it, and a holder
//! that renews its lease thereby proves that nobody has taken it over since.
//!
//! *Epochs*: the number of the entry by which a lease was claimed is its epoch. Epochs of
//! a task only grow. [`Registry::fence`](crate::Registry::fence) shuts out the earlier ones.
//!
//! *Expiry*: a lease that is held may be taken over when its last entry has not changed
//! for as long as it says, by the observer's own monotonic clock and from when the
//! observer saw it first. No two clocks are ever compared. A holder that only slept may
//! so lose its lease; it is told when it renews, and the fence stops it if it does not.
//!
//! *Bounded*: whoever appends an entry deletes those before it. So a number may be free
//! again for one who slept for long, and its put succeeds. Therefore whoever puts an entry
//! looks which one is the last: only the last one holds. It is never deleted, and so the
//! log remembers the task's last refit, which stands in the body of every entry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracer_trace::TaskName;

use crate::{
    error::{Result, StoreError},
    manifest,
    store::{Put, Store},
};

const ROOT: &str = "leases";
const REQUESTS: &str = "requests";

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// Numbers tried after the answers of earlier puts were lost.
const ATTEMPTS: usize = 16;

/// Requests of one task that are read; what is beyond them waits.
const MOST_REQUESTS: usize = 64;

/// An entry of a task's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The version of this JSON.
    pub schema_version: u32,
    /// Its place in the log, from 1.
    pub seq: u64,
    /// The place of the entry by which this lease was claimed.
    pub epoch: u64,
    /// Whose lease it is or was: a name that no other process has or had.
    pub holder: String,
    /// When it was written, by the clock of its author. For people.
    pub at: DateTime<Utc>,
    /// Whether the holder has the task; else anybody may claim it.
    pub held: bool,
    /// So long after it was seen first, a lease that is held may be taken over.
    pub expires_after_ms: u64,
    /// What its author wants others to know.
    pub body: serde_json::Value,
}

/// A request for a refit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefitRequest {
    /// The version of this JSON.
    pub schema_version: u32,
    /// Tells it from others; ids sort by time.
    pub id: String,
    /// When it was made, by the clock of its author.
    pub at: DateTime<Utc>,
    /// Who asked.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// How a task stands, as far as an observer can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The last entry; none when the task was never claimed.
    pub last: Option<Arc<LeaseEntry>>,
    /// Whether it may be claimed, and how.
    pub claim: Claimable,
    /// The ids of the requests that wait, oldest first.
    pub requests: Vec<String>,
}

/// Whether a task may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimable {
    /// Nobody has it.
    Free,
    /// Somebody has it, and has not been heard of for longer than it asked for.
    Expired,
    /// Somebody has it.
    Held,
}

/// The leases of a store; clones share what they have seen.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Store,
    seen: Arc<Mutex<HashMap<TaskName, Seen>>>,
}

/// A last entry, and since when it is known to be the last.
#[derive(Clone, Debug)]
struct Seen {
    entry: Arc<LeaseEntry>,
    since: Instant,
}

/// What a listing tells of a task.
#[derive(Default)]
struct Listed {
    last: u64,
    requests: Vec<String>,
}

impl Leases {
    /// The leases of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            seen: Arc::default(),
        }
    }

    /// How all tasks stand that were ever claimed or asked for. One listing, and a read
    /// for each task whose log has changed.
    pub async fn look(&self) -> Result<BTreeMap<TaskName, Standing>> {
        let root = Path::from(ROOT);
        let mut listed = BTreeMap::<TaskName, Listed>::new();
        for meta in self.store.list(&root, None).await? {
            let Some(parts) = meta.location.prefix_match(&root) else {
                continue;
            };
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            let Some(task) = parts.first().and_then(|name| TaskName::new(name).ok()) else {
                continue;
            };
            let of = listed.entry(task).or_default();
            match &parts[1..] {
                [name] => of.last = of.last.max(seq_of(name).unwrap_or(0)),
                [folder, name] if folder == REQUESTS && of.requests.len() < MOST_REQUESTS => {
                    of.requests
                        .extend(name.strip_suffix(".json").map(str::to_owned));
                }
                _ => {}
            }
        }
        let mut standings = BTreeMap::new();
        for (task, listed) in listed {
            let (last, claim) = self.standing(&task, listed.last).await?;
            let standing = Standing {
                last,
                claim,
                requests: listed.requests,
            };
            standings.insert(task, standing);
        }
        Ok(standings)
    }

    /// How one task stands. One listing, and a read if its log has changed.
    pub async fn look_at(&self, task: &TaskName) -> Result<Standing> {
        let (last, _) = self.listed(task).await?;
        let (last, claim) = self.standing(task, last).await?;
        Ok(Standing {
            last,
            claim,
            requests: self.requests(task).await?,
        })
    }

    async fn standing(
        &self,
        task: &TaskName,
        last: u64,
    ) -> Result<(Option<Arc<LeaseEntry>>, Claimable)> {
        if last == 0 {
            return Ok((None, Claimable::Free));
        }
        let known = self.seen(task);
        let seen = match known.filter(|seen| seen.entry.seq >= last) {
            Some(seen) => seen,
            None => match self.read(task, last).await {
                Ok(entry) => self.note(task, entry),
                // It was renewed just now.
                Err(StoreError::NotFound { .. }) => return Ok((None, Claimable::Held)),
                // One task's trouble is not the others'.
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%task, %error, "who refits it is not readable: it is left alone");
                    return Ok((None, Claimable::Held));
                }
                Err(error) => return Err(error),
            },
        };
        let expires_after = Duration::from_millis(seen.entry.expires_after_ms);
        let claim = match seen.entry.held {
            false => Claimable::Free,
            true if seen.since.elapsed() >= expires_after => Claimable::Expired,
            true => Claimable::Held,
        };
        Ok((Some(seen.entry), claim))
    }

    /// Claims a task that is free or whose lease has expired, as it was last looked at.
    /// `None` when somebody else was faster.
    pub async fn claim(
        &self,
        task: &TaskName,
        standing: &Standing,
        holder: &str,
        expires_after: Duration,
        body: serde_json::Value,
    ) -> Result<Option<Lease>> {
        if standing.claim == Claimable::Held {
            return Ok(None);
        }
        let seq = standing.last.as_ref().map_or(0, |last| last.seq);
        let seq = seq.saturating_add(1);
        let mut lease = Lease {
            leases: self.clone(),
            task: task.clone(),
            entry: LeaseEntry {
                schema_version: SCHEMA_VERSION,
                seq: seq - 1,
                epoch: seq,
                holder: holder.to_owned(),
                at: Utc::now(),
                held: true,
                expires_after_ms: u64::try_from(expires_after.as_millis()).unwrap_or(u64::MAX),
                body: serde_json::Value::Null,
            },
            took_over: standing.claim == Claimable::Expired,
        };
        Ok(lease.append(true, body).await?.then_some(lease))
    }

    /// Asks for a refit; some replica takes it up. Answers the request's id.
    pub async fn request(&self, task: &TaskName, author: &str, reason: &str) -> Result<String> {
        let at = Utc::now().trunc_subsecs(6);
        for attempt in 0..ATTEMPTS {
            let id = format!("{:016}-{:08x}", at.timestamp_micros(), nonce(attempt));
            let path = request_path(task, &id);
            let request = RefitRequest {
                schema_version: SCHEMA_VERSION,
                id: id.clone(),
                at,
                author: author.to_owned(),
                reason: reason.to_owned(),
            };
            let json =
                serde_json::to_vec_pretty(&request).map_err(|e| StoreError::encode(&path, &e))?;
            if self.store.create(&path, json.into()).await? == Put::Created {
                return Ok(id);
            }
        }
        Err(StoreError::Contended {
            path: format!("{ROOT}/{task}/{REQUESTS}"),
            attempts: ATTEMPTS,
        })
    }

    /// The ids of a task's requests that wait, oldest first, the first few of them.
    pub async fn requests(&self, task: &TaskName) -> Result<Vec<String>> {
        let folder = Path::from(format!("{ROOT}/{task}/{REQUESTS}"));
        let listed = self.store.list(&folder, None).await?;
        let ids = listed.iter().filter_map(|meta| {
            let name = meta.location.filename()?.strip_suffix(".json")?;
            Some(name.to_owned())
        });
        Ok(ids.take(MOST_REQUESTS).collect())
    }

    /// Deletes a request that was answered.
    pub async fn answered(&self, task: &TaskName, id: &str) -> Result<()> {
        self.store.delete(&request_path(task, id)).await
    }

    async fn read(&self, task: &TaskName, seq: u64) -> Result<LeaseEntry> {
        let path = entry_path(task, seq);
        let entry: LeaseEntry = manifest::parse(&path, &self.store.get(&path).await?)?;
        if entry.seq != seq {
            let detail = format!("it is entry {}", entry.seq);
            return Err(StoreError::damaged(&path, &detail));
        }
        Ok(entry)
    }

    /// The last number of a task's log, and those before it that are still there.
    async fn listed(&self, task: &TaskName) -> Result<(u64, Vec<u64>)> {
        let folder = Path::from(format!("{ROOT}/{task}"));
        // Requests sort behind numbers: they are passed over.
        let listed = self.store.list(&folder, None).await?;
        let mut seqs: Vec<u64> = listed
            .iter()
            .filter(|meta| meta.location.parts_count() == folder.parts_count() + 1)
            .filter_map(|meta| seq_of(meta.location.filename()?))
            .collect();
        seqs.sort_unstable();
        Ok((seqs.pop().unwrap_or(0), seqs))
    }

    fn seen(&self, task: &TaskName) -> Option<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(task).cloned()
    }

    /// Remembers a last entry; one that is known keeps the time since when it is.
    fn note(&self, task: &TaskName, entry: LeaseEntry) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get(task).filter(|known| known.entry.seq >= entry.seq) {
            return known.clone();
        }
        let new = Seen {
            entry: Arc::new(entry),
            since: Instant::now(),
        };
        seen.insert(task.clone(), new.clone());
        new
    }
}

/// A lease that was claimed. It holds until somebody takes it over after it expired, which
/// a renewal tells. Dropping it leaves it to expire.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    task: TaskName,
    /// The last entry that was put.
    entry: LeaseEntry,
    took_over: bool,
}

impl Lease {
    /// The fencing token: greater than that of everybody who had the task before.
    pub fn epoch(&self) -> u64 {
        self.entry.epoch
    }

    /// Whether somebody had the task who may not know that it was taken over.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// Renews the lease. False when it was taken over: then nothing may be done any more
    /// in its name. True proves that nobody had taken it over before the call.
    pub async fn renew(&mut self, body: serde_json::Value) -> Result<bool> {
        self.append(true, body).await
    }

    /// Gives the task back. False when it was taken over before.
    pub async fn release(&mut self, body: serde_json::Value) -> Result<bool> {
        self.append(false, body).await
    }

    async fn append(&mut self, held: bool, body: serde_json::Value) -> Result<bool> {
        let (leases, task) = (self.leases.clone(), self.task.clone());
        let mut entry = LeaseEntry {
            at: Utc::now().trunc_subsecs(6),
            held,
            body,
            ..self.entry.clone()
        };
        for _ in 0..ATTEMPTS {
            entry.seq = self.entry.seq.saturating_add(1);
            let path = entry_path(&task, entry.seq);
            let mut json =
                serde_json::to_vec_pretty(&entry).map_err(|e| StoreError::encode(&path, &e))?;
            json.push(b'\n');
            if leases.store.create(&path, json.into()).await? == Put::Taken {
                // By this very lease, where the answer to an earlier put was lost.
                match leases.read(&task, entry.seq).await {
                    Ok(found) if found.holder == entry.holder && found.epoch == entry.epoch => {
                        self.entry.seq = entry.seq;
                        continue;
                    }
                    Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            let (last, before) = leases.listed(&task).await?;
            if last > entry.seq {
                // The number was free again, because the log has gone on long ago.
                leases.store.delete(&path).await?;
                return Ok(false);
            }
            self.entry = entry.clone();
            leases.note(&task, entry);
            for seq in before {
                if let Err(error) = leases.store.delete(&entry_path(&task, seq)).await {
                    tracing::debug!(%task, seq, %error, "an old entry of the lease stays for now");
                }
            }
            return Ok(true);
        }
        Err(StoreError::Contended {
            path: entry_path(&task, self.entry.seq).to_string(),
            attempts: ATTEMPTS,
        })
    }
}

fn seq_of(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

fn entry_path(task: &TaskName, seq: u64) -> Path {
    Path::from(format!("{ROOT}/{task}/{seq:020}.json"))
}

fn request_path(task: &TaskName, id: &str) -> Path {
    Path::from(format!("{ROOT}/{task}/{REQUESTS}/{id}.json"))
}

fn nonce(attempt: usize) -> u32 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(attempt) as u32
}
