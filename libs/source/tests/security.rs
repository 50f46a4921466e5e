//! Every way of logging in, against a broker that asks for it.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../../tests/common/acl.rs"]
mod acl;

use std::{fs, path::PathBuf, time::Duration};

use acl::{ALL, ALLOW, DENY, DESCRIBE, GROUP, READ, TOPIC, acl, no_acl};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::{Instant, timeout};
use tracer_source::{
    Event, KafkaConfig, KafkaSecurity, Message, Offset, PartitionId, SaslConfig, SaslMechanism,
    Source, SourceConfig, Start, TlsConfig, TopicName,
};

const DEADLINE: Duration = Duration::from_mins(1);

/// The broker's directory, which `tests/run` makes.
fn home() -> PathBuf {
    std::env::var("TRACER_TEST_SECURE_KAFKA")
        .expect("TRACER_TEST_SECURE_KAFKA is the directory of a broker with TLS and SASL")
        .into()
}

fn text(name: &str) -> String {
    let text = fs::read_to_string(home().join(name)).unwrap();
    text.trim().to_owned()
}

fn tls() -> TlsConfig {
    TlsConfig {
        ca: Some(home().join("ca.pem")),
        ..TlsConfig::default()
    }
}

fn password(mechanism: SaslMechanism) -> SaslConfig {
    SaslConfig {
        mechanism,
        username: Some("tracer".to_owned()),
        password: None,
        password_file: Some(home().join("password")),
        token_file: None,
    }
}

fn config(of: &str, address: &str, tls: TlsConfig, sasl: Option<SaslConfig>) -> SourceConfig {
    let name = format!("secure-{of}-{}", std::process::id());
    SourceConfig::Kafka(KafkaConfig {
        brokers: text(address),
        topics: vec![TopicName::new(&name).unwrap()],
        group: name,
        security: KafkaSecurity {
            security: None,
            tls: Some(tls),
            sasl,
        },
        ..KafkaConfig::default()
    })
}

/// What is written is read back.
async fn passes(config: SourceConfig) {
    let writer = config.open_writer().unwrap();
    let topic = config.write_topic();
    let written = writer.append(&topic, Message::new("a trace"));
    timeout(DEADLINE, written).await.expect("in time").unwrap();
    let mut source = config.open_source().unwrap();
    let read = timeout(DEADLINE, async {
        loop {
            match source.next().await.unwrap() {
                Event::Assigned(partitions) => {
                    let starts: Vec<_> = partitions
                        .into_iter()
                        .map(|partition| (partition, Start::Beginning))
                        .collect();
                    source.assign(&starts).await.unwrap();
                }
                Event::Records(records) => return records[0].payload.clone(),
                event => panic!("unexpected: {event:?}"),
            }
        }
    });
    assert_eq!(read.await.expect("in time"), "a trace");
    source.close().await;
}

