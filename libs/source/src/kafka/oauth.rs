//! Tokens for SASL/OAUTHBEARER, from a file that somebody else keeps fresh.

use std::{error::Error, fs, path::PathBuf, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;
use serde::Deserialize;

use crate::KafkaConfig;

/// How long a token without a time of expiry is used, in milliseconds.
const DEFAULT_LIFETIME_MS: i64 = 300_000;

/// A file with one JSON Web Token, as Kubernetes or an agent of the identity provider
/// writes it. librdkafka asks for a token at first and again when four fifths of its
/// lifetime are over.
#[derive(Clone, Debug)]
pub(super) struct TokenFile(PathBuf);

/// The claims that are looked at; nothing is checked, which is the broker's part.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970.
    exp: Option<f64>,
    sub: Option<String>,
}

impl TokenFile {
    pub(super) fn of(config: &KafkaConfig) -> Option<Self> {
        config.security.sasl.as_ref()?.token_file.clone().map(Self)
    }

    /// Reads the token. No error holds anything of it.
    pub(super) fn read(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let path = self.0.display();
        let text = fs::read_to_string(&self.0).map_err(|error| format!("{path}: {error}"))?;
        let token = text.trim();
        let claims: Claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| format!("{path} holds no JSON Web Token"))?;
        let lifetime_ms = match claims.exp {
            Some(seconds) => (seconds * 1000.0) as i64,
            None => now_ms() + DEFAULT_LIFETIME_MS,
        };
        if lifetime_ms <= now_ms() {
            return Err(format!("the token in {path} has expired").into());
        }
        Ok(OAuthToken {
            token: token.to_owned(),
            principal_name: claims.sub.unwrap_or_else(|| "tracer".to_owned()),
            lifetime_ms,
        })
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.c2VjcmV0", part(r#"{"alg":"none"}"#), part(claims))
    }

    fn read(text: &str) -> Result<OAuthToken, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, text).unwrap();
        TokenFile(path).read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_tells_its_end_and_its_bearer() {
        let exp = now_ms() / 1000 + 60;
        let token = token(&format!(r#"{{"sub": "agg", "exp": {exp}}}"#));
        let read = read(&format!("{token}\n")).unwrap();
        assert_eq!((read.token, read.principal_name.as_str()), (token, "agg"));
        assert_eq!(read.lifetime_ms, exp * 1000);
    }

    #[test]
    fn what_is_none_is_refused_without_being_shown() {
        for (text, why) in [
            ("hunter2", "no JSON Web Token"),
            ("a.hunter2.c", "no JSON Web Token"),
            (&token(r#"{"exp": 12, "sub": "hunter2"}"#), "has expired"),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
