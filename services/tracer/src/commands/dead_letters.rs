//! `tracer dead-letters`: payloads that were no traces, and sending them back after a
//! fix.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use futures::future::join_all;
use serde_json::{Value, json};
use tracer_aggregator::DeadLetter;
use tracer_source::{LogWriter, Message, SourceConfig, SourceError, TopicName};
use tracer_store::{LetterKey, ReplayLog, Replayed, Store};

use crate::{
    config::{Config, ConfigError},
    output,
};

/// Letters that are claimed and sent together.
const BATCH: usize = 500;

/// Bytes of the letters that are sent together.
const BATCH_BYTES: usize = 8 << 20;

/// Characters of a payload that are shown.
const SNIPPET: usize = 160;

/// The header by which a record that was sent back is known. It tells whoever reads the
/// topic where the record stood at first.
const REPLAY_OF: &str = "tracer-replay-of";

/// Arguments of `tracer dead-letters`.
#[derive(Args, Debug)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what was rejected, and why
    List(ListArgs),
    /// Send the payloads back to the topics they came from, each once
    Replay(ReplayArgs),
}

#[derive(Args, Debug)]
struct Selection {
    /// Only those rejected for this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only those that came from this topic
    #[arg(long)]
    topic: Option<TopicName>,
    /// Only those rejected since: a time as in RFC 3339, or so long ago, such as 30m, 6h or 2d
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<DateTime<Utc>>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    /// Show so many at the most; all are counted
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
}

#[derive(Args, Debug)]
struct ReplayArgs {
    #[command(flatten)]
    selection: Selection,
    /// Send so many at the most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Send them to this topic instead
    #[arg(long, value_name = "TOPIC")]
    to: Option<TopicName>,
    /// Also those whose replay broke off, and that may have been sent
    #[arg(long)]
    in_doubt: bool,
    /// Also those that were sent back before and rejected again
    #[arg(long)]
    again: bool,
}

fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = text.parse::<DateTime<Utc>>() {
        return Ok(time);
    }
    let expected = || "expected a time as in RFC 3339, or a number of m, h or d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let minutes = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => return Err(expected()),
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| TimeDelta::try_minutes(i64::from(number) * minutes))
        .and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(expected)
}

impl Selection {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.reason
            .as_ref()
            .is_none_or(|reason| letter.reason == *reason)
            && self
                .topic
                .as_ref()
                .is_none_or(|topic| letter.partition.topic == *topic)
            && self
                .since
                .is_none_or(|since| letter.rejected_at.is_none_or(|at| at >= since))
    }
}

/// Runs the command.
pub(crate) async fn run(args: DeadLettersArgs, config: Config) -> anyhow::Result<()> {
    let topic = config.aggregator.dead_letter_topic.clone().ok_or_else(|| {
        ConfigError::new("aggregator.dead_letter_topic is empty: there are no dead letters")
    })?;
    let store = Store::open(&config.store.url, &config.store.options)
        .map_err(|error| ConfigError::new(format!("store: {error}")))?;
    let log = ReplayLog::open(store, &topic)
        .await
        .context("cannot read what was replayed before")?;
    let letters = Letters {
        source: config.source,
        topic,
        log,
        others: 0,
    };
    match args.command {
        Command::List(args) => letters.list(&args).await,
        Command::Replay(args) => letters.replay(&args).await,
    }
}

struct Letters {
    source: SourceConfig,
    topic: TopicName,
    log: ReplayLog,
    /// Records of the topic that are no dead letters.
    others: u64,
}

fn key(letter: &DeadLetter) -> LetterKey {
    LetterKey::new(letter.origin(), &letter.payload)
}

fn word(replayed: Option<Replayed>) -> &'static str {
    match replayed {
        None => "new",
        Some(Replayed::Sent) => "replayed",
        Some(Replayed::InDoubt) => "in doubt",
        Some(Replayed::CameBack) => "came back",
    }
}

