//! Who asks, and whether they may.

use std::sync::Arc;

use tonic::{Code, Extensions, Request, Status, metadata::MetadataMap, service::Interceptor};

use super::tokens::{Entry, Scope, Tokens, hash};
use crate::{
    metrics::{Rejection, ServiceMetrics},
    status,
};

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 4_096;

/// Longest name of a task that a message repeats.
const LONGEST_TASK: usize = 128;

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("a token is needed: send the metadata `authorization: Bearer TOKEN`")]
    Missing,
    /// There is one that nobody has given out, or that has been withdrawn.
    #[error("the bearer token is not known")]
    Unknown,
    /// The token does not allow this.
    #[error("the token of {name:?} does not have the scope {scope}")]
    Scope {
        /// Whose token it is.
        name: String,
        /// What it lacks.
        scope: Scope,
    },
    /// The token is for other tasks.
    #[error("the token of {name:?} is not for {task}")]
    Task {
        /// Whose token it is.
        name: String,
        /// What it was used for.
        task: String,
    },
}

impl Denied {
    /// Whether it is not known who asks.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Missing | Self::Unknown)
    }

    /// The word under which it is counted.
    fn rejection(&self) -> Rejection {
        if self.is_unauthenticated() {
            Rejection::Unauthenticated
        } else {
            Rejection::PermissionDenied
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let code = if denied.is_unauthenticated() {
            Code::Unauthenticated
        } else {
            Code::PermissionDenied
        };
        status::refusal(code, denied.rejection(), denied.to_string())
    }
}

/// Whose token an `authorization` header holds.
pub(super) fn authenticate(
    tokens: &Tokens,
    authorization: Option<&str>,
) -> Result<Arc<Entry>, Denied> {
    let (kind, token) = authorization
        .and_then(|value| value.split_once(' '))
        .ok_or(Denied::Missing)?;
    let token = token.trim();
    if !kind.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Denied::Missing);
    }
    if token.len() > LONGEST {
        return Err(Denied::Unknown);
    }
    tokens.find(&hash(token)).ok_or(Denied::Unknown)
}

/// Whether a token allows something for a task, or for all of them.
pub(super) fn permit(entry: &Entry, scope: Scope, task: Option<&str>) -> Result<(), Denied> {
    if !entry.has(scope) {
        return Err(Denied::Scope {
            name: entry.name.to_string(),
            scope,
        });
    }
    permit_task(entry, task)
}

fn permit_task(entry: &Entry, task: Option<&str>) -> Result<(), Denied> {
    if task.map_or_else(|| entry.is_for_all(), |task| entry.is_for(name(task))) {
        return Ok(());
    }
    Err(Denied::Task {
        name: entry.name.to_string(),
        task: match task.map(name) {
            None => "all tasks".to_owned(),
            Some(task) if task.len() <= LONGEST_TASK => format!("task {task:?}"),
            Some(_) => "this task".to_owned(),
        },
    })
}

/// The empty name is the default task's.
fn name(task: &str) -> &str {
    if task.is_empty() { "default" } else { task }
}

/// The caller of a request, put there by [`Authenticate`].
#[derive(Clone, Debug)]
struct Caller(Arc<Entry>);

/// Decides what callers may do. Without tokens everybody may do everything.
#[derive(Clone)]
pub(crate) struct Auth {
    on: Option<Arc<On>>,
}

struct On {
    tokens: Arc<Tokens>,
    metrics: Arc<ServiceMetrics>,
}

impl On {
    fn refuse(&self, denied: Denied) -> Status {
        self.metrics.reject(denied.rejection());
        denied.into()
    }
}

/// Whose requests these are, for as long as a stream lasts.
pub(crate) struct Permit {
    on: Option<(Arc<On>, Arc<Entry>)>,
}

impl Auth {
    pub(super) fn new(tokens: Option<Arc<Tokens>>, metrics: Arc<ServiceMetrics>) -> Self {
        Self {
            on: tokens.map(|tokens| Arc::new(On { tokens, metrics })),
        }
    }

    /// What asks every request who it is, before its body is read; `None` when nobody is
    /// to be asked.
    pub(crate) fn interceptor(&self) -> Option<Authenticate> {
        self.on.clone().map(Authenticate)
    }

    /// Whether the caller may do this for the task.
    pub(crate) fn permit(
        &self,
        extensions: &Extensions,
        scope: Scope,
        task: &str,
    ) -> Result<(), Status> {
        let Some(on) = &self.on else {
            return Ok(());
        };
        let caller = caller(extensions).map_err(|denied| on.refuse(denied))?;
        permit(&caller.0, scope, Some(task)).map_err(|denied| on.refuse(denied))
    }

