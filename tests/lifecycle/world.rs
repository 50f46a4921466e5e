//! A store with versions, and replicas that follow it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{PATIENCE, Up, http_get, series_of};

/// A directory with a configuration and everything below `data`.
pub(crate) struct World(TempDir);

/// Quick fits, on text alone.
const CONFIG: &str = "
[source]
path = \"data/spool\"
[store]
url = \"data/store\"
[aggregator]
max_age_ms = 50
[maintenance]
enabled = false
compact_min_shards = 2
[trainer]
poll_interval_ms = 50
[task_defaults]
target_agreement = 0.9
candidates = { only = [\"lexical_logistic\"] }
cascade = false
folds = 2
min_traces = 100
refit_every_minutes = 0
";

const SUBJECTS: [(&str, &str); 3] = [
    ("plants", "the leaf of my fern and some moss"),
    ("billing", "an invoice with the wrong amount on my card"),
    ("delivery", "a parcel that the courier left at the door"),
];

impl World {
    /// `more` is added to the configuration, `task` to `[task_defaults]`.
    pub(crate) fn new(task: &str, more: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let config = format!("{CONFIG}{task}\n{more}\n");
        fs::write(directory.path().join("tracer.toml"), config).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_remove("TRACER_CONFIG");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that succeeds, for the document it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that fails, for what it says.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        said
    }

    /// Sends the traces of a range of numbers. Of twelve, one is about two subjects at
    /// once, and the teacher takes either.
    pub(crate) fn send(&self, numbers: std::ops::Range<u64>) {
        self.send_copies(numbers, 0);
    }

    /// Sends them under other ids.
    pub(crate) fn send_copies(&self, numbers: std::ops::Range<u64>, beyond: u64) {
        let mut lines = String::new();
        for n in numbers {
            let (label, text) = SUBJECTS[n as usize % 3];
            let (input, label) = if n % 12 == 5 {
                let (other, also) = SUBJECTS[(n as usize + 1) % 3];
                let label = if n % 24 == 5 { label } else { other };
                (format!("number {n} is about {text} and {also}"), label)
            } else {
                (format!("number {n} is about {text}"), label)
            };
            writeln!(
                lines,
                r#"{{"id": "{}", "input": "{input}", "teacher": "{label}", "timestamp": {}, "metadata": {{"input_tokens": "200", "output_tokens": "10"}}}}"#,
                n + beyond,
                1_800_000_000_000_u64 + n * 60_000,
            )
            .unwrap();
        }
        fs::write(self.path().join("traces.jsonl"), lines).unwrap();
        self.json(&["replay", "traces.jsonl", "--json"]);
    }

    /// Sends traces to a running trainer until it has published a version.
    pub(crate) fn until_published(&self, up: &Up, version: f64, numbers: std::ops::Range<u64>) {
        self.send(numbers);
        up.until("a version is published", || up.metric(VERSION) >= version);
    }
}

/// The series of the version that serves.
pub(crate) const VERSION: &str = "tracer_pipeline_version{task=\"default\"}";

/// The series of a suspension.
pub(crate) const SUSPENDED: &str = "tracer_pipeline_suspended{task=\"default\"}";

/// A running `tracer inference`, killed when the test fails.
pub(crate) struct Replica {
    child: Child,
    log: PathBuf,
    pub(crate) grpc: String,
    http: String,
}

impl Replica {
    pub(crate) fn start(world: &World, name: &str) -> Self {
        let log = world.path().join(name);
        let child = world
            .command(&["inference", "--grpc-port", "0", "--http-port", "0"])
            .env("TRACER__TELEMETRY__LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut replica = Self {
            child,
            log,
            grpc: String::new(),
            http: String::new(),
        };
        replica.until("it listens", |replica| {
            let log = fs::read_to_string(&replica.log).unwrap();
            let address = |message: &str| {
                log.lines().find_map(|line| {
                    let line: Value = serde_json::from_str(line).ok()?;
                    (line["message"] == message)
                        .then(|| line["address"].as_str().unwrap().to_owned())
                })
            };
            replica.grpc = address("gRPC listens").unwrap_or_default();
            replica.http = address("HTTP listens").unwrap_or_default();
            !replica.http.is_empty()
        });
        replica.grpc.insert_str(0, "http://");
        replica
    }

    /// Waits until something holds, and says how long it took.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) -> Duration {
        let started = Instant::now();
        while !holds(self) {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "never: {what}: {}", log());
            assert!(self.child.try_wait().unwrap().is_none(), "ended: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }

    /// The whole answer of HTTP, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        http_get(&self.http, path)
    }

    /// The value of a series on `/metrics`; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        series_of(&self.get("/metrics"), series)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it serves a version, or does not for its suspension.
    pub(crate) fn follows(&mut self, version: f64, suspended: bool) -> Duration {
        let suspended = if suspended { 1.0 } else { 0.0 };
        self.until("it follows the log", |replica| {
            replica.metric(VERSION) == version && replica.metric(SUSPENDED) == suspended
        })
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
