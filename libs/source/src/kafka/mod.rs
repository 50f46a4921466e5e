//! Kafka as a log.

mod access;
mod context;
mod inspect;
mod oauth;
mod probe;
mod properties;
mod scan;
mod source;
mod state;
mod watch;
mod writer;

pub use inspect::KafkaInspector;
pub use probe::{KafkaProbe, Permission, TopicState, Trouble, TroubleKind};
pub(crate) use properties::check;
pub use properties::client;
pub(crate) use scan::scan;
pub use source::KafkaSource;
pub use writer::KafkaWriter;
