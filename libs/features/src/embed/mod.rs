//! Embedders: text into dense vectors, behind one trait.
//!
//! Which one a task has is configured ([`EmbedderConfig`]): none (embeddings are sent
//! by the client), a static one (a table of token vectors, model2vec's layout), a BERT
//! encoder (sentence-transformers' layout; cargo feature `bert`), or a server over HTTP.
//!
//! Invariants:
//! - An embedder has one [`Identity`] as long as it lives, and every vector it gives
//!   has the identity's dimension and is finite. A pipeline is fitted on vectors of one
//!   identity, and vectors of another are not shown to it.
//! - No model runs on a thread of the async runtime for longer than a short text takes
//!   the static embedder.
//! - Everything that waits is bounded: what finds a queue full is refused at once.

#[cfg(any(feature = "bert", test))]
mod batch;
#[cfg(feature = "bert")]
mod bert;
mod bulk;
mod config;
mod error;
mod files;
mod http;
mod hub;
mod identity;
#[cfg(any(feature = "bert", test))]
mod layout;
mod open;
mod table;
mod tokens;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;

pub use self::{
    bulk::{Embedded, embed_all, embed_each},
    config::{EmbedderApi, EmbedderConfig, EmbedderKind, Pooling},
    error::{EmbedError, OpenError},
    files::{Directory, ModelFiles},
    hub::Hub,
    identity::Identity,
    open::open,
};

/// Turns texts into dense vectors.
#[async_trait]
pub trait Embedder: Send + Sync + fmt::Debug {
    /// What makes the vectors, and how many values they have.
    fn identity(&self) -> &Identity;

    /// The vectors of some texts, one a text, in their order: all or none.
    ///
    /// Dropping the future gives the work up where it has not begun.
    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// How many texts of a long list are best given at once.
    fn bulk_size(&self) -> usize {
        256
    }
}

/// The embedder of every task; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Embedders {
    default: Option<Arc<dyn Embedder>>,
    tasks: BTreeMap<String, Option<Arc<dyn Embedder>>>,
}

impl Embedders {
    /// `default` is for tasks without an entry; an entry may say that there is none.
    pub fn new(
        default: Option<Arc<dyn Embedder>>,
        tasks: BTreeMap<String, Option<Arc<dyn Embedder>>>,
    ) -> Self {
        Self { default, tasks }
    }

    /// The embedder of a task.
    pub fn of(&self, task: &str) -> Option<&Arc<dyn Embedder>> {
        self.tasks.get(task).unwrap_or(&self.default).as_ref()
    }
}

/// Scales a vector to unit length; one without any length stays as it is.
pub(crate) fn to_unit(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    let length = squares.sqrt();
    if length > 0.0 && length.is_finite() {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

/// Every vector has the dimension and is finite, or the answer is none.
pub(crate) fn checked(
    vectors: Vec<Vec<f32>>,
    texts: usize,
    dimension: usize,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let bad = |detail: String| Err(EmbedError::BadAnswer { detail });
    if vectors.len() != texts {
        return bad(format!("{} vectors for {texts} texts", vectors.len()));
    }
    for vector in &vectors {
        if vector.len() != dimension {
            let got = vector.len();
            return bad(format!(
                "a vector of {got} values where {dimension} are expected"
            ));
        }
        if vector.iter().any(|value| !value.is_finite()) {
            return bad("a vector with a value that is no number".to_owned());
        }
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_length() {
        let mut vector = [3.0, 4.0];
        to_unit(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        for mut odd in [[0.0, 0.0], [f32::NAN, 1.0]] {
            to_unit(&mut odd);
            assert!(odd[1] == 0.0 || odd[1] == 1.0);
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        assert!(checked(vec![vec![1.0, 2.0]], 1, 2).is_ok());
        for (vectors, texts) in [
            (vec![vec![1.0, 2.0]], 2),
            (vec![vec![1.0]], 1),
            (vec![vec![1.0, f32::INFINITY]], 1),
        ] {
            assert!(checked(vectors, texts, 2).is_err());
        }
    }

    #[test]
    fn a_task_may_have_none_where_others_have_one() {
        #[derive(Debug)]
        struct Fake(Identity);
        #[async_trait]
        impl Embedder for Fake {
            fn identity(&self) -> &Identity {
                &self.0
            }
            async fn embed(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
                Err(EmbedError::Busy)
            }
        }
        let fake: Arc<dyn Embedder> = Arc::new(Fake(Identity::named("x", 3)));
        let embedders = Embedders::new(
            Some(Arc::clone(&fake)),
            BTreeMap::from([("bare".to_owned(), None)]),
        );
        assert!(embedders.of("bare").is_none());
        assert_eq!(embedders.of("other").unwrap().identity().as_str(), "x");
        assert!(Embedders::default().of("other").is_none());
    }
}
