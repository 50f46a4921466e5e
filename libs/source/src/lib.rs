//! Ordered logs of traces, and the contract by which they are read exactly once.
//!
//! # The exactly-once contract
//!
//! A log is a set of partitions. A partition is an ordered sequence of records,
//! each at an [`Offset`] of its own; offsets grow and may have gaps. A record
//! never changes and never moves: reading a partition again from a position
//! delivers the same records at the same offsets.
//!
//! A source does not remember what has been read. Its consumer does, in the
//! place where the results are kept: every durable result of a partition carries
//! the half-open range of positions it was made from, and the position after the
//! last range is where reading resumes. Result and position become durable in one
//! step, so there is no moment at which one is there and the other is not. That
//! is all of exactly-once; the rest is keeping to the order of things:
//!
//! 1. The source says [`Event::Assigned`]. No record of these partitions flows
//!    until the consumer has answered with [`Source::assign`], whose positions it
//!    reads from its own results *after* the assignment. What the previous owner
//!    made durable before is thereby never read again.
//! 2. Records of a partition arrive in order, each once, from the position
//!    assigned. [`Record::next`] is the position after a record. A range that
//!    ends at some record's `next` covers every record before it.
//! 3. The source says [`Event::Revoked`]. The consumer makes durable what it holds,
//!    as far as its time allows, drops the rest and answers with
//!    [`Source::release`]. What was dropped is read again by the next owner.
//! 4. A consumer that was replaced without knowing it (a zombie) may still hold
//!    records of a partition that another has read. The source cannot prevent
//!    this. The results can: a range is created only where none is, so the later
//!    of the two is refused, drops what the other covers and goes on from there.
//! 5. [`Source::commit`] tells the log how far the results are durable. It is a
//!    hint for people and lag tools. Reading never resumes from it.
//! 6. When the log no longer holds the position to read from, because retention
//!    removed it or because the topic was created anew, the source says
//!    [`Event::PositionLost`] and delivers nothing of this partition until it is
//!    assigned or sought again. It never moves the position by itself.
//! 7. A position is only a number: a topic that was deleted, created anew and filled
//!    beyond it holds it as well, and librdkafka tells no topic's id. So the consumer
//!    keeps, beside the position, by which record its results end; when it resumes, and
//!    after [`Event::PositionDoubtful`], it reads that record again first and goes on
//!    only when it is the same. One case is left: a topic that is created anew *and*
//!    filled beyond the position between two fetches of a running consumer.
//!
//! A writer is the other end: [`LogWriter::append`] answers once the record is
//! durable. A writer that dies in between leaves the record in the log whole or not
//! at all; who sends it again may write it twice, as two records. Exactly-once
//! holds from the log onwards.
//!
//! Two logs keep this contract: [`KafkaSource`], for clusters, and [`SpoolSource`],
//! a directory of append-only JSONL files for one machine.

mod config;
mod error;
mod kafka;
mod scan;
mod security;
mod source;
mod spool;
mod topics;
mod writer;

pub use config::{KafkaConfig, SourceConfig, SpoolConfig};
pub use error::SourceError;
pub use kafka::{
    KafkaInspector, KafkaProbe, KafkaSource, KafkaWriter, Permission, TopicState, Trouble,
    TroubleKind, client as kafka_client,
};
pub use scan::Scanned;
pub use security::{
    KafkaSecurity, SaslConfig, SaslMechanism, Secret, Security, TlsConfig,
    is_secret as is_secret_property,
};
pub use source::{Event, ReadAhead, Record, Source, Start};
pub use spool::{SpoolSource, SpoolWriter};
pub use topics::TopicPattern;
pub use tracer_trace::position::{InvalidTopicName, Offset, OffsetRange, PartitionId, TopicName};
pub use writer::{LogWriter, Message};
