//! Why the service stops.

use crate::ConfigError;

/// Why the service could not start, or stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The reflection service could not be built.
    #[error("the descriptors of the gRPC services are inconsistent: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The task that follows the registry ended.
    #[error("the follower of the registry ended: {0}")]
    Follower(#[from] tokio::task::JoinError),
}
