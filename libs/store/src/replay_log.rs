//! Which dead letters were sent back: an append-only log for each dead-letter topic.
//!
//! ```text
//! dead-letters/{topic}/{seq:020}.json
//! ```
//!
//! A replay first claims letters by an entry, then sends them, then says by another
//! entry that they were sent. An entry is put if absent under the number after the
//! last, so of two replays at the same time one sees the claims of the other. A letter
//! that is claimed but not said to be sent is *in doubt*: its replay broke off.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracer_trace::TopicName;

use crate::{
    error::{Result, StoreError},
    store::{Put, Store},
};

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// Claims that are made again because a rival was faster.
const ATTEMPTS: usize = 100;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    schema_version: u32,
    seq: u64,
    at: DateTime<Utc>,
    nonce: u64,
    #[serde(flatten)]
    event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// These letters are about to be sent.
    Claimed { to: String, letters: Vec<LetterKey> },
    /// Those of a claim were sent, but for these.
    Sent { claim: u64, not: Vec<LetterKey> },
}

/// What tells a letter from others: where its record stood, and what it held. The same
/// record may have become several letters, after a crash, and is sent once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterKey {
    /// `topic-partition@offset` of the record.
    pub origin: String,
    /// The first 16 hexadecimal digits of the SHA-256 of its payload.
    pub digest: String,
}

impl LetterKey {
    /// The key of a letter.
    pub fn new(origin: String, payload: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, payload);
        Self {
            origin,
            digest: crate::last_record::hex(&digest.as_ref()[..8]),
        }
    }
}

/// What became of a letter so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// It was sent.
    Sent,
    /// Its replay broke off: it may have been sent.
    InDoubt,
    /// The same payload was sent before, and has come back since.
    CameBack,
}

/// Letters that were claimed, to be sent now.
#[derive(Clone, Debug)]
pub struct Claim {
    seq: u64,
    /// The letters that nobody had claimed before.
    pub letters: Vec<LetterKey>,
}

/// What is known of a letter.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The entry that claimed it last, and when.
    claim: u64,
    at: DateTime<Utc>,
    replayed: Replayed,
}

/// The log of one dead-letter topic.
#[derive(Debug)]
pub struct ReplayLog {
    store: Store,
    folder: Path,
    next: u64,
    letters: HashMap<LetterKey, Known>,
    /// When a payload was claimed that was sent then: it cannot have come back before.
    payloads: HashMap<String, DateTime<Utc>>,
}

impl ReplayLog {
    /// Reads the log of a topic.
    pub async fn open(store: Store, topic: &TopicName) -> Result<Self> {
        let mut log = Self {
            store,
            folder: Path::from("dead-letters").join(topic.as_str()),
            next: 1,
            letters: HashMap::new(),
            payloads: HashMap::new(),
        };
        log.follow().await?;
        Ok(log)
    }

    /// What became of a letter that was rejected at a time.
    pub fn of(&self, key: &LetterKey, rejected: Option<DateTime<Utc>>) -> Option<Replayed> {
        if let Some(known) = self.letters.get(key) {
            return Some(known.replayed);
        }
        let claimed = self.payloads.get(&key.digest)?;
        rejected
            .is_some_and(|rejected| rejected >= *claimed)
            .then_some(Replayed::CameBack)
    }

    /// Claims letters, but for those that a rival has claimed meanwhile. With `again`
    /// those that were claimed before are claimed once more.
    pub async fn claim(
        &mut self,
        to: &str,
        mut letters: Vec<LetterKey>,
        again: bool,
    ) -> Result<Claim> {
        let seen = self.next;
        for _ in 0..ATTEMPTS {
            letters.retain(|key| {
                let claimed = self.letters.get(key);
                claimed.is_none_or(|known| again && known.claim < seen)
            });
            let event = Event::Claimed {
                to: to.to_owned(),
                letters: letters.clone(),
            };
            if letters.is_empty() {
                return Ok(Claim { seq: 0, letters });
            }
            if let Some(seq) = self.append(event).await? {
                return Ok(Claim { seq, letters });
            }
        }
        Err(self.contended())
    }

