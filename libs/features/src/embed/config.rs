//! Which embedder a task has.

use serde::{Deserialize, Serialize};

use super::{OpenError, identity::MAX_IDENTITY_BYTES};

/// What makes a task's embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbedderKind {
    /// Nothing: embeddings are sent by the client, or there are none.
    #[default]
    None,
    /// A table of token vectors and their mean (model2vec's layout).
    Static,
    /// A BERT encoder (sentence-transformers' layout). Needs the cargo feature `bert`.
    Bert,
    /// A server.
    Http,
}

/// What a server over HTTP speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbedderApi {
    /// `POST /v1/embeddings`, as OpenAI's API and those that follow it.
    #[default]
    OpenAi,
    /// `POST /embed`, as text-embeddings-inference.
    Tei,
}

/// How the vectors of tokens become one of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The largest value of each dimension.
    Max,
}

impl Pooling {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
        }
    }
}

/// The embedder of a task. Keys of another kind than the chosen one have no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedderConfig {
    /// `none`, `static`, `bert` or `http`.
    pub kind: EmbedderKind,
    /// `static`, `bert`: a directory, `store:PATH` for a path in Tracer's store, or
    /// `hub:ORG/NAME` or `hub:ORG/NAME@REVISION` for a model of the hub.
    /// `http`: the model's name.
    pub model: String,
    /// Address of the hub.
    pub hub: String,
    /// The identity to use instead of the one that is made from the model, for a model
    /// whose vectors callers send under a name of theirs.
    pub name: String,
    /// Put before every text.
    pub prefix: Option<String>,
    /// `bert`: the prompt of the model's own configuration to put before every text.
    pub prompt: String,
    /// `bert`: instead of the model's own pooling.
    pub pooling: Option<Pooling>,
    /// Scale to unit length, or do not, whatever the model's configuration says.
    pub normalize: Option<bool>,
    /// `static`, `bert`: at most so many tokens of a text; 0 for the model's own limit.
    pub max_tokens: usize,
    /// `http`: where the server is, such as `http://127.0.0.1:8081`.
    pub url: String,
    /// `http`: `openai` or `tei`.
    pub api: EmbedderApi,
    /// `http`: values of a vector.
    pub dimension: usize,
    /// `http`, and the hub: a file with the bearer token.
    pub token_file: String,
    /// `http`, and the hub: an environment variable with the bearer token.
    pub token_env: String,
    /// `http`: milliseconds for an answer.
    pub timeout_ms: u64,
    /// `http`: how often a failed request is sent again.
    pub retries: u32,
    /// Most texts that are embedded together.
    pub max_batch: usize,
    /// `bert`: milliseconds that a text may wait for others to be embedded with.
    pub max_wait_ms: u64,
    /// Most texts that wait; further ones are refused.
    pub max_queue: usize,
    /// `bert`: milliseconds that a text may wait for its turn; after that it is refused.
    pub max_queue_ms: u64,
}

impl Default for EmbedderConfig {
    fn default() -> Self {
        Self {
            kind: EmbedderKind::None,
            model: String::new(),
            hub: String::new(),
            name: String::new(),
            prefix: None,
            prompt: String::new(),
            pooling: None,
            normalize: None,
            max_tokens: 0,
            url: String::new(),
            api: EmbedderApi::OpenAi,
            dimension: 0,
            token_file: String::new(),
            token_env: String::new(),
            timeout_ms: 5_000,
            retries: 2,
            max_batch: 32,
            max_wait_ms: 1,
            max_queue: 1_024,
            max_queue_ms: 1_000,
        }
    }
}

/// Most values of a vector.
pub(crate) const MAX_DIMENSION: usize = 8_192;

impl EmbedderConfig {
    /// The model's name on the hub, where it is to come from there.
    pub fn in_hub(&self) -> Option<&str> {
        self.model.strip_prefix("hub:")
    }

