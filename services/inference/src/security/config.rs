//! Configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files of certificates and tokens. An empty name switches its part off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// PEM file of the server's certificate and those between it and its authority.
    pub tls_cert: String,
    /// PEM file of the certificate's private key.
    pub tls_key: String,
    /// PEM file of the authorities that clients' certificates are signed by. With it a
    /// client without such a certificate is turned away.
    pub client_ca: String,
    /// File of the bearer tokens' hashes.
    pub tokens: String,
    /// Milliseconds between two looks at the files.
    pub reload_interval_ms: u64,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            tls_cert: String::new(),
            tls_key: String::new(),
            client_ca: String::new(),
            tokens: String::new(),
            reload_interval_ms: 5_000,
        }
    }
}

/// A setting, or a file it names, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// The setting itself.
    #[error("security.{key}: {problem}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file.
    #[error("security.{key}: {}: {problem}", file.display())]
    File {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it. Never a part of it.
        problem: String,
    },
}

impl SecurityConfig {
    /// Checks what can be checked without the files.
    pub fn check(&self) -> Result<(), SecurityError> {
        let bad = |key, problem| Err(SecurityError::Setting { key, problem });
        match (self.tls_cert.is_empty(), self.tls_key.is_empty()) {
            (false, true) => return bad("tls_key", "is needed where tls_cert is set"),
            (true, false) => return bad("tls_cert", "is needed where tls_key is set"),
            _ => {}
        }
        if self.tls_cert.is_empty() && !self.client_ca.is_empty() {
            return bad("tls_cert", "is needed where client_ca is set");
        }
        if self.reload_interval_ms == 0 {
            return bad("reload_interval_ms", "is 0: it must be at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_refused() {
        let config = |tls_cert: &str, tls_key: &str, client_ca: &str| SecurityConfig {
            tls_cert: tls_cert.to_owned(),
            tls_key: tls_key.to_owned(),
            client_ca: client_ca.to_owned(),
            ..SecurityConfig::default()
        };
        assert_eq!(config("", "", "").check(), Ok(()));
        assert_eq!(config("c", "k", "a").check(), Ok(()));
        for (config, named) in [
            (config("c", "", ""), "security.tls_key: "),
            (config("", "k", ""), "security.tls_cert: "),
            (config("", "", "a"), "security.tls_cert: "),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