    /// Says that the letters of a claim were sent, but for some.
    pub async fn sent(&mut self, claim: &Claim, not: Vec<LetterKey>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let event = Event::Sent {
                claim: claim.seq,
                not: not.clone(),
            };
            if self.append(event).await?.is_some() {
                return Ok(());
            }
        }
        Err(self.contended())
    }

    /// Appends an event and takes in what others have appended; `None` when a rival
    /// has taken the number.
    async fn append(&mut self, event: Event) -> Result<Option<u64>> {
        let seq = self.next;
        let entry = Entry {
            schema_version: SCHEMA_VERSION,
            seq,
            at: Utc::now(),
            nonce: nonce(),
            event,
        };
        let path = self.path(seq);
        let json = serde_json::to_vec_pretty(&entry).map_err(|e| StoreError::encode(&path, &e))?;
        let put = self.store.create(&path, json.clone().into()).await?;
        // A taken name may be this very entry, put before an answer was lost.
        let mine = put == Put::Created || self.store.get(&path).await? == json;
        self.follow().await?;
        Ok(mine.then_some(seq))
    }

    async fn follow(&mut self) -> Result<()> {
        let after = self.path(self.next.saturating_sub(1));
        let listed = self.store.list(&self.folder, Some(&after)).await?;
        for meta in listed {
            let path = &meta.location;
            let json = self.store.get(path).await?;
            let entry: Entry =
                serde_json::from_slice(&json).map_err(|e| StoreError::damaged(path, &e))?;
            if entry.schema_version > SCHEMA_VERSION {
                return Err(StoreError::NewerSchema {
                    path: path.to_string(),
                    found: entry.schema_version,
                    supported: SCHEMA_VERSION,
                });
            }
            if entry.seq != self.next || *path != self.path(entry.seq) {
                let missing = format!("entry {} is missing before it", self.next);
                return Err(StoreError::damaged(path, &missing));
            }
            self.next += 1;
            self.take(entry);
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        match entry.event {
            Event::Claimed { letters, .. } => {
                for key in letters {
                    let known = Known {
                        claim: entry.seq,
                        at: entry.at,
                        replayed: Replayed::InDoubt,
                    };
                    self.letters.insert(key, known);
                }
            }
            Event::Sent { claim, not } => {
                for (key, known) in &mut self.letters {
                    if known.claim == claim && !not.contains(key) {
                        known.replayed = Replayed::Sent;
                        self.payloads.insert(key.digest.clone(), known.at);
                    }
                }
            }
        }
    }

    fn path(&self, seq: u64) -> Path {
        self.folder.clone().join(format!("{seq:020}.json"))
    }

    fn contended(&self) -> StoreError {
        StoreError::Contended {
            path: self.path(self.next).to_string(),
            attempts: ATTEMPTS,
        }
    }
}

fn nonce() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn keys(names: &[&str]) -> Vec<LetterKey> {
        names
            .iter()
            .map(|name| LetterKey::new(format!("t-0@{name}"), name.as_bytes()))
            .collect()
    }

    #[tokio::test]
    async fn letters_are_claimed_once() {
        let store = Store::open("memory://", &std::collections::BTreeMap::new()).unwrap();
        let topic = TopicName::new("dead").unwrap();
        let open = || ReplayLog::open(store.clone(), &topic);
        let (mut one, mut two) = (open().await.unwrap(), open().await.unwrap());
        let first = one.claim("t", keys(&["1", "2"]), false).await.unwrap();
        assert_eq!(first.letters, keys(&["1", "2"]));
        // The rival learns it when it claims.
        let second = two.claim("t", keys(&["2", "3"]), false).await.unwrap();
        assert_eq!(second.letters, keys(&["3"]));
        one.sent(&first, keys(&["2"])).await.unwrap();

        let log = open().await.unwrap();
        let of = |name: &str| log.of(&keys(&[name])[0], None);
        assert_eq!(
            (of("1"), of("2"), of("3"), of("4")),
            (
                Some(Replayed::Sent),
                Some(Replayed::InDoubt),
                Some(Replayed::InDoubt),
                None
            )
        );
        // What is in doubt is claimed again only when somebody says so.
        let mut log = open().await.unwrap();
        assert!(
            log.claim("t", keys(&["2"]), false)
                .await
                .unwrap()
                .letters
                .is_empty()
        );
        let again = log.claim("t", keys(&["2"]), true).await.unwrap();
        log.sent(&again, Vec::new()).await.unwrap();
        assert_eq!(log.of(&keys(&["2"])[0], None), Some(Replayed::Sent));
    }

    #[tokio::test]
    async fn a_payload_that_was_sent_and_rejected_again_came_back() {
        let store = Store::open("memory://", &std::collections::BTreeMap::new()).unwrap();
        let topic = TopicName::new("dead").unwrap();
        let mut log = ReplayLog::open(store, &topic).await.unwrap();
        let claim = log.claim("t", keys(&["1"]), false).await.unwrap();
        log.sent(&claim, Vec::new()).await.unwrap();
        let again = LetterKey::new("t-0@9".to_owned(), b"1");
        let (before, after) = (
            Utc::now() - TimeDelta::hours(1),
            Utc::now() + TimeDelta::hours(1),
        );
        assert_eq!(log.of(&again, Some(after)), Some(Replayed::CameBack));
        assert_eq!(log.of(&again, Some(before)), None);
        assert_eq!(log.of(&again, None), None);
    }
}
