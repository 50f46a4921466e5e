//! Kafka as a log.

mod context;
mod properties;
mod source;
mod writer;

pub use source::KafkaSource;
pub use writer::KafkaWriter;