impl Letters {
    async fn list(mut self, args: &ListArgs) -> anyhow::Result<()> {
        let (mut total, mut shown) = (0_u64, Vec::new());
        let mut reasons = BTreeMap::<String, u64>::new();
        let mut states = BTreeMap::<&str, u64>::new();
        let mut scan = self.source.scan(&self.topic);
        while let Some(scanned) = scan.recv().await {
            let Some(letter) = DeadLetter::parse(&scanned?) else {
                self.others += 1;
                continue;
            };
            if !args.selection.takes(&letter) {
                continue;
            }
            total += 1;
            let state = word(self.log.of(&key(&letter), letter.rejected_at));
            *states.entry(state).or_default() += 1;
            if shown.len() < args.limit {
                shown.push(described(&letter, state));
            }
            *reasons.entry(letter.reason).or_default() += 1;
        }
        let document = json!({
            "topic": self.topic,
            "letters": total,
            "by_reason": reasons,
            "by_state": states,
            "other_records": self.others,
            "shown": shown,
        });
        if args.selection.json {
            output::json(&document);
            return Ok(());
        }
        for letter in &shown {
            let text = |name: &str| letter[name].as_str().unwrap_or_default();
            output::line(format_args!(
                "{}  {}  {}  {}\n    {}\n    {}",
                text("origin"),
                text("rejected_at"),
                text("reason"),
                text("state"),
                text("error"),
                text("snippet"),
            ));
        }
        let count = |(name, count): (&str, &u64)| format!("{count} {name}");
        let reasons: Vec<_> = reasons.iter().map(|(name, n)| count((name, n))).collect();
        let states: Vec<_> = states.iter().map(|(name, n)| count((name, n))).collect();
        output::line(format_args!(
            "{total} dead letters in {}: {}; {}",
            self.topic,
            reasons.join(", "),
            states.join(", ")
        ));
        Ok(())
    }

    async fn replay(mut self, args: &ReplayArgs) -> anyhow::Result<()> {
        let writer = self
            .source
            .open_writer()
            .map_err(|error| ConfigError::new(format!("source: {error}")))?;
        let mut done = Done::default();
        let mut batch = Batch::default();
        let mut scan = self.source.scan(&self.topic);
        let most = args.limit.unwrap_or(usize::MAX);
        while done.sent + done.failed + batch.letters.len() < most {
            let Some(scanned) = scan.recv().await else {
                break;
            };
            let Some(letter) = DeadLetter::parse(&scanned?) else {
                continue;
            };
            if !args.selection.takes(&letter) {
                continue;
            }
            let key = key(&letter);
            match self.log.of(&key, letter.rejected_at) {
                Some(Replayed::Sent) => done.sent_before += 1,
                Some(Replayed::InDoubt) if !args.in_doubt => done.in_doubt += 1,
                Some(Replayed::CameBack) if !args.again => done.came_back += 1,
                _ if letter.is_cut() => done.cut += 1,
                // The same record may be there twice, after a crash.
                _ if batch.letters.contains_key(&key) => done.sent_before += 1,
                _ => batch.push(key, letter),
            }
            if batch.is_full() {
                self.send(&mut batch, writer.as_ref(), args, &mut done)
                    .await?;
            }
        }
        drop(scan);
        self.send(&mut batch, writer.as_ref(), args, &mut done)
            .await?;
        writer.flush().await.context("cannot flush")?;
        done.tell(&self.topic, args.selection.json);
        if let Some(error) = done.error {
            anyhow::bail!("{} dead letters could not be sent: {error}", done.failed);
        }
        Ok(())
    }

