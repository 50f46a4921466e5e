//! Kafka: that it can be reached, has the topics, and allows what is asked of it.

use std::{sync::Arc, time::Duration};

use tracer_source::{
    KafkaConfig, KafkaProbe, PartitionId, Permission, TopicName, TopicState, Trouble, TroubleKind,
};

use super::finding::{Finding, Report, whole};
use crate::{config::Config, host::Roles};

/// Of more topics the first so many are looked at.
const MOST_TOPICS: usize = 50;

const UNREACHED: &str = "look at source.brokers, and whether a firewall lets this machine reach every broker at its advertised address";

/// Why a topic is looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    read: bool,
    /// Why it is written to, if it is.
    write: Option<&'static str>,
}

/// Tries what these services ask of a cluster.
pub(super) async fn examine(
    report: &mut Report,
    kafka: &KafkaConfig,
    config: &Config,
    roles: Roles,
    limit: Duration,
) {
    let check = "kafka: reached";
    let probe = match KafkaProbe::open(kafka) {
        Ok(probe) => Arc::new(probe),
        Err(error) => {
            let remedy = "correct the keys of [source]; see operating/kafka.md";
            report.add(Finding::failed(check, whole(&error), remedy));
            return;
        }
    };
    let reached = blocking(report, check, limit, &probe, move |probe| {
        probe.reach(limit)
    })
    .await;
    match reached {
        Some(Ok(brokers)) => {
            let found = format!("{brokers} brokers by {}", kafka.brokers);
            report.add(Finding::ok(check, found));
        }
        Some(Err(trouble)) => {
            let (found, remedy) = in_plain_words(&trouble, kafka);
            report.add(Finding::failed(check, found, remedy));
            report.not_tried("kafka: topics and access lists, since no broker answers");
            return;
        }
        None => return,
    }
    let topics = topics(config, kafka, roles);
    if !kafka.patterns.is_empty() {
        report.not_tried(
            "kafka: which topics the patterns of source.topics fit, and whether they may be read",
        );
    }
    if topics.len() > MOST_TOPICS {
        report.not_tried(format!("kafka: {} more topics", topics.len() - MOST_TOPICS));
    }
    let mut committed = false;
    for (topic, uses) in topics.into_iter().take(MOST_TOPICS) {
        if !there(report, &probe, &topic, uses, limit).await {
            continue;
        }
        if uses.read {
            may_read(report, &probe, &topic, limit).await;
        }
        if uses.read && !committed {
            committed = true;
            may_commit(report, &probe, kafka, &topic, limit).await;
        }
        if let Some(why) = uses.write {
            may_write(report, &probe, &topic, why, limit).await;
        }
    }
    if roles.aggregator && !committed {
        report.not_tried(format!(
            "kafka: whether the group {} may be used: there is no topic to tell it a position of",
            kafka.group
        ));
    }
    report
        .not_tried("kafka: joining the group, which would move partitions of running aggregators");
}

/// The topics that are named, and what for.
fn topics(config: &Config, kafka: &KafkaConfig, roles: Roles) -> Vec<(TopicName, Uses)> {
    let mut topics: Vec<(TopicName, Uses)> = Vec::new();
    let mut at = |topic: &TopicName| {
        let known = topics.iter().position(|(name, _)| name == topic);
        known.unwrap_or_else(|| {
            topics.push((topic.clone(), Uses::default()));
            topics.len() - 1
        })
    };
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    if roles.aggregator {
        reads.extend(kafka.topics.iter().map(&mut at));
        let dead = config.aggregator.dead_letter_topic.as_ref();
        writes.extend(dead.map(|dead| (at(dead), "dead letters")));
    }
    if roles.inference {
        writes.push((at(&config.source.write_topic()), "Record"));
    }
    for place in reads {
        topics[place].1.read = true;
    }
    for (place, why) in writes {
        topics[place].1.write = Some(why);
    }
    topics
}

