//! Kafka as a log.

mod context;
mod oauth;
mod properties;
mod source;
mod state;
mod watch;
mod writer;

pub use source::KafkaSource;
pub use writer::KafkaWriter;
