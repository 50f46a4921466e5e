//! Properties of the clients: ours, the user's, and those that nobody changes.

use rdkafka::ClientConfig;

use crate::{KafkaConfig, SourceError};

/// What the exactly-once contract rests on, and what has a key of its own.
const FIXED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "request.required.acks",
];

/// Properties that only one end knows; the other would warn of them.
const CONSUMER_ONLY: &[&str] = &[
    "check.crcs",
    "fetch.",
    "group.",
    "heartbeat.",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "queued.",
    "session.timeout.ms",
];
const PRODUCER_ONLY: &[&str] = &[
    "batch.",
    "compression.",
    "delivery.timeout.ms",
    "linger.ms",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.",
    "retries",
    "sticky.",
];

pub(super) fn consumer(config: &KafkaConfig) -> Result<ClientConfig, SourceError> {
    let mut client = ClientConfig::new();
    client
        .set("partition.assignment.strategy", strategy(config))
        .set("session.timeout.ms", "15000")
        // The watermarks behind the lag come with the statistics.
        .set("statistics.interval.ms", "1000")
        // How soon a partition that is added is found: librdkafka's own default is
        // five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // Read-ahead of all partitions together, in KiB: memory is bounded here.
        .set("queued.max.messages.kbytes", "32768")
        .set("check.crcs", "true");
    apply(&mut client, config, PRODUCER_ONLY)?;
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that is not there is an error: anything else skips silently.
        .set("auto.offset.reset", "error");
    Ok(client)
}

/// How the group shares out partitions.
///
/// Members that come and go: cooperatively, so that only what moves stops. It takes two
/// steps, first away from the one and then to the other, and whoever lets go asks for the
/// second. A member with a name of its own that ends in between comes back without any
/// step, because the brokers hand it what it had in the first: nobody would ever own the
/// partitions in the middle. So members with names share everything out in one step, which
/// stops all of them for a moment, but only when the members change and not when one
/// restarts.
fn strategy(config: &KafkaConfig) -> &'static str {
    if config.properties.contains_key("group.instance.id") {
        "roundrobin"
    } else {
        "cooperative-sticky"
    }
}

pub(super) fn producer(config: &KafkaConfig) -> Result<ClientConfig, SourceError> {
    let mut client = ClientConfig::new();
    client
        .set("linger.ms", "5")
        .set("compression.type", "zstd")
        // As the Java client places keys.
        .set("partitioner", "murmur2_random");
    apply(&mut client, config, CONSUMER_ONLY)?;
    client.set("enable.idempotence", "true").set("acks", "all");
    Ok(client)
}

fn apply(
    client: &mut ClientConfig,
    config: &KafkaConfig,
    foreign: &[&str],
) -> Result<(), SourceError> {
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "tracer");
    for (name, value) in &config.properties {
        if FIXED.contains(&name.as_str()) {
            return Err(SourceError::Config(format!(
                "properties: {name:?} cannot be changed"
            )));
        }
        if !foreign.iter().any(|prefix| name.starts_with(prefix)) {
            client.set(name, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> KafkaConfig {
        KafkaConfig {
            properties: [(name.to_owned(), value.to_owned())].into(),
            ..KafkaConfig::default()
        }
    }

    #[test]
    fn the_contract_cannot_be_configured_away() {
        for name in FIXED {
            let error = consumer(&with(name, "x")).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(producer(&with(name, "x")).is_err());
        }
    }

    #[test]
    fn members_with_names_share_out_in_one_step() {
        let strategy = |config: &KafkaConfig| {
            let client = consumer(config).unwrap();
            client
                .get("partition.assignment.strategy")
                .unwrap()
                .to_owned()
        };
        assert_eq!(strategy(&KafkaConfig::default()), "cooperative-sticky");
        assert_eq!(strategy(&with("group.instance.id", "one")), "roundrobin");
        let own = with("partition.assignment.strategy", "range");
        assert_eq!(strategy(&own), "range");
    }

    #[test]
    fn each_end_gets_its_own_properties() {
        let fetch = with("fetch.min.bytes", "2");
        assert_eq!(consumer(&fetch).unwrap().get("fetch.min.bytes"), Some("2"));
        assert_eq!(producer(&fetch).unwrap().get("fetch.min.bytes"), None);
        let both = with("security.protocol", "ssl");
        assert_eq!(
            consumer(&both).unwrap().get("security.protocol"),
            Some("ssl")
        );
        assert_eq!(
            producer(&both).unwrap().get("security.protocol"),
            Some("ssl")
        );
    }
}
