//! `tracer up` and `tracer aggregator` as processes of their own, for tests over the
//! real binary.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a panic is a failed test"
)]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running `tracer up` on free ports, with everything in one directory: killed
/// when the test fails.
pub(crate) struct Up {
    child: Child,
    directory: PathBuf,
    output: BufReader<ChildStdout>,
    /// Where gRPC is, with the scheme.
    pub(crate) grpc: String,
    http: String,
}

impl Up {
    /// Starts it in a directory, which may hold a `tracer.toml`. Log and store are
    /// kept in `data` there.
    pub(crate) fn start(directory: &Path) -> Self {
        let log = File::create(directory.join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(["up", "--data", "data"])
            .args(["--grpc-port", "0", "--http-port", "0"])
            .current_dir(directory)
            .env_remove("TRACER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut up = Self {
            child,
            directory: directory.to_owned(),
            output,
            grpc: String::new(),
            http: String::new(),
        };
        while up.http.is_empty() {
            let mut line = String::new();
            let read = up.output.read_line(&mut line).unwrap();
            assert!(read > 0, "no banner; the log: {}", up.log());
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("gRPC"), Some(address)) => up.grpc = format!("http://{address}"),
                (Some("HTTP"), Some(url)) => {
                    url.trim_start_matches("http://").clone_into(&mut up.http);
                }
                _ => {}
            }
        }
        up
    }

    /// Where HTTP is: host and port.
    pub(crate) fn http(&self) -> &str {
        &self.http
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// False once the process has ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The whole answer of HTTP, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        http_get(&self.http, path)
    }

    /// The value of a series on `/metrics`; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        series_of(&self.get("/metrics"), series)
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, what: &str, mut probe: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !probe() {
            assert!(
                Instant::now() < deadline,
                "never happened: {what}; the log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn ready(&self) {
        self.until("it is ready", || {
            self.get("/readyz").starts_with("HTTP/1.1 200")
        });
    }

    /// Asks it to stop, and answers what it said last. It ends in order.
    pub(crate) fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; the log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "the log: {}", self.log());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `tracer aggregator`, killed when the test fails.
pub(crate) struct Aggregator {
    child: Child,
    log: PathBuf,
}

impl Aggregator {
    /// Starts it in a directory with a `tracer.toml`.
    pub(crate) fn start(directory: &Path) -> Self {
        let log = directory.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(["aggregator", "--http-port", "0"])
            .current_dir(directory)
            .env_remove("TRACER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Waits until something holds, while it runs.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            let log = || std::fs::read_to_string(&self.log).unwrap();
            assert!(
                Instant::now() < deadline,
                "never happened: {what}: {}",
                log()
            );
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop. It ends in order.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole answer of HTTP, head and body.
pub(crate) fn http_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a series in the text of `/metrics`; 0 when it is not there.
pub(crate) fn series_of(text: &str, series: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}
