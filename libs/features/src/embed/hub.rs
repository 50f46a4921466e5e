//! Files of a model on a hub, over HTTP: `GET HUB/ORG/NAME/resolve/REVISION/FILE`.
//!
//! Large files come from elsewhere: the hub redirects to them. The token goes to the hub
//! alone. Nothing is kept on disk: replicas that must start while the hub is away have
//! the model in a directory or in the store.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, StatusCode, Url, header, redirect};

use super::{
    EmbedderConfig, ModelFiles, OpenError,
    files::{is_plain, too_large},
    http::{client, token},
};

/// How long the hub may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// The wait before a file is asked for again; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How often it is.
const RETRIES: u32 = 3;

/// A model on a hub.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    /// `HUB/ORG/NAME/resolve/REVISION/`
    base: Url,
    /// `hub:ORG/NAME@REVISION`, for messages.
    name: String,
    authorization: Option<header::HeaderValue>,
}

/// `ORG/NAME`, or `ORG/NAME@REVISION`.
fn parts(model: &str) -> Option<(&str, &str)> {
    let (repository, revision) = model.split_once('@').unwrap_or((model, "main"));
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    let good =
        repository.split('/').count() <= 2 && repository.split('/').all(plain) && plain(revision);
    good.then_some((repository, revision))
}

/// Where the files of `model` are on the configured hub.
pub(super) fn base(config: &EmbedderConfig, model: &str) -> Result<Url, OpenError> {
    let (repository, revision) = parts(model).ok_or_else(|| {
        OpenError::setting(
            "model",
            "after hub: an ORG/NAME, or ORG/NAME@REVISION, is needed",
        )
    })?;
    if config.hub.is_empty() {
        return Err(OpenError::setting(
            "hub",
            "the address of the hub is needed",
        ));
    }
    let hub = config.hub.trim_end_matches('/');
    let url = Url::parse(&format!("{hub}/{repository}/resolve/{revision}/"));
    match url {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(OpenError::setting(
                "hub",
                "it must not hold credentials: use token_file or token_env",
            ))
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => Ok(url),
        _ => Err(OpenError::setting(
            "hub",
            "it must begin with http:// or https:// and name a host",
        )),
    }
}

/// The address of a file. `None` for a name that leads elsewhere: whoever made the model
/// would else choose who is asked, and who gets the token.
fn below(base: &Url, name: &str) -> Option<Url> {
    let url = base.join(name).ok().filter(|_| is_plain(name))?;
    let same = url.origin() == base.origin()
        && url.path().starts_with(base.path())
        && url.query().is_none()
        && url.fragment().is_none();
    same.then_some(url)
}

impl Hub {
    /// A model by `ORG/NAME`, or `ORG/NAME@REVISION`, on the configured hub. Nothing is
    /// asked of it yet.
    pub async fn open(config: &EmbedderConfig, model: &str) -> Result<Self, OpenError> {
        let base = base(config, model)?;
        // A file that was asked for in private comes in private.
        let private = base.scheme() == "https";
        let follow = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                attempt.error("too many redirects")
            } else if private && attempt.url().scheme() != "https" {
                attempt.error("a redirect away from https")
            } else {
                attempt.follow()
            }
        });
        let builder = client().read_timeout(SILENCE).redirect(follow);
        let client = builder
            .build()
            .map_err(|error| OpenError::setting("hub", error.to_string()))?;
        Ok(Self {
            client,
            base,
            name: format!("hub:{model}"),
            authorization: token(config).await?,
        })
    }

    /// Asks once.
    async fn ask(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError> {
        let unreadable = |detail: String| OpenError::Unreadable {
            file: self.place(name),
            detail,
        };
        let url = below(&self.base, name)
            .ok_or_else(|| OpenError::file(self.place(name), "no name of a file of a model"))?;
        let mut request = self.client.get(url);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        // Addresses of files may be signed: messages do not hold them.
        let sent = request.send().await;
        let mut response = sent.map_err(|error| unreadable(error.without_url().to_string()))?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status if is_for_now(status) => return Err(unreadable(format!("status {status}"))),
            status => {
                let problem = format!("the hub does not give it out: status {status}");
                return Err(OpenError::file(self.place(name), problem));
            }
        }
        let declared = response.content_length().unwrap_or(0);
        if declared > most {
            return Err(too_large(self, name, most));
        }
        let mut body = Vec::new();
        let broken = |error: reqwest::Error| unreadable(error.without_url().to_string());
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if (body.len() + chunk.len()) as u64 > most {
                return Err(too_large(self, name, most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}

fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

#[async_trait]
impl ModelFiles for Hub {
    async fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError> {
        let mut wait = FIRST_WAIT;
        let mut left = RETRIES;
        loop {
            match self.ask(name, most).await {
                Err(error) if error.is_transient() && left > 0 => {
                    tracing::debug!(%error, left, "asking the hub again");
                    left -= 1;
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                answer => return answer,
            }
        }
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hub: &str, model: &str) -> Result<String, String> {
        let config = EmbedderConfig {
            hub: hub.to_owned(),
            ..EmbedderConfig::default()
        };
        let url = base(&config, model);
        url.map(|url| url.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_is_a_name_and_maybe_a_revision() {
        let hub = "https://hub.example/mirror/";
        assert_eq!(
            at(hub, "org/bge-small-en-v1.5").unwrap(),
            "https://hub.example/mirror/org/bge-small-en-v1.5/resolve/main/"
        );
        assert_eq!(
            at("http://hub", "model@4f2a").unwrap(),
            "http://hub/model/resolve/4f2a/"
        );
        for model in [
            "", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a b", "a/b?x", "a//b",
        ] {
            assert!(
                at(hub, model).unwrap_err().starts_with("model: "),
                "{model}"
            );
        }
        for hub in ["", "hub", "ftp://hub", "http://me:secret@hub"] {
            let error = at(hub, "a/b").unwrap_err();
            assert!(
                error.starts_with("hub: ") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
