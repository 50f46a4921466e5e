//! `tracer up` on the real binary: starts from nothing, flushes when it is told to
//! stop, and goes on where it was.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// A running `tracer up`, killed when the test fails.
struct Up {
    child: Child,
    http: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Up {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args([
                "up",
                "--data",
                "data",
                "--grpc-port",
                "0",
                "--http-port",
                "0",
            ])
            .current_dir(directory)
            .env_remove("TRACER_CONFIG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            assert!(
                output.read_line(&mut line).unwrap() > 0,
                "the banner says where HTTP is"
            );
        }
        let address = line.split("http://").nth(1).unwrap();
        let http = address.split_whitespace().next().unwrap().to_owned();
        Self {
            child,
            http,
            output,
        }
    }

    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&self.http) {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        answer
    }

    fn until(&self, path: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if answer.contains(text) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no {text:?} at {path}:\n{answer}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop, and answers what it said last.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0));
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

fn replay(directory: &Path, name: &str, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|i| format!(r#"{{"id": "{name}-{i}", "input": "message {i}", "teacher": "x"}}"#))
        .collect();
    fs::write(directory.join(name), lines.join("\n")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["replay", name, "--spool", "data/spool"])
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.code(), Some(0));
}

fn shards(directory: &Path) -> usize {
    fs::read_dir(directory.join("data/store/traces/traces/00000")).map_or(0, Iterator::count)
}

#[test]
fn what_was_taken_in_is_stored_at_the_end_and_not_taken_in_again() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    up.until("/readyz", "200 OK");
    up.until("/livez", "200 OK");
    replay(directory.path(), "first", 70);
    up.until("/metrics", "tracer_traces_consumed_total 70");
    // The traces are younger than a shard waits: only the end writes them.
    assert!(up.stop().contains("stopped"));
    assert_eq!(shards(directory.path()), 1);

    let up = Up::start(directory.path());
    up.until("/readyz", "200 OK");
    replay(directory.path(), "second", 30);
    up.until("/metrics", "tracer_traces_consumed_total 30");
    up.stop();
    assert_eq!(shards(directory.path()), 2);
}