    /// What the caller may see of the pipelines: to route and to administer both need that.
    pub(crate) fn sight(&self, extensions: &Extensions) -> Result<Sight, Status> {
        let Some(on) = &self.on else {
            return Ok(Sight { on: None });
        };
        let caller = caller(extensions).map_err(|denied| on.refuse(denied))?;
        if !caller.0.has(Scope::Route) && !caller.0.has(Scope::Admin) {
            return Err(on.refuse(Denied::Scope {
                name: caller.0.name.to_string(),
                scope: Scope::Route,
            }));
        }
        Ok(Sight {
            on: Some((Arc::clone(on), Arc::clone(&caller.0))),
        })
    }

    /// The caller of a stream, to be asked again for each of its requests.
    pub(crate) fn stream(&self, extensions: &Extensions) -> Result<Permit, Status> {
        let Some(on) = &self.on else {
            return Ok(Permit { on: None });
        };
        let caller = caller(extensions).map_err(|denied| on.refuse(denied))?;
        Ok(Permit {
            on: Some((Arc::clone(on), Arc::clone(&caller.0))),
        })
    }
}

/// The tasks whose pipelines a caller may see.
pub(crate) struct Sight {
    on: Option<(Arc<On>, Arc<Entry>)>,
}

impl Sight {
    pub(crate) fn has(&self, task: &str) -> bool {
        self.on
            .as_ref()
            .is_none_or(|(_, caller)| caller.is_for(name(task)))
    }

    pub(crate) fn permit(&self, task: &str) -> Result<(), Status> {
        match &self.on {
            None => Ok(()),
            Some((on, caller)) => {
                permit_task(caller, Some(task)).map_err(|denied| on.refuse(denied))
            }
        }
    }
}

impl Permit {
    /// Whether the caller may still do this for the task: tokens may be withdrawn while
    /// a stream lasts.
    pub(crate) fn permit(&self, scope: Scope, task: &str) -> Result<(), Status> {
        let Some((on, caller)) = &self.on else {
            return Ok(());
        };
        let permitted = match on.tokens.find(&caller.digest) {
            Some(entry) => permit(&entry, scope, Some(task)),
            None => Err(Denied::Unknown),
        };
        permitted.map_err(|denied| on.refuse(denied))
    }
}

fn caller(extensions: &Extensions) -> Result<&Caller, Denied> {
    extensions.get::<Caller>().ok_or(Denied::Missing)
}

/// Asks who a request is from. It runs before the body is read.
#[derive(Clone)]
pub(crate) struct Authenticate(Arc<On>);

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let entry = authenticate(&self.0.tokens, authorization(request.metadata()));
        let entry = entry.map_err(|denied| self.0.refuse(denied))?;
        request.extensions_mut().insert(Caller(entry));
        Ok(request)
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let hex = |token: &str| {
            let digest = hash(token);
            let digits = digest.iter().map(|byte| format!("{byte:02x}"));
            digits.collect::<Vec<_>>().concat()
        };
        let text = format!(
            "shop {} route default,support\nops {} admin *\n",
            hex("one"),
            hex("two")
        );
        std::fs::write(&file, text).unwrap();
        let tokens = Tokens::open(file.to_str().unwrap()).unwrap();
        (directory, tokens)
    }

    #[test]
    fn a_header_is_a_known_token_or_refused() {
        let (_directory, tokens) = tokens();
        let name = |header: Option<&str>| {
            authenticate(&tokens, header).map(|entry| entry.name.to_string())
        };
        assert_eq!(name(Some("Bearer one")), Ok("shop".to_owned()));
        assert_eq!(name(Some("bearer  two ")), Ok("ops".to_owned()));
        for missing in [
            None,
            Some(""),
            Some("one"),
            Some("Basic one"),
            Some("Bearer "),
        ] {
            assert_eq!(name(missing), Err(Denied::Missing));
        }
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        for unknown in ["Bearer three", "Bearer one two", &long] {
            let denied = name(Some(unknown)).unwrap_err();
            assert_eq!(denied, Denied::Unknown);
            assert!(!denied.to_string().contains("three"));
        }
    }

    #[test]
    fn scope_and_task_must_both_be_right() {
        let (_directory, tokens) = tokens();
        let shop = tokens.find(&hash("one")).unwrap();
        let ops = tokens.find(&hash("two")).unwrap();
        for task in ["support", "default", ""] {
            assert_eq!(permit(&shop, Scope::Route, Some(task)), Ok(()));
        }
        let denied = permit(&shop, Scope::Record, Some("support")).unwrap_err();
        assert_eq!(
            denied.to_string(),
            r#"the token of "shop" does not have the scope record"#
        );
        let denied = permit(&shop, Scope::Route, Some("mail")).unwrap_err();
        assert_eq!(
            denied.to_string(),
            r#"the token of "shop" is not for task "mail""#
        );
        let long = "x".repeat(1 << 20);
        let denied = permit(&shop, Scope::Route, Some(&long)).unwrap_err();
        assert_eq!(
            denied.to_string(),
            r#"the token of "shop" is not for this task"#
        );
        assert!(permit(&shop, Scope::Route, None).is_err());
        assert_eq!(permit(&ops, Scope::Admin, None), Ok(()));
        assert!(permit(&ops, Scope::Route, Some("mail")).is_err());
    }
}
