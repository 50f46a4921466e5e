//! One aggregator: a process of the real binary.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a stop may take: the budget of a flush, the host's own deadline of 30
/// seconds, and a busy machine.
const STOP: Duration = Duration::from_secs(90);

/// Before it has read its configuration, SIGTERM ends it on the spot: it has nothing.
const EARLY: Duration = Duration::from_secs(5);

const SIGABRT: i32 = 6;
const SIGTERM: i32 = 15;

pub(crate) struct Member {
    pub(crate) name: String,
    directory: PathBuf,
    /// The library that moves its clock.
    faketime: Option<String>,
    child: Option<Child>,
    started: Instant,
}

impl Member {
    /// One that has a directory and a configuration, and does not run yet.
    pub(crate) fn new(name: &str, home: &Path, config: &str, faketime: Option<&str>) -> Self {
        let directory = home.join(name);
        fs::create_dir_all(directory.join("failpoints")).unwrap();
        fs::write(directory.join("tracer.toml"), config).unwrap();
        let member = Self {
            name: name.to_owned(),
            directory,
            faketime: faketime.map(str::to_owned),
            child: None,
            started: Instant::now(),
        };
        set_clock(&member.clock(), 0);
        member
    }

    pub(crate) fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        command
            .arg("aggregator")
            .current_dir(&self.directory)
            .env_remove("TRACER_CONFIG")
            .env("TRACER_FAILPOINTS", self.directory.join("failpoints"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(library) = &self.faketime {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.directory.join("clock"))
                .env("FAKETIME_CACHE_DURATION", "1")
                // A clock that is set does not move this one.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.child = Some(command.spawn().expect("the binary starts"));
        self.started = Instant::now();
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Ends it on the spot. Answers how it had ended before, if it had.
    pub(crate) fn kill(&mut self) -> Option<ExitStatus> {
        let before = self.ended();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        before
    }

    pub(crate) fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            send(signal, &child.id().to_string());
        }
    }

    /// Ends it as an orchestrator does. Whatever is not an orderly end is told.
    pub(crate) async fn terminate(&mut self) -> Result<(), String> {
        if let Some(status) = self.ended() {
            self.child = None;
            return if self.crashed_as_told(status) {
                Ok(())
            } else {
                Err(self.story(status))
            };
        }
        let asked = self.started.elapsed();
        self.signal("TERM");
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                let early = status.signal() == Some(SIGTERM) && asked < EARLY;
                return if status.success() || self.crashed_as_told(status) || early {
                    Ok(())
                } else {
                    Err(self.story(status))
                };
            }
            if Instant::now() > deadline {
                self.kill();
                return Err(format!("{} does not stop\n{}", self.name, self.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Arms a failpoint: see `services/aggregator/src/failpoint.rs`.
    pub(crate) fn arm(&self, place: &str, action: &str) {
        let file = self.directory.join("failpoints").join(place);
        let whole = file.with_extension("new");
        fs::write(&whole, action).unwrap();
        fs::rename(whole, file).unwrap();
    }

    pub(crate) fn failpoint(&self, place: &str) -> PathBuf {
        self.directory.join("failpoints").join(place)
    }

    /// The file that sets its clock.
    pub(crate) fn clock(&self) -> PathBuf {
        self.directory.join("clock")
    }

    pub(crate) fn story(&self, status: ExitStatus) -> String {
        format!("{} ended with {status}\n{}", self.name, self.log_tail())
    }

    /// A failpoint has ended it: it says so right before, and whatever else aborts a
    /// process is not told.
    pub(crate) fn crashed_as_told(&self, status: ExitStatus) -> bool {
        let told = || {
            let tail = self.log_tail();
            tail.lines()
                .any(|line| line.contains("failpoint place=") && line.contains(r#"action="abort""#))
        };
        status.signal() == Some(SIGABRT) && told()
    }

    /// What it said last, if that was an error.
    pub(crate) fn last_error(&self) -> Option<String> {
        let log = self.log();
        let last = log.trim_end().lines().next_back()?;
        Some(last.strip_prefix("error: ")?.to_owned())
    }

    /// How often something stands in its log.
    pub(crate) fn count_in_log(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    fn log(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Moves a clock by so many seconds from the true time.
pub(crate) fn set_clock(clock: &Path, seconds: i64) {
    let whole = clock.with_extension("new");
    fs::write(&whole, format!("{seconds:+}\n")).unwrap();
    fs::rename(whole, clock).unwrap();
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process.
pub(crate) fn send(signal: &str, pid: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), pid])
        .stderr(Stdio::null())
        .status();
    sent.expect("kill runs");
}
