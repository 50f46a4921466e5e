//! What an operator sees of a service: its log, its metrics, its health, and
//! how it is told to stop.
//!
//! Nothing here is global except the log. [`Metrics`] and [`Health`] are handed
//! to every part that reports through them, so two services in one process, or
//! two tests, never see each other's numbers.

mod health;
mod http;
mod logging;
pub mod metric;
mod metrics;
mod otlp;
mod shutdown;
mod trace_context;

pub use health::{Condition, Health};
pub use http::{http_router, serve_http, serve_http_with};
pub use logging::{LogFormat, LoggingError, UnknownLogFormat, check_filter, init_logging};
pub use metric::{Kind, MetricDef};
pub use metrics::Metrics;
pub use otlp::{ExportError, Exporter, OpenSpan, SpanConfig, Spans, proto as otlp_proto};
pub use shutdown::shutdown_on_signal;
pub use trace_context::TraceContext;
