//! A process of its own, because it sends itself signals.

use std::{process::Command, time::Duration};

use tracer_telemetry::shutdown_on_signal;

#[tokio::test]
async fn either_signal_cancels_the_token() {
    for signal in ["-TERM", "-INT"] {
        let token = shutdown_on_signal();
        assert!(!token.is_cancelled());
        let status = Command::new("kill")
            .args([signal, &std::process::id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        tokio::time::timeout(Duration::from_secs(10), token.cancelled())
            .await
            .unwrap_or_else(|_| panic!("{signal} did not cancel the token"));
    }
}
