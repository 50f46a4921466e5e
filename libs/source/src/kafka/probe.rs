//! What a cluster says to questions that change nothing.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{MetadataPartition, MetadataTopic},
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaRespErr,
    util::Timeout,
};
use tokio_util::sync::CancellationToken;

use super::{access::Access, oauth::TokenFile, properties};
use crate::{KafkaConfig, PartitionId, SourceError, TopicName};

/// A partition that no topic has: its number is above any that Kafka gives.
const NO_PARTITION: i32 = i32::MAX - 1;

/// A number of acknowledgements that brokers refuse.
const NO_ACKS: &str = "2";

/// What has gone wrong with connections, in librdkafka's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Of what kind the last refusal was: TLS, a login, or neither.
    pub kind: TroubleKind,
    /// The words.
    pub said: Vec<String>,
}

/// Of what kind a trouble is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TroubleKind {
    /// No connection, or it is closed without a word.
    #[default]
    Connection,
    /// TLS.
    Tls,
    /// The login.
    Login,
}

/// What there is of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It is there.
    There {
        /// How many partitions it has.
        partitions: usize,
        /// Those without a leader.
        leaderless: Vec<i32>,
        /// Of how many replicas the partition with the fewest has.
        replicas: usize,
    },
    /// It is not.
    Missing,
    /// Access lists do not let us see it.
    Denied,
}

/// Whether something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Allowed,
    /// Access lists deny the topic.
    TopicDenied,
    /// Access lists deny the group.
    GroupDenied,
    /// The broker took it, although nothing should have been taken: there is one more
    /// record in the topic.
    Taken,
    /// Nobody says.
    Unknown(String),
}

type Said = Arc<Mutex<Trouble>>;

/// Keeps what is said, and logs nothing: it is told in the end.
struct Listening {
    token: Option<TokenFile>,
    said: Said,
}

impl Listening {
    fn note(&self, kind: Option<TroubleKind>, words: &str) {
        let mut trouble = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = kind {
            trouble.kind = kind;
        }
        if trouble.said.len() < 50 && !trouble.said.iter().any(|said| said == words) {
            trouble.said.push(words.to_owned());
        }
    }
}

impl ClientContext for Listening {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "{message}");
        // What comes before a broker is known is not always told as an error.
        if facility == "FAIL" {
            self.note(None, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let kind = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::SSL) => Some(TroubleKind::Tls),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Some(TroubleKind::Login)
            }
            // Says only that all of them are.
            Some(RDKafkaErrorCode::AllBrokersDown) => return,
            _ => None,
        };
        self.note(kind, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.token.as_ref().ok_or("no token file is configured")?;
        let token = token.read();
        if let Err(error) = &token {
            self.note(Some(TroubleKind::Login), &error.to_string());
        }
        token
    }
}

impl ConsumerContext for Listening {}

/// Asks a cluster what it is and what it allows, without leaving anything there. It blocks
/// while it waits, but for [`KafkaProbe::may_write`].
pub struct KafkaProbe {
    consumer: BaseConsumer<Listening>,
    config: KafkaConfig,
    said: Said,
}

impl KafkaProbe {
    /// Opens a client.
    pub fn open(config: &KafkaConfig) -> Result<Self, SourceError> {
        let said = Said::default();
        let context = Listening {
            token: TokenFile::of(config),
            said: said.clone(),
        };
        let config = KafkaConfig {
            // The name is that of the member that has it.
            instance_id: None,
            ..config.clone()
        };
        let consumer = properties::consumer(&config)?
            .create_with_context(context)
            .map_err(properties::refused("create the consumer"))?;
        Ok(Self {
            consumer,
            config,
            said,
        })
    }

    /// The number of brokers, once one of them has told; what was said so far when none
    /// has in time.
    pub fn reach(&self, timeout: Duration) -> Result<usize, Trouble> {
        let deadline = Instant::now() + timeout;
        loop {
            // Events wait for a poll. So a refusal is known before the time is over.
            let _ = self.consumer.poll(Duration::from_millis(100));
            let short = Duration::from_millis(500);
            // Any topic will do: the brokers come with it.
            let topic = self.config.topics.first().map(TopicName::as_str);
            match self.consumer.fetch_metadata(topic, short) {
                Ok(metadata) if !metadata.brokers().is_empty() => {
                    return Ok(metadata.brokers().len());
                }
                _ => {}
            }
            let trouble = self.trouble();
            let refused = trouble.kind != TroubleKind::Connection;
            if refused || Instant::now() > deadline {
                return Err(trouble);
            }
        }
    }

