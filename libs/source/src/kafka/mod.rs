//! Kafka as a log.

mod access;
mod context;
mod inspect;
mod oauth;
mod properties;
mod scan;
mod source;
mod state;
mod watch;
mod writer;

pub use inspect::KafkaInspector;
pub(crate) use properties::check;
pub use properties::client;
pub(crate) use scan::scan;
pub use source::KafkaSource;
pub use writer::KafkaWriter;
