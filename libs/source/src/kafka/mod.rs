//! Kafka as a log.

mod context;
mod properties;
mod scan;
mod source;
mod writer;

pub(crate) use scan::scan;
pub use source::KafkaSource;
pub use writer::KafkaWriter;
