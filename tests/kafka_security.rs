//! The real binary before a broker that does not let it in: it says so, stays up, and
//! tells nobody the secret.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const SECRET: &str = "a-secret-nobody-may-see-16180339";
const PATIENCE: Duration = Duration::from_secs(120);

struct Aggregator(Child);

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn home() -> PathBuf {
    std::env::var("TRACER_TEST_SECURE_KAFKA")
        .expect("TRACER_TEST_SECURE_KAFKA is the directory of a broker with TLS and SASL")
        .into()
}

fn ready(port: u16) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).is_ok() {
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

#[test]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
fn kafka_security_a_wrong_password_is_said_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let address = fs::read_to_string(home().join("sasl")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let config = format!(
        r#"
[source]
kind = "kafka"
brokers = "{}"
topics = ["secret-topic"]
[source.tls]
ca = "{}"
[source.sasl]
mechanism = "SCRAM-SHA-512"
username = "tracer"
[listen]
http = "127.0.0.1:{port}"
[telemetry]
log_filter = "trace"
"#,
        address.trim(),
        home().join("ca.pem").display()
    );
    fs::write(directory.path().join("tracer.toml"), config).unwrap();
    let log = directory.path().join("log");
    let mut aggregator = Aggregator(
        Command::new(env!("CARGO_BIN_EXE_tracer"))
            .arg("aggregator")
            .current_dir(directory.path())
            .env_remove("TRACER_CONFIG")
            .env("TRACER__SOURCE__SASL__PASSWORD", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    let read = || fs::read_to_string(&log).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (log, ready) = (read(), ready(port));
        let said = log.contains("kafka refuses the connection");
        if said && ready.contains("503") && ready.contains("SASL") {
            break;
        }
        assert!(Instant::now() < deadline, "never said: {ready}\n{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(aggregator.0.try_wait().unwrap().is_none(), "it has ended");
    let pid = aggregator.0.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    let ended = aggregator.0.wait().unwrap();
    assert!(ended.success(), "{ended}\n{}", read());
    assert!(!read().contains(SECRET), "the log has the secret");
}

/// What is wrong with a secret is said without it, whatever it looks like.
#[test]
fn a_secret_is_in_no_error() {
    for (key, value) in [
        ("SASL__PASSWORD", "1618033988"),
        ("SASL__PASSWORD", "true"),
        ("TLS__KEY_PASSWORD", "2.718281828"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .arg("aggregator")
            .current_dir(directory.path())
            .env_remove("TRACER_CONFIG")
            .env("TRACER__SOURCE__KIND", "kafka")
            .env("TRACER__SOURCE__SASL__MECHANISM", "PLAIN")
            .env("TRACER__SOURCE__SASL__USERNAME", "tracer")
            .env(format!("TRACER__SOURCE__{key}"), value)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("a secret must be text"), "{said}");
        assert!(!said.contains(value), "{said}");
    }
}
