//! Properties of the clients: ours, the user's, and those that nobody changes.

use rdkafka::{ClientConfig, config::FromClientConfig, error::KafkaError};

use crate::{
    KafkaConfig, SourceError, TopicName, TopicPattern,
    security::{self, HIDDEN},
};

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
    "group.instance.id",
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

/// A client of any kind that reaches the cluster as the configuration says: addresses,
/// security, and what is set further, with these properties besides. Everything else is
/// librdkafka's default. No error shows a secret.
pub fn client<T: FromClientConfig>(
    config: &KafkaConfig,
    properties: &[(&str, &str)],
) -> Result<T, SourceError> {
    let mut client = ClientConfig::new();
    let only_one_end = [CONSUMER_ONLY, PRODUCER_ONLY].concat();
    apply(&mut client, config, &only_one_end)?;
    for (name, value) in properties {
        client.set(*name, *value);
    }
    client.create().map_err(refused("create a client"))
}

/// Whether clients of both ends can be made, as far as that is known without making one:
/// librdkafka takes every property, and every file that is named can be read.
pub(crate) fn check(config: &KafkaConfig) -> Result<(), SourceError> {
    for client in [consumer(config)?, producer(config)?] {
        let taken = client.create_native_config();
        taken.map_err(refused("set a property"))?;
    }
    let Some(tls) = &config.security.tls else {
        return Ok(());
    };
    for (key, file) in [
        ("tls.ca", &tls.ca),
        ("tls.certificate", &tls.certificate),
        ("tls.key", &tls.key),
    ] {
        if let Some(file) = file
            && let Err(error) = std::fs::File::open(file)
        {
            return Err(SourceError::Config(format!(
                "{key}: cannot read {}: {error}",
                file.display()
            )));
        }
    }
    Ok(())
}

pub(super) fn consumer(config: &KafkaConfig) -> Result<ClientConfig, SourceError> {
    let mut client = ClientConfig::new();
    client
        .set("partition.assignment.strategy", strategy(config))
        // A member with a name of its own may be away for as long without its partitions
        // being given to others.
        .set(
            "session.timeout.ms",
            if config.instance_id.is_some() {
                "45000"
            } else {
                "15000"
            },
        )
        // The watermarks behind the lag come with the statistics.
        .set("statistics.interval.ms", "1000")
        // How soon a partition that is added is found: librdkafka's own default is
        // five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // Read-ahead of all partitions together, in KiB: memory is bounded here ...
        .set("queued.max.messages.kbytes", "32768")
        // ... and here, where one answer of each broker may be on its way beside it. A
        // single larger batch is sent all the same.
        .set("fetch.max.bytes", "4194304")
        .set("max.partition.fetch.bytes", "1048576")
        // With a queue that is short for what it holds, the default of a second would
        // leave it empty most of the time.
        .set("fetch.queue.backoff.ms", "20")
        .set("check.crcs", "true");
    apply(&mut client, config, PRODUCER_ONLY)?;
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that is not there is an error: anything else skips silently.
        .set("auto.offset.reset", "error");
    if let Some(id) = &config.instance_id {
        client.set("group.instance.id", id);
    }
    if !config.patterns.is_empty() {
        // A topic that a pattern fits is read, unless it does not exist for the client.
        let excluded = config.exclude.iter().map(|topic| {
            let escaped = topic.as_str().replace('.', "\\.");
            format!("^{escaped}$")
        });
        let own = std::iter::once("^__".to_owned());
        let all: Vec<_> = own.chain(excluded).collect();
        client.set("topic.blacklist", all.join(","));
    }
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
    if config.instance_id.is_some() {
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
                "properties: {name:?} cannot be changed here"
            )));
        }
        if !foreign.iter().any(|prefix| name.starts_with(prefix)) {
            client.set(name, value);
        }
    }
    for (name, value) in config.security.properties()? {
        client.set(name, value);
    }
    Ok(())
}

/// The topics and patterns to subscribe to.
pub(super) fn subscription(config: &KafkaConfig) -> Vec<&str> {
    let names = config.topics.iter().map(TopicName::as_str);
    let patterns = config.patterns.iter().map(TopicPattern::as_str);
    names.chain(patterns).collect()
}

/// An error of creating a client, without the value of a property that is a secret.
pub(super) fn refused(action: &'static str) -> impl Fn(KafkaError) -> SourceError {
    move |error| {
        let source = match error {
            KafkaError::ClientConfig(result, description, property, _)
                if security::is_secret(&property) =>
            {
                // The description repeats the value.
                let said = description.split(':').next().unwrap_or_default();
                KafkaError::ClientConfig(result, said.to_owned(), property, HIDDEN.to_owned())
            }
            error => error,
        };
        SourceError::Kafka { action, source }
    }
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
    fn no_client_tells_a_secret() {
        // There is no such property, and the error of one quotes its value.
        let config = with("sasl.passwords", "hunter2");
        let error = client::<rdkafka::consumer::BaseConsumer>(&config, &[("group.id", "g")])
            .map(|_| ())
            .unwrap_err();
        let mut said = format!("{error:?} {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            said += &error.to_string();
            source = error.source();
        }
        assert!(
            said.contains("sasl.passwords") && !said.contains("hunter2"),
            "{said}"
        );
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
        let named = KafkaConfig {
            instance_id: Some("one".to_owned()),
            ..KafkaConfig::default()
        };
        assert_eq!(strategy(&named), "roundrobin");
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