/// Runs what blocks, up to somewhat more than its own limit.
async fn blocking<T: Send + 'static>(
    report: &mut Report,
    check: &str,
    limit: Duration,
    probe: &Arc<KafkaProbe>,
    run: impl FnOnce(&KafkaProbe) -> T + Send + 'static,
) -> Option<T> {
    let probe = Arc::clone(probe);
    let task = tokio::task::spawn_blocking(move || run(&probe));
    let outer = limit + Duration::from_secs(6);
    match report.within(check, outer, UNREACHED, task).await? {
        Ok(done) => Some(done),
        Err(error) => {
            report.add(Finding::failed(
                check,
                whole(&error),
                "report this as a fault of Tracer",
            ));
            None
        }
    }
}

async fn there(
    report: &mut Report,
    probe: &Arc<KafkaProbe>,
    topic: &TopicName,
    uses: Uses,
    limit: Duration,
) -> bool {
    let check = format!("kafka: topic {topic}");
    let asked = topic.clone();
    let state = blocking(report, &check, limit, probe, move |probe| {
        probe.topic(&asked, limit)
    });
    let finding = match state.await {
        None => return false,
        Some(Err(error)) => Finding::failed(&check, whole(&error), UNREACHED),
        Some(Ok(TopicState::Missing)) => {
            let partitions = if uses.read { 3 } else { 1 };
            let remedy = format!(
                "make it: kafka-topics.sh --bootstrap-server BROKER --create --topic {topic} --partitions {partitions} --replication-factor 3; or correct its name in the configuration"
            );
            Finding::failed(&check, "there is no such topic", remedy)
        }
        Some(Ok(TopicState::Denied)) => {
            let remedy = format!(
                "allow this user DESCRIBE, and {} on the topic {topic}: kafka-acls.sh --add",
                operations(uses)
            );
            Finding::failed(&check, "access lists do not let us see it", remedy)
        }
        Some(Ok(TopicState::There {
            partitions,
            leaderless,
            replicas,
        })) => {
            let found = format!("{partitions} partitions, {replicas} replicas");
            let finding = if leaderless.is_empty() {
                Finding::ok(&check, found)
            } else {
                let found = format!("{found}; no leader for partitions {leaderless:?}");
                let remedy = "bring the brokers back that have these partitions";
                Finding::failed(&check, found, remedy)
            };
            report.add(finding);
            return true;
        }
    };
    report.add(finding);
    false
}

fn operations(uses: Uses) -> &'static str {
    match (uses.read, uses.write) {
        (true, Some(_)) => "READ and WRITE",
        (true, None) => "READ",
        (false, _) => "WRITE",
    }
}

async fn may_read(
    report: &mut Report,
    probe: &Arc<KafkaProbe>,
    topic: &TopicName,
    limit: Duration,
) {
    let check = format!("kafka: read {topic}");
    let partition = PartitionId::new(topic.clone(), 0);
    let asked = blocking(report, &check, limit, probe, move |probe| {
        probe.may_read(&partition)
    });
    let permission = match asked.await {
        None => return,
        Some(Ok(permission)) => permission,
        Some(Err(error)) => Permission::Unknown(whole(&error)),
    };
    let remedy =
        format!("allow this user READ on the topic {topic}: kafka-acls.sh --add --consumer");
    report.add(judged(
        &check,
        permission,
        "records may be fetched",
        &remedy,
    ));
}

async fn may_commit(
    report: &mut Report,
    probe: &Arc<KafkaProbe>,
    kafka: &KafkaConfig,
    topic: &TopicName,
    limit: Duration,
) {
    let group = &kafka.group;
    let check = format!("kafka: group {group}");
    let asked = topic.clone();
    let asked = blocking(report, &check, limit, probe, move |probe| {
        probe.may_commit(&asked)
    });
    if let Some(permission) = asked.await {
        let remedy = format!(
            "allow this user READ on the group {group} and on its topics: kafka-acls.sh --add --consumer --group {group}"
        );
        let good = "positions may be committed (one of no partition was sent)";
        report.add(judged(&check, permission, good, &remedy));
    }
}

