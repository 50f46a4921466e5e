//! What librdkafka tells from inside a poll, handed on to the source.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio::sync::mpsc;

use super::{oauth::TokenFile, state::Shared};
use crate::{Offset, PartitionId, TopicName};

/// A change of the assignment, to be answered by the source.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<PartitionId>),
    Revoked(Vec<PartitionId>),
}

pub(super) struct Context {
    pub(super) rebalances: mpsc::UnboundedSender<Rebalanced>,
    pub(super) shared: Shared,
    pub(super) token: Option<TokenFile>,
    /// Nobody answers any more: whatever is revoked is let go at once.
    pub(super) closing: Arc<AtomicBool>,
}

/// Writes a line of librdkafka's log into ours.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        _ => tracing::debug!(facility, "{message}"),
    }
}

/// Says what is wrong with the connection; true when it is who we are, or who they are.
fn complain(error: &KafkaError, reason: &str) -> bool {
    let refused = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    );
    if refused {
        tracing::error!(
            reason,
            "kafka refuses the connection: see tls and sasl of [source]"
        );
    } else {
        tracing::warn!(%error, reason, "kafka");
    }
    refused
}

fn token(file: Option<&TokenFile>) -> Result<OAuthToken, Box<dyn Error>> {
    let token = file.ok_or("no token file is configured")?.read();
    if let Err(error) = &token {
        tracing::error!(%error, "kafka: no token to log in with");
    }
    token
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let refused = complain(&error, reason);
        let mut known = self.shared.lock();
        known.deny(&error);
        if refused {
            known.refused = Some(reason.to_owned());
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = token(self.token.as_ref());
        if let Err(error) = &token {
            self.shared.lock().refused = Some(error.to_string());
        }
        token
    }

    fn stats(&self, statistics: Statistics) {
        self.shared.lock().learn(&statistics);
    }
}

/// The context of a client that nothing is learned from.
#[derive(Clone)]
pub(super) struct Plain {
    pub(super) token: Option<TokenFile>,
}

impl ClientContext for Plain {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token(self.token.as_ref())
    }
}

impl ConsumerContext for Plain {}

impl ConsumerContext for Context {
    /// Hands the change on and returns. librdkafka waits for the answer, which is
    /// an assign or unassign from outside, while it keeps the membership alive: the
    /// consumer has the time to list its results, or to flush.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            let released = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
                _ => consumer.unassign(),
            };
            if let Err(error) = released {
                tracing::warn!(%error, "cannot release partitions on close");
            }
            return;
        }
        let partitions = partitions(list);
        let change = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.shared.lock().group_allowed();
            Rebalanced::Assigned(partitions)
        } else {
            if consumer.assignment_lost() {
                tracing::warn!("the group gave our partitions away before we let go");
            }
            Rebalanced::Revoked(partitions)
        };
        // The receiver lives as long as the source, and the source polls.
        let _ = self.rebalances.send(change);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // The watch sends it again.
            tracing::debug!(%error, "the commit hint was not taken");
            self.shared.lock().deny(&error);
            return;
        }
        let mut known = self.shared.lock();
        known.group_allowed();
        for element in offsets.elements() {
            if let (Ok(()), Ok(topic), rdkafka::Offset::Offset(offset)) = (
                element.error(),
                TopicName::new(element.topic()),
                element.offset(),
            ) {
                let partition = PartitionId::new(topic, element.partition());
                if known.partitions.contains(&partition) {
                    known.committed.insert(partition, Offset(offset as u64));
                }
            }
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements()
        .iter()
        .filter_map(|element| {
            let topic = TopicName::new(element.topic()).ok()?;
            Some(PartitionId::new(topic, element.partition()))
        })
        .collect()
}
