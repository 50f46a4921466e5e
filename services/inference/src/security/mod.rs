//! Who may talk to the server, and how what is said is kept private.
//!
//! TLS ends here, with certificates from files; with `client_ca` clients show
//! certificates too. Bearer tokens, of which a file holds the SHA-256 hashes, say what a
//! caller may do and for which tasks. All files are read again when they change:
//! connections that are open stay open, new ones see the new certificate, and the next
//! request sees the new tokens.
//!
//! Invariants:
//! - Whatever of this is not configured costs a request nothing; what is takes no lock.
//! - A file that cannot be used stops the start. Later it leaves what was read before in
//!   place, and says so in the log and in a metric.
//! - No message, log line or metric holds a token, a key, or a part of one.

mod auth;
mod config;
mod files;
mod tls;
mod tokens;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracer_telemetry::{Metrics, metric};

pub(crate) use self::{
    auth::Auth,
    tls::{Tls, incoming},
};
pub use self::{
    auth::Denied,
    config::{SecurityConfig, SecurityError},
    tokens::Scope,
};
use self::{files::Watched, tokens::Tokens};
use crate::metrics::ServiceMetrics;

/// TLS and tokens as they are configured; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Security {
    tls: Option<Arc<Tls>>,
    tokens: Option<Arc<Tokens>>,
    reload_interval: Duration,
}

impl Security {
    /// Reads and checks every file that is configured.
    pub fn open(config: &SecurityConfig) -> Result<Self, SecurityError> {
        config.check()?;
        let tls = (!config.tls_cert.is_empty())
            .then(|| Tls::open(config))
            .transpose()?;
        let tokens = (!config.tokens.is_empty())
            .then(|| Tokens::open(&config.tokens))
            .transpose()?;
        Ok(Self {
            tls: tls.map(Arc::new),
            tokens: tokens.map(Arc::new),
            reload_interval: Duration::from_millis(config.reload_interval_ms),
        })
    }

    /// Whether connections are private.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether callers need a token.
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether whoever sent this `authorization` header may change a task, or, without a
    /// task, all of them: for endpoints of operators. Without tokens everybody may who
    /// reaches the port.
    pub fn admin(&self, authorization: Option<&str>, task: Option<&str>) -> Result<(), Denied> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        let caller = auth::authenticate(tokens, authorization)?;
        auth::permit(&caller, Scope::Admin, task)
    }

    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    pub(crate) fn auth(&self, metrics: Arc<ServiceMetrics>) -> Auth {
        Auth::new(self.tokens.clone(), metrics)
    }

    /// Reads files again when they change, until `shutdown`.
    pub(crate) async fn watch(self, metrics: Metrics, shutdown: CancellationToken) {
        let failures = metrics.counter(&metric::SECURITY_RELOAD_FAILURES_TOTAL, &[]);
        let mut watched: Vec<Watched> = Vec::new();
        if let Some(tls) = self.tls {
            let files = tls.files();
            watched.push(Watched::new("certificates", files, move |contents| {
                tls.replace(contents)
            }));
        }
        if let Some(tokens) = self.tokens {
            let files = vec![tokens.file().to_owned()];
            watched.push(Watched::new("tokens", files, move |contents| {
                tokens.replace(contents)
            }));
        }
        if watched.is_empty() {
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.reload_interval) => {}
            }
            for watched in &mut watched {
                if !watched.look().await {
                    failures.increment(1);
                }
            }
        }
    }
}
