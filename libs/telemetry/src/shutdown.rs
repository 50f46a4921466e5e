//! Shutdown by signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT.
///
/// The handlers are in place when this returns, so no signal is lost. Must be
/// called inside a tokio runtime.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    for (kind, name) in [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
    ] {
        let mut stream = match signal(kind) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, signal = name, "cannot handle a signal");
                continue;
            }
        };
        let token = token.clone();
        tokio::spawn(async move {
            if stream.recv().await.is_some() && !token.is_cancelled() {
                tracing::info!(signal = name, "shutting down");
                token.cancel();
            }
        });
    }
    token
}