async fn may_write(
    report: &mut Report,
    probe: &Arc<KafkaProbe>,
    topic: &TopicName,
    why: &str,
    limit: Duration,
) {
    let check = format!("kafka: write {topic} ({why})");
    let asked = report
        .within(&check, limit * 2, UNREACHED, probe.may_write(topic, limit))
        .await;
    let permission = match asked {
        None => return,
        Some(Ok(permission)) => permission,
        Some(Err(error)) => Permission::Unknown(whole(&error)),
    };
    let remedy =
        format!("allow this user WRITE on the topic {topic}: kafka-acls.sh --add --producer");
    let good = "records may be written (one that is refused was sent)";
    report.add(judged(&check, permission, good, &remedy));
}

fn judged(check: &str, permission: Permission, good: &str, remedy: &str) -> Finding {
    match permission {
        Permission::Allowed => Finding::ok(check, good),
        Permission::TopicDenied => Finding::failed(check, "access lists deny the topic", remedy),
        Permission::GroupDenied => Finding::failed(check, "access lists deny the group", remedy),
        Permission::Taken => Finding::warning(
            check,
            "records may be written; this broker wrote the empty one that was to be refused",
            "an aggregator that reads this topic rejects it as no trace, once",
        ),
        Permission::Unknown(said) => {
            let remedy = format!("try again with a longer --timeout-ms; {remedy}");
            Finding::warning(check, format!("nobody says: {said}"), remedy)
        }
    }
}

