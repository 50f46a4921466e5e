//! The embedder over HTTP: OpenAI's `POST /v1/embeddings` and those that follow it, and
//! text-embeddings-inference's `POST /embed`.
//!
//! Messages say the server's address and what happened. They never hold a part of the
//! request, of the answer, or the token.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url, header, redirect};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    EmbedError, Embedder, EmbedderApi, EmbedderConfig, Identity, OpenError, checked,
    identity::prefix_part, to_unit,
};

/// Time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The wait before a request is sent again; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest one, also where the server asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Bytes of a value in JSON at the most, and of what is around them.
const VALUE_BYTES: usize = 40;
const FRAME_BYTES: usize = 64 << 10;

/// The embedder.
pub(super) struct Http {
    identity: Identity,
    client: Client,
    url: Url,
    authorization: Option<header::HeaderValue>,
    api: EmbedderApi,
    model: String,
    prefix: String,
    normalize: bool,
    max_batch: usize,
    timeout: Duration,
    retries: u32,
    /// Texts that may be under way.
    queue: Semaphore,
    max_queue: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http").field(&self.identity).finish()
    }
}

/// The address that is asked: the configured one, with the path of its API unless it
/// has that already.
pub(super) fn endpoint(config: &EmbedderConfig) -> Result<Url, OpenError> {
    let bad = |problem: &str| Err(OpenError::setting("url", problem));
    let Ok(mut url) = Url::parse(&config.url) else {
        return bad("it must be an address such as http://127.0.0.1:8081");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return bad("it must begin with http:// or https:// and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("it must not hold credentials: use token_file or token_env");
    }
    let base = url.path().trim_end_matches('/').to_owned();
    let path = match config.api {
        EmbedderApi::OpenAi if base.ends_with("/embeddings") => base,
        EmbedderApi::OpenAi if base.ends_with("/v1") => base + "/embeddings",
        EmbedderApi::OpenAi => base + "/v1/embeddings",
        EmbedderApi::Tei if base.ends_with("/embed") => base,
        EmbedderApi::Tei => base + "/embed",
    };
    url.set_path(&path);
    Ok(url)
}

/// What connections are made with.
pub(super) fn client() -> ClientBuilder {
    // TLS takes the provider of the process. An error means that one is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().connect_timeout(CONNECT_TIMEOUT)
}

/// The bearer token, from a file or from the environment.
pub(super) async fn token(
    config: &EmbedderConfig,
) -> Result<Option<header::HeaderValue>, OpenError> {
    let (key, token) = if !config.token_file.is_empty() {
        let read = tokio::fs::read_to_string(&config.token_file).await;
        let file = &config.token_file;
        (
            "token_file",
            read.map_err(|error| OpenError::file(file, error))?,
        )
    } else if !config.token_env.is_empty() {
        let problem = || format!("the variable {} is not set", config.token_env);
        let token = std::env::var(&config.token_env);
        (
            "token_env",
            token.map_err(|_| OpenError::setting("token_env", problem()))?,
        )
    } else {
        return Ok(None);
    };
    let value = header::HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    match value {
        Ok(mut value) if !token.trim().is_empty() => {
            value.set_sensitive(true);
            Ok(Some(value))
        }
        _ => Err(OpenError::setting(key, "it holds no token")),
    }
}

impl Http {
    pub(super) async fn open(config: &EmbedderConfig) -> Result<Self, OpenError> {
        let url = endpoint(config)?;
        let authorization = token(config).await?;
        let client = client()
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| OpenError::setting("url", error.to_string()))?;
        let prefix = config.prefix.clone().unwrap_or_default();
        let normalize = config.normalize.unwrap_or(false);
        let identity = if config.name.is_empty() {
            let unit = normalize.then(|| "unit".to_owned());
            let rest: Vec<String> = unit.into_iter().chain(prefix_part(&prefix)).collect();
            Identity::composed("http", &config.model, config.dimension, &rest)
        } else {
            Identity::named(&config.name, config.dimension)
        };
        Ok(Self {
            identity,
            client,
            url,
            authorization,
            api: config.api,
            model: config.model.clone(),
            prefix,
            normalize,
            max_batch: config.max_batch,
            timeout: Duration::from_millis(config.timeout_ms),
            retries: config.retries,
            queue: Semaphore::new(config.max_queue),
            max_queue: config.max_queue,
        })
    }

    fn server(&self, detail: impl Into<String>) -> EmbedError {
        EmbedError::Server {
            url: self.place(),
            detail: detail.into(),
        }
    }

    fn place(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }

    /// One request, and again while that may help.
    async fn batch(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut wait = FIRST_WAIT;
        for left in (0..=self.retries).rev() {
            let timeout_ms = self.timeout.as_millis() as u64;
            let asked = tokio::time::timeout(self.timeout, self.ask(texts)).await;
            let (error, at_least) = match asked {
                Ok(Ok(vectors)) => return Ok(vectors),
                Ok(Err(Failed::ForGood(error))) => return Err(error),
                Ok(Err(Failed::ForNow(error, at_least))) => (error, at_least),
                Err(_) => {
                    let url = self.place();
                    (EmbedError::TimedOut { url, timeout_ms }, None)
                }
            };
            if left == 0 {
                return Err(error);
            }
            tracing::debug!(%error, left, "asking the embedding server again");
            tokio::time::sleep(at_least.unwrap_or(wait).clamp(wait, LONGEST_WAIT)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Err(EmbedError::Busy)
    }

    async fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failed> {
        let body = match self.api {
            EmbedderApi::OpenAi => serde_json::to_vec(&OpenAiRequest {
                model: &self.model,
                input: texts,
                encoding_format: "float",
            }),
            EmbedderApi::Tei => serde_json::to_vec(&TeiRequest {
                inputs: texts,
                truncate: true,
            }),
        };
        let body = body.map_err(|error| Failed::ForGood(self.server(error.to_string())))?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let sent = request.send().await;
        let response = sent
            .map_err(|error| Failed::ForNow(self.server(error.without_url().to_string()), None))?;
        let status = response.status();
        if !status.is_success() {
            let error = self.server(format!("status {status}"));
            let again = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                );
            return Err(if again {
                Failed::ForNow(error, retry_after(&response))
            } else if of_texts(status) {
                // As the other errors, it says where.
                let detail = error.to_string();
                Failed::ForGood(EmbedError::Refused { detail })
            } else {
                Failed::ForGood(error)
            });
        }
        let most = texts.len() * self.identity.dimension() * VALUE_BYTES + FRAME_BYTES;
        let body = self.read(response, most).await?;
        self.parse(&body, texts.len()).map_err(Failed::ForGood)
    }

    /// The whole body, unless it is longer than any right answer.
    async fn read(&self, mut response: Response, most: usize) -> Result<Vec<u8>, Failed> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= most => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    let error = EmbedError::BadAnswer {
                        detail: format!("more than {most} bytes"),
                    };
                    return Err(Failed::ForGood(error));
                }
                Ok(None) => return Ok(body),
                Err(error) => {
                    let error = self.server(error.without_url().to_string());
                    return Err(Failed::ForNow(error, None));
                }
            }
        }
    }

    fn parse(&self, body: &[u8], texts: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
        // A message of the parser may quote the answer.
        let bad = |_| EmbedError::BadAnswer {
            detail: "something that is not the JSON of its API".to_owned(),
        };
        let vectors = match self.api {
            EmbedderApi::Tei => serde_json::from_slice(body).map_err(bad)?,
            EmbedderApi::OpenAi => {
                let answer: OpenAiAnswer = serde_json::from_slice(body).map_err(bad)?;
                let mut data = answer.data;
                data.sort_by_key(|one| one.index);
                if data
                    .iter()
                    .enumerate()
                    .any(|(place, one)| one.index != place)
                {
                    let detail = "vectors whose indices are not those of the texts".to_owned();
                    return Err(EmbedError::BadAnswer { detail });
                }
                data.into_iter().map(|one| one.embedding).collect()
            }
        };
        let mut vectors = checked(vectors, texts, self.identity.dimension())?;
        if self.normalize {
            for vector in &mut vectors {
                to_unit(vector);
            }
        }
        Ok(vectors)
    }
}

/// Whether the server finds fault with what it was asked.
fn of_texts(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// The server's own wish, in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    let seconds: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether asking again may help.
enum Failed {
    ForGood(EmbedError),
    /// With the wait the server asks for.
    ForNow(EmbedError, Option<Duration>),
}

#[derive(Serialize)]
struct OpenAiRequest<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct OpenAiAnswer {
    data: Vec<OpenAiVector>,
}

#[derive(Deserialize)]
struct OpenAiVector {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Serialize)]
struct TeiRequest<'a> {
    inputs: &'a [String],
    truncate: bool,
}

#[async_trait]
impl Embedder for Http {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn embed(&self, mut texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        // A request larger than the queue may go in alone.
        let count = texts.len().min(self.max_queue);
        let _place = u32::try_from(count)
            .ok()
            .and_then(|count| self.queue.try_acquire_many(count).ok())
            .ok_or(EmbedError::Busy)?;
        if !self.prefix.is_empty() {
            for text in &mut texts {
                text.insert_str(0, &self.prefix);
            }
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.max_batch) {
            vectors.extend(self.batch(batch).await?);
        }
        Ok(vectors)
    }

    fn bulk_size(&self) -> usize {
        self.max_batch
    }
}
