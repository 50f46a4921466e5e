//! The aggregator as a process of its own, so that its memory is its own.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};
use tracer_source::{KafkaConfig, Offset, PartitionId};
use tracer_store::{ShardLog, Store};

use crate::environment::{CONFIG, OVERRIDE_PREFIX};

/// Time between two looks at the process.
const LOOK: Duration = Duration::from_millis(20);

/// How long it may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one drain took.
pub(super) struct Ingested {
    pub(super) traces_per_s: f64,
    pub(super) peak_rss_mib: f64,
    pub(super) cpu_seconds: f64,
}

/// Runs `tracer aggregator` into a store of its own until all traces are durable there.
/// The time begins at the last look that saw nothing read. Once everything has been read
/// the process is asked to stop, which flushes what would wait to be old enough. The time
/// ends with the last shard: how long the group takes to let a member go is no matter of
/// throughput.
pub(super) async fn drain(
    kafka: &KafkaConfig,
    file: Option<&PathBuf>,
    round: usize,
    traces: usize,
) -> anyhow::Result<Ingested> {
    let directory = Directory::create(&kafka.group, round)?;
    let store = directory.0.join("store").display().to_string();
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let topics: Vec<&str> = kafka
        .topics
        .iter()
        .map(tracer_trace::TopicName::as_str)
        .collect();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(file) = file {
        command.env(CONFIG, file);
    }
    for (key, value) in [
        ("SOURCE__KIND", "kafka"),
        ("SOURCE__BROKERS", &kafka.brokers),
        ("SOURCE__TOPICS", &format!("{topics:?}")),
        ("SOURCE__GROUP", &format!("{}-{round}", kafka.group)),
        ("STORE__URL", &store),
        ("AGGREGATOR__DEAD_LETTER_TOPIC", ""),
        ("LISTEN__HTTP", &format!("127.0.0.1:{port}")),
        ("TELEMETRY__LOG_FILTER", "warn"),
    ] {
        command.env(format!("{OVERRIDE_PREFIX}{key}"), value);
    }
    let started = command
        .arg("aggregator")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut child = Aggregator(started.context("cannot start the aggregator")?);
    let pid = child.0.id();

    let mut started = SystemTime::now();
    let (mut consumed, mut moved) = (0, Instant::now());
    let mut usage = Usage::default();
    while consumed < traces {
        if let Some(status) = child.0.try_wait()? {
            bail!("the aggregator ended by itself: {status}");
        }
        let before = SystemTime::now();
        let metrics = metrics(port).await.unwrap_or_default();
        let now = value(&metrics, "tracer_traces_consumed_total") as usize;
        if now == 0 {
            started = before;
        }
        if now > consumed {
            (consumed, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            bail!("the aggregator stands still at {consumed} of {traces} traces");
        }
        usage.look(pid);
        sleep(LOOK).await;
    }
    stop(&mut child, pid, &mut usage).await?;
    let (stored, ended) = stored(&store, kafka).await?;
    if stored != traces as u64 {
        bail!("{stored} of {traces} traces are in the shards");
    }
    Ok(Ingested {
        traces_per_s: traces as f64 / ended.duration_since(started)?.as_secs_f64(),
        peak_rss_mib: usage.peak_kib as f64 / 1024.0,
        cpu_seconds: usage.cpu_seconds,
    })
}

/// The process; killed when the measurement fails.
struct Aggregator(Child);

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks the process to stop and waits until it has: everything is durable then.
async fn stop(child: &mut Aggregator, pid: u32, usage: &mut Usage) -> anyhow::Result<()> {
    let sent = Command::new("kill").arg(pid.to_string()).status();
    if !sent.context("cannot run kill")?.success() {
        bail!("cannot stop the aggregator");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        usage.look(pid);
        if let Some(status) = child.0.try_wait()? {
            if !status.success() {
                bail!("the aggregator failed as it stopped: {status}");
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the aggregator does not stop");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Rows of all shards, and when the last of them got its name.
async fn stored(store: &str, kafka: &KafkaConfig) -> anyhow::Result<(u64, SystemTime)> {
    let shards = ShardLog::new(Store::open(store, &BTreeMap::new())?);
    let (mut rows, mut last) = (0, SystemTime::UNIX_EPOCH);
    for partition in shards.partitions().await? {
        let mut next = Offset::ZERO;
        for shard in shards.shards(&partition).await? {
            if shard.range.start != next {
                bail!("there is a gap in {partition} at {next}");
            }
            next = shard.range.end;
            rows += shard.rows();
            last = last.max(named(&Path::new(store).join(&shard.path))?);
        }
        debug_assert!(kafka.topics.contains(&PartitionId::clone(&partition).topic));
    }
    Ok((rows, last))
}

/// When a file got its name: after its bytes were made durable.
fn named(file: &Path) -> anyhow::Result<SystemTime> {
    let metadata = fs::metadata(file)?;
    let nanoseconds = u32::try_from(metadata.ctime_nsec())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(metadata.ctime())?, nanoseconds))
}

/// What a process has taken, as far as it was seen.
#[derive(Default)]
struct Usage {
    peak_kib: u64,
    cpu_seconds: f64,
}

impl Usage {
    fn look(&mut self, pid: u32) {
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            let peak: Option<u64> = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            self.peak_kib = peak.unwrap_or_default().max(self.peak_kib);
        }
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            // The fields after the name, which may hold spaces: user and system time are
            // the twelfth and thirteenth, in hundredths of a second.
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let ticks = |index: usize| -> f64 {
                fields
                    .get(index)
                    .and_then(|field| field.parse().ok())
                    .unwrap_or_default()
            };
            self.cpu_seconds = self.cpu_seconds.max((ticks(11) + ticks(12)) / 100.0);
        }
    }
}

async fn metrics(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn value(metrics: &str, series: &str) -> f64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or_default()
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn create(name: &str, round: usize) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{round}"));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a directory is left behind");
        }
    }
}