    /// Checks what types cannot, without touching a file.
    pub fn check(&self) -> Result<(), OpenError> {
        let bad = |key, problem: String| Err(OpenError::setting(key, problem));
        if self.name.len() > MAX_IDENTITY_BYTES {
            return bad("name", format!("longer than {MAX_IDENTITY_BYTES} bytes"));
        }
        match self.kind {
            EmbedderKind::None => return Ok(()),
            EmbedderKind::Static | EmbedderKind::Bert => {
                if self.model.is_empty() {
                    let expected = "a directory, or store: and a path in the store, is needed";
                    return bad("model", expected.to_owned());
                }
                if let Some(model) = self.in_hub() {
                    super::hub::base(self, model)?;
                }
            }
            EmbedderKind::Http => {
                super::http::endpoint(self)?;
                if !(1..=MAX_DIMENSION).contains(&self.dimension) {
                    let dimension = self.dimension;
                    return bad(
                        "dimension",
                        format!("is {dimension}: it must be from 1 to {MAX_DIMENSION}"),
                    );
                }
                if self.model.len() > MAX_IDENTITY_BYTES / 2 {
                    return bad("model", "the name is too long".to_owned());
                }
                if self.model.is_empty() && self.api == EmbedderApi::OpenAi {
                    return bad(
                        "model",
                        "the name of the server's model is needed".to_owned(),
                    );
                }
                // A server's address does not say which model is behind it.
                if self.model.is_empty() && self.name.is_empty() {
                    let problem = "the name of the server's model is needed, here or as `name`";
                    return bad("model", problem.to_owned());
                }
            }
        }
        if !self.token_file.is_empty() && !self.token_env.is_empty() {
            return bad("token_env", "the token is in a file already".to_owned());
        }
        if self.kind == EmbedderKind::Bert && cfg!(not(feature = "bert")) {
            let problem = "this build has no \"bert\": build with --features bert";
            return bad("kind", problem.to_owned());
        }
        for (key, value, most) in [
            ("timeout_ms", self.timeout_ms, 600_000),
            ("max_batch", self.max_batch as u64, 4_096),
            ("max_queue", self.max_queue as u64, 1_000_000),
            ("max_queue_ms", self.max_queue_ms, 600_000),
        ] {
            if !(1..=most).contains(&value) {
                return bad(key, format!("is {value}: it must be from 1 to {most}"));
            }
        }
        if self.retries > 10 {
            let retries = self.retries;
            return bad("retries", format!("is {retries}: it must be from 0 to 10"));
        }
        if self.max_wait_ms > 1_000 {
            let wait = self.max_wait_ms;
            return bad(
                "max_wait_ms",
                format!("is {wait}: it must be from 0 to 1000"),
            );
        }
        if self
            .prefix
            .as_ref()
            .is_some_and(|prefix| prefix.len() > 4_096)
        {
            return bad("prefix", "longer than 4096 bytes".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: EmbedderKind) -> EmbedderConfig {
        EmbedderConfig {
            kind,
            model: "m".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            dimension: 3,
            ..EmbedderConfig::default()
        }
    }

    type Change = fn(&mut EmbedderConfig);

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(EmbedderConfig::default().check(), Ok(()));
        assert_eq!(config(EmbedderKind::Http).check(), Ok(()));
        assert_eq!(config(EmbedderKind::Static).check(), Ok(()));
        let changes: [(&str, Change); 10] = [
            ("dimension", |c| c.dimension = 0),
            ("url", |c| c.url = "somewhere".to_owned()),
            ("url", |c| c.url = "ftp://x".to_owned()),
            ("url", |c| c.url = "http://user:secret@x".to_owned()),
            ("model", |c| c.model = String::new()),
            ("timeout_ms", |c| c.timeout_ms = 0),
            ("max_batch", |c| c.max_batch = 0),
            ("max_queue", |c| c.max_queue = 0),
            ("retries", |c| c.retries = 11),
            ("token_env", |c| {
                c.token_env = "X".to_owned();
                c.token_file = "x".to_owned();
            }),
        ];
        for (key, change) in changes {
            let mut config = config(EmbedderKind::Http);
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        // A server of one model need not be told it, but the model needs a name.
        let tei = EmbedderConfig {
            api: EmbedderApi::Tei,
            model: String::new(),
            ..config(EmbedderKind::Http)
        };
        let error = tei.check().unwrap_err().to_string();
        assert!(error.starts_with("model: "), "{error}");
        let named = EmbedderConfig {
            name: "small".to_owned(),
            ..tei
        };
        assert_eq!(named.check(), Ok(()));
        let without = EmbedderConfig {
            model: String::new(),
            ..config(EmbedderKind::Static)
        };
        assert!(
            without
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("model: ")
        );
    }
}