/// What librdkafka says of connections, and what it means.
fn in_plain_words(trouble: &Trouble, kafka: &KafkaConfig) -> (String, String) {
    let said = trouble.said.join("; ");
    // The reasons of TLS are written with underscores.
    let lower = said.to_lowercase().replace('_', " ");
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (plain, remedy) = if has(&[
        "unsupported sasl mechanism",
        "mechanism handshake failed",
        "not enabled",
    ]) {
        (
            "the broker does not take this way of logging in",
            "set source.sasl.mechanism to one that the listener has enabled (sasl.enabled.mechanisms of the broker)",
        )
    } else if has(&["token"]) && trouble.kind == TroubleKind::Login {
        (
            "there is no token that the broker takes",
            "look at source.sasl.token_file: it must hold a JSON Web Token that has not expired",
        )
    } else if trouble.kind == TroubleKind::Login
        || has(&["authentication fail", "invalid credentials"])
    {
        (
            "the broker refuses the login: the user or the secret is wrong",
            "correct source.sasl.username and the password (its file, or TRACER__SOURCE__SASL__PASSWORD)",
        )
    } else if has(&[
        "hostname mismatch",
        "host name mismatch",
        "ip address mismatch",
    ]) {
        (
            "the broker's certificate is for another host",
            "name the broker in source.brokers as its certificate does, or have one issued for its advertised host",
        )
    } else if has(&[
        "certificate has expired",
        "certificate expired",
        "not yet valid",
    ]) {
        (
            "a certificate has expired, or is not valid yet",
            "renew the certificate that is named; look at this machine's clock",
        )
    } else if has(&[
        "certificate required",
        "bad certificate",
        "handshake failure",
        "unknown ca",
    ]) && !has(&["verify"])
    {
        (
            "the broker does not take this client's certificate, or asks for one",
            "set source.tls.certificate and source.tls.key to one that the broker's authorities have signed",
        )
    } else if has(&[
        "certificate verify",
        "verify failed",
        "unable to get",
        "self-signed",
        "self signed",
    ]) {
        (
            "the broker's certificate is not signed by an authority that is trusted here, has expired, or is for another host",
            "set source.tls.ca to the file with the certificate of the broker's authority, and name the broker in source.brokers as its certificate does",
        )
    } else if has(&[
        "wrong version number",
        "plaintext listener",
        "plaintext broker",
        "packet length too long",
        "bad record",
    ]) {
        (
            "the broker does not speak TLS at this address",
            "name the address of the TLS listener in source.brokers, or take source.tls away",
        )
    } else if trouble.kind == TroubleKind::Tls {
        (
            "TLS fails",
            "look at source.tls, and at the broker's listener",
        )
    } else if has(&["failed to resolve"]) {
        (
            "a broker's host name is not known here",
            "correct source.brokers, or the DNS; brokers must advertise names that this machine knows (advertised.listeners)",
        )
    } else if has(&["connection refused"]) {
        ("nothing listens at the broker's address", UNREACHED)
    } else if has(&[
        "apiversion",
        "disconnected",
        "connection closed",
        "closed by peer",
    ]) {
        (
            "the broker closes the connection without a word, as one does that expects TLS or a login, or another kind of it",
            "set source.tls or source.sasl as the listener wants it; for mTLS also source.tls.certificate and key",
        )
    } else {
        (
            "no broker answers",
            "look at source.brokers, and whether a firewall lets this machine reach every broker at its advertised address; a listener that expects TLS, a certificate or a login (source.tls, source.tls.certificate, source.sasl) looks the same where it closes the connection without a word",
        )
    };
    let security = kafka.security.protocol();
    let security = security.map_or_else(
        || "plaintext".to_owned(),
        |p| format!("{p:?}").to_lowercase(),
    );
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    };
    let brokers = &kafka.brokers;
    (
        format!("{brokers}, {security}: {plain}{said}"),
        remedy.to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_in_plain_words() {
        let kafka = KafkaConfig::default();
        for (kind, said, remedy) in [
            (
                TroubleKind::Login,
                "SASL authentication error: Authentication failed",
                "source.sasl.username",
            ),
            (
                TroubleKind::Login,
                "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism",
                "source.sasl.mechanism",
            ),
            (
                TroubleKind::Tls,
                "SSL handshake failed: certificate verify failed: broker certificate could not be verified",
                "source.tls.ca",
            ),
            (
                TroubleKind::Tls,
                "SSL handshake failed: TLSV13_ALERT_CERTIFICATE_REQUIRED certificate required",
                "source.tls.certificate",
            ),
            (
                TroubleKind::Tls,
                "SSL handshake failed: WRONG_VERSION_NUMBER wrong version number",
                "TLS listener",
            ),
            (
                TroubleKind::Connection,
                "Failed to resolve 'kafka:9092': Name or service not known",
                "DNS",
            ),
            (
                TroubleKind::Connection,
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                "firewall",
            ),
            (
                TroubleKind::Connection,
                "Disconnected while requesting ApiVersion",
                "source.sasl",
            ),
            (TroubleKind::Connection, "", "source.brokers"),
        ] {
            let trouble = Trouble {
                kind,
                said: vec![said.to_owned()],
            };
            let (_, told) = in_plain_words(&trouble, &kafka);
            assert!(told.contains(remedy), "{said}: {told}");
        }
    }

    #[test]
    fn each_service_has_its_topics() {
        let toml = r#"{"source": {"kind": "kafka", "topics": ["a", "b"], "write_topic": "b"}}"#;
        let config: Config = serde_json::from_str(toml).unwrap();
        let tracer_source::SourceConfig::Kafka(kafka) = &config.source else {
            panic!("not kafka");
        };
        let of = |roles| {
            let topics = topics(&config, kafka, roles);
            let all = topics
                .into_iter()
                .map(|(name, uses)| format!("{name} {} {}", uses.read, uses.write.is_some()));
            all.collect::<Vec<_>>()
        };
        assert_eq!(
            of(Roles::AGGREGATOR),
            [
                "a true false",
                "b true false",
                "traces.dead-letters false true"
            ]
        );
        assert_eq!(of(Roles::INFERENCE), ["b false true"]);
        assert_eq!(
            of(Roles::ALL),
            [
                "a true false",
                "b true true",
                "traces.dead-letters false true"
            ]
        );
        assert!(of(Roles::TRAINER).is_empty());
    }
}