/// It is told why nothing can be read, and nothing ends.
async fn is_refused(config: SourceConfig, said: &str) -> String {
    let mut source = config.open_source().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let trouble = loop {
        assert!(Instant::now() < deadline, "no trouble is told");
        if let Ok(event) = timeout(Duration::from_millis(100), source.next()).await {
            panic!("unexpected: {event:?}");
        }
        if let Some(trouble) = source.trouble() {
            break trouble;
        }
    };
    let lower = trouble.to_lowercase();
    assert!(lower.contains(&said.to_lowercase()), "{trouble}");
    source.close().await;
    trouble
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
async fn kafka_security_takes_passwords() {
    for (name, mechanism) in [
        ("plain", SaslMechanism::Plain),
        ("scram256", SaslMechanism::ScramSha256),
        ("scram512", SaslMechanism::ScramSha512),
    ] {
        passes(config(name, "sasl", tls(), Some(password(mechanism)))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
async fn kafka_security_takes_certificates() {
    let mutual = TlsConfig {
        certificate: Some(home().join("client.pem")),
        key: Some(home().join("client.key")),
        ..tls()
    };
    passes(config("mtls", "mtls", mutual.clone(), None)).await;
    let encrypted = TlsConfig {
        key: Some(home().join("client.encrypted.key")),
        key_password: Some("key-pass-2718281".into()),
        ..mutual
    };
    passes(config("encrypted", "mtls", encrypted, None)).await;
    // Without one the broker closes the connection and says no more.
    is_refused(config("none", "mtls", tls(), None), "kafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
async fn kafka_security_takes_tokens_and_new_ones_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let token = |lifetime: i64| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let now = now.as_secs() as i64;
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let claims = format!(r#"{{"sub":"tracer","iat":{now},"exp":{}}}"#, now + lifetime);
        fs::write(
            &path,
            format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims)),
        )
        .unwrap();
    };
    let sasl = SaslConfig {
        username: None,
        password_file: None,
        token_file: Some(path.clone()),
        ..password(SaslMechanism::OAuthBearer)
    };
    let config = config("token", "sasl", tls(), Some(sasl));
    // Expired: told, and over once there is a fresh one.
    token(-10);
    let trouble = is_refused(config.clone(), "expired").await;
    assert!(!trouble.contains(fs::read_to_string(&path).unwrap().trim()));
    token(600);
    passes(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
async fn kafka_security_tells_strangers_apart() {
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha512] {
        let wrong = SaslConfig {
            password: Some("not-the-password".into()),
            password_file: None,
            ..password(mechanism)
        };
        let trouble = is_refused(config("wrong", "sasl", tls(), Some(wrong)), "SASL").await;
        assert!(!trouble.contains("not-the-password"), "{trouble}");
    }
    // The broker's certificate is of nobody we trust.
    let strange = TlsConfig {
        ca: Some(home().join("stranger.pem")),
        ..TlsConfig::default()
    };
    let sasl = password(SaslMechanism::Plain);
    is_refused(
        config("strange", "sasl", strange, Some(sasl)),
        "certificate",
    )
    .await;
}

/// Of a topic that may be described but not read, of one that may not even be described,
/// and of the group; each until it is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka with TLS: tests/run kafka-security"]
async fn kafka_security_says_what_acls_deny() {
    let sasl = password(SaslMechanism::ScramSha512);
    let config = config("acl", "sasl", tls(), Some(sasl));
    let topic = config.write_topic();
    let writer = config.open_writer().unwrap();
    let write = async || {
        let deadline = Instant::now() + DEADLINE;
        // The producer remembers for a while that it was denied.
        while let Err(error) = writer.append(&topic, Message::new("a trace")).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    write().await;
    let mut source = config.open_source().unwrap();
    let mut read = 0;
    until(&mut source, &mut read, |read, said| {
        read == 1 && said.is_none()
    })
    .await;

    let denies_topic = format!("kafka denies the topic {topic}");
    for operations in [&[READ][..], &[READ, DESCRIBE]] {
        for operation in operations {
            acl(TOPIC, topic.as_str(), "User:tracer", *operation, DENY);
        }
        // Whoever is on a list is on none of the others.
        acl(TOPIC, topic.as_str(), "User:*", ALL, ALLOW);
        until(&mut source, &mut read, |_, said| {
            said.is_some_and(|said| said.starts_with(&denies_topic))
        })
        .await;
        no_acl(TOPIC, topic.as_str());
        write().await;
        let so_far = read;
        until(&mut source, &mut read, |read, said| {
            read > so_far && said.is_none()
        })
        .await;
    }

    // The group has the topic's name.
    acl(GROUP, topic.as_str(), "User:tracer", READ, DENY);
    source.close().await;
    let mut source = config.open_source().unwrap();
    until(&mut source, &mut read, |_, said| {
        said.is_some_and(|said| said.contains("kafka denies the group"))
    })
    .await;
    no_acl(GROUP, topic.as_str());
    read = 0;
    until(&mut source, &mut read, |read, said| {
        read == 3 && said.is_none()
    })
    .await;

    // A member of the group, all of whose results are known to it, with nothing to read.
    let partition = PartitionId::new(topic.clone(), 0);
    source.commit(&[(partition, Offset(3))]);
    acl(GROUP, topic.as_str(), "User:tracer", READ, DENY);
    until(&mut source, &mut read, |_, said| {
        said.is_some_and(|said| said.contains("kafka denies the group"))
    })
    .await;
    no_acl(GROUP, topic.as_str());
    until(&mut source, &mut read, |_, said| said.is_none()).await;
    assert_eq!(read, 3, "there was nothing to read");
    source.close().await;
}

/// Reads on until so many records have come, and such a trouble is told.
async fn until(
    source: &mut Box<dyn Source>,
    read: &mut usize,
    enough: impl Fn(usize, Option<&str>) -> bool,
) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let trouble = source.trouble();
        if enough(*read, trouble.as_deref()) {
            return;
        }
        assert!(Instant::now() < deadline, "{read} records, {trouble:?}");
        match timeout(Duration::from_millis(100), source.next()).await {
            Err(_) => {}
            Ok(Ok(Event::Assigned(partitions))) => {
                let starts: Vec<_> = partitions
                    .into_iter()
                    .map(|partition| (partition, Start::Beginning))
                    .collect();
                source.assign(&starts).await.unwrap();
            }
            Ok(Ok(Event::Revoked(partitions))) => source.release(&partitions).await.unwrap(),
            Ok(Ok(Event::Records(records))) => *read += records.len(),
            Ok(event) => panic!("unexpected: {event:?}"),
        }
    }
}