    /// What was said of connections.
    pub fn trouble(&self) -> Trouble {
        let trouble = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// What there is of a topic. It is not made by asking.
    pub fn topic(&self, topic: &TopicName, timeout: Duration) -> Result<TopicState, SourceError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic.as_str()), timeout)
            .map_err(SourceError::kafka("read the metadata"))?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str());
        Ok(found.map_or(TopicState::Missing, state))
    }

    /// How many partitions the topics that we may see have, by their names.
    pub fn topics(&self, timeout: Duration) -> Result<BTreeMap<String, usize>, SourceError> {
        let metadata = self
            .consumer
            .fetch_metadata(None, timeout)
            .map_err(SourceError::kafka("read the metadata"))?;
        let topics = metadata.topics().iter();
        Ok(topics
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect())
    }

    /// Whether records of a partition may be fetched: one is asked for at its end.
    pub fn may_read(&self, partition: &PartitionId) -> Result<Permission, SourceError> {
        let access = Access::open(&self.config)?;
        let allowed = access.is_allowed(partition, &CancellationToken::new());
        Ok(match allowed {
            Some(true) => Permission::Allowed,
            Some(false) => Permission::TopicDenied,
            None => Permission::Unknown("no broker answered in time".to_owned()),
        })
    }

    /// Whether the group may be told positions of a topic: it is told one of a partition
    /// that the topic does not have. A broker looks at the access lists of the group and of
    /// the topic first, and at the partition then.
    ///
    /// It waits for as long as the group has no coordinator.
    pub fn may_commit(&self, topic: &TopicName) -> Permission {
        let mut list = TopicPartitionList::new();
        let position = rdkafka::Offset::Offset(0);
        let sent = list
            .add_partition_offset(topic.as_str(), NO_PARTITION, position)
            .and_then(|()| self.consumer.commit(&list, CommitMode::Sync));
        match sent.as_ref().err().and_then(KafkaError::rdkafka_error_code) {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Permission::GroupDenied,
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Permission::TopicDenied,
            // What was hoped for: the lists let us through. So they do where the broker
            // asks for the membership before it looks at the partition.
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            ) => Permission::Allowed,
            Some(code) => Permission::Unknown(code.to_string()),
            None => Permission::Unknown("a position of no partition was taken".to_owned()),
        }
    }

    /// Whether records may be written to a topic: one is sent in a request that asks for a
    /// number of acknowledgements that there is not. A broker looks at the access list
    /// first, and refuses the request then.
    pub async fn may_write(
        &self,
        topic: &TopicName,
        timeout: Duration,
    ) -> Result<Permission, SourceError> {
        let context = Listening {
            token: TokenFile::of(&self.config),
            said: Said::default(),
        };
        let milliseconds = timeout.as_millis().to_string();
        let producer: FutureProducer<Listening> = properties::producer(&self.config)?
            .set("enable.idempotence", "false")
            .set("acks", NO_ACKS)
            .set("retries", "0")
            .set("linger.ms", "0")
            .set("socket.timeout.ms", &milliseconds)
            .set("message.timeout.ms", &milliseconds)
            .create_with_context(context)
            .map_err(properties::refused("create the producer"))?;
        let record = FutureRecord::<[u8], [u8]>::to(topic.as_str()).payload(b"");
        let sent = producer.send(record, Timeout::Never).await;
        Ok(match sent {
            Ok(_) => Permission::Taken,
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::InvalidRequiredAcks) => Permission::Allowed,
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Permission::TopicDenied,
                _ => Permission::Unknown(error.to_string()),
            },
        })
    }
}

fn state(topic: &MetadataTopic) -> TopicState {
    match topic.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => TopicState::Denied,
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) | None
            if !topic.partitions().is_empty() =>
        {
            let partitions = topic.partitions();
            let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
            TopicState::There {
                partitions: partitions.len(),
                leaderless: leaderless.map(MetadataPartition::id).collect(),
                replicas: partitions
                    .iter()
                    .map(|partition| partition.replicas().len())
                    .min()
                    .unwrap_or(0),
            }
        }
        _ => TopicState::Missing,
    }
}