    /// Claims the letters of a batch, sends them, and notes that they were sent.
    async fn send(
        &mut self,
        batch: &mut Batch,
        writer: &dyn LogWriter,
        args: &ReplayArgs,
        done: &mut Done,
    ) -> anyhow::Result<()> {
        let mut batch = std::mem::take(batch);
        let keys: Vec<_> = batch.letters.keys().cloned().collect();
        let to = args.to.as_ref().map_or("", TopicName::as_str);
        let claimed = keys.len();
        let again = args.in_doubt || args.again;
        let claim = self
            .log
            .claim(to, keys, again)
            .await
            .context("cannot claim dead letters")?;
        done.sent_before += claimed - claim.letters.len();
        let letters: Vec<_> = claim
            .letters
            .iter()
            .filter_map(|key| batch.letters.remove(key))
            .collect();
        let sent = letters.iter().map(|letter| async {
            let to = args.to.as_ref().unwrap_or(&letter.partition.topic);
            let headers = vec![(REPLAY_OF.to_owned(), Bytes::from(letter.origin()))];
            let message = Message {
                headers,
                ..Message::new(letter.payload.clone())
            };
            match writer.append(to, message).await {
                // Wherever it stands, it is there.
                Ok(_) | Err(SourceError::UnknownOffset { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        });
        let mut not = Vec::new();
        for (key, (letter, sent)) in claim
            .letters
            .iter()
            .zip(letters.iter().zip(join_all(sent).await))
        {
            match sent {
                Ok(()) => {
                    done.sent += 1;
                    *done.by_reason.entry(letter.reason.clone()).or_default() += 1;
                }
                Err(error) => {
                    done.failed += 1;
                    done.error.get_or_insert_with(|| error.to_string());
                    not.push(key.clone());
                }
            }
        }
        if !claim.letters.is_empty() {
            self.log
                .sent(&claim, not)
                .await
                .context("dead letters were sent, but that could not be noted")?;
        }
        Ok(())
    }
}

/// Letters that are to be sent together.
#[derive(Default)]
struct Batch {
    letters: BTreeMap<LetterKey, DeadLetter>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, key: LetterKey, letter: DeadLetter) {
        self.bytes += letter.payload.len();
        self.letters.insert(key, letter);
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
}

/// What a replay has done.
#[derive(Default)]
struct Done {
    sent: usize,
    failed: usize,
    sent_before: usize,
    in_doubt: usize,
    came_back: usize,
    cut: usize,
    by_reason: BTreeMap<String, u64>,
    error: Option<String>,
}

impl Done {
    fn tell(&self, topic: &TopicName, as_json: bool) {
        if as_json {
            output::json(&json!({
                "topic": topic,
                "sent": self.sent,
                "by_reason": self.by_reason,
                "failed": self.failed,
                "sent_before": self.sent_before,
                "in_doubt": self.in_doubt,
                "came_back": self.came_back,
                "cut": self.cut,
            }));
            return;
        }
        output::line(format_args!(
            "{} dead letters of {topic} sent back",
            self.sent
        ));
        for (count, what) in [
            (self.sent_before, "had been sent before"),
            (
                self.in_doubt,
                "may have been sent by a replay that broke off: --in-doubt sends them",
            ),
            (
                self.came_back,
                "were sent before and rejected again: --again sends them",
            ),
            (
                self.cut,
                "were cut when they were written, and cannot be sent",
            ),
            (self.failed, "could not be sent"),
        ] {
            if count > 0 {
                output::line(format_args!("{count} {what}"));
            }
        }
    }
}

/// A letter for people: never more than its beginning.
fn described(letter: &DeadLetter, state: &str) -> Value {
    let start = &letter.payload[..letter.payload.len().min(4 * SNIPPET)];
    let snippet: String = String::from_utf8_lossy(start)
        .chars()
        .take(SNIPPET)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    json!({
        "origin": letter.origin(),
        "topic": letter.partition.topic,
        "partition": letter.partition.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.timestamp_ms,
        "rejected_at": letter.rejected_at,
        "reason": letter.reason,
        "error": letter.error,
        "bytes": letter.payload_bytes,
        "cut": letter.is_cut(),
        "state": state,
        "snippet": snippet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_spans() {
        assert_eq!(
            since("2030-01-02T03:04:05Z").unwrap().to_rfc3339(),
            "2030-01-02T03:04:05+00:00"
        );
        let ago = Utc::now() - since("2h").unwrap();
        assert!((119..=121).contains(&ago.num_minutes()), "{ago}");
        for bad in ["", "2", "h", "-1h", "yesterday", "5ä"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
