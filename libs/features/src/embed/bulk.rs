//! Many texts at once, for refits, files and batches of requests.
//!
//! A text that an embedder refuses for good has no embedding, and keeps no other from
//! having one: where a part is refused it is halved, until the text is found.

use std::time::Duration;

use super::{EmbedError, Embedder};

/// How often a busy embedder is asked again, and how long is waited in between. Others
/// may keep it busy: requests that are served go before a refit.
const PATIENCE: (u32, Duration) = (600, Duration::from_millis(100));

/// So many texts may be refused, however few there are.
const FEW: usize = 16;

/// After so many refusals and no vector it is not the texts that are wrong.
const HOPELESS: usize = 256;

/// The vectors of some texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedded {
    /// One a text, in their order; `None` for one that was refused.
    pub vectors: Vec<Option<Vec<f32>>>,
    /// Texts that were refused.
    pub refused: usize,
    /// What was said of the first of them.
    pub refusal: Option<EmbedError>,
}

impl Embedded {
    fn refuse(&mut self, count: usize, error: EmbedError) {
        self.vectors.resize(self.vectors.len() + count, None);
        self.refused += count;
        self.refusal.get_or_insert(error);
    }
}

/// Embeds the texts of a request, in order.
///
/// Once `most_refused` texts are refused, a part that is refused is not halved any more:
/// texts that are made to be refused must not cost more than that. Errs, as a whole, where
/// the error is not of the texts.
pub async fn embed_each(
    embedder: &dyn Embedder,
    texts: &[&str],
    most_refused: usize,
) -> Result<Embedded, EmbedError> {
    let mut embedded = Embedded::default();
    halve(embedder, texts, most_refused, 0, &mut embedded).await?;
    Ok(embedded)
}

/// Embeds a list of texts, in order, a part at a time. `progress` is told how many are
/// done.
///
/// Errs where the error is not of the texts, and with the first refusal where more texts
/// are refused than embedded: then something is wrong with the embedder, and a refit must
/// not do without embeddings. A few may be, however few the others are.
///
/// The vectors of a text are made anew each time: whoever embeds the same texts again
/// and again keeps them.
pub async fn embed_all(
    embedder: &dyn Embedder,
    texts: &[&str],
    mut progress: impl FnMut(usize) + Send,
) -> Result<Embedded, EmbedError> {
    let mut embedded = Embedded::default();
    for part in texts.chunks(embedder.bulk_size().max(1)) {
        halve(embedder, part, usize::MAX, PATIENCE.0, &mut embedded).await?;
        progress(embedded.vectors.len());
        if embedded.refused >= HOPELESS && embedded.refused == embedded.vectors.len() {
            break;
        }
    }
    let made = embedded.vectors.len() - embedded.refused;
    match embedded.refusal {
        Some(error) if embedded.refused > made.max(FEW) => Err(error),
        _ => Ok(embedded),
    }
}

/// Embeds some texts, and those that are refused apart.
async fn halve(
    embedder: &dyn Embedder,
    texts: &[&str],
    most_refused: usize,
    patience: u32,
    embedded: &mut Embedded,
) -> Result<(), EmbedError> {
    // The next part is the last.
    let mut parts = vec![texts];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match ask(embedder, part, patience).await {
            Ok(vectors) => embedded.vectors.extend(vectors.into_iter().map(Some)),
            Err(error) if !error.is_of_texts() => return Err(error),
            Err(error) if part.len() == 1 || embedded.refused >= most_refused => {
                embedded.refuse(part.len(), error);
            }
            Err(_) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(())
}

/// Asks about some texts, and again while the embedder is busy.
async fn ask(
    embedder: &dyn Embedder,
    texts: &[&str],
    mut patience: u32,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    loop {
        let owned = texts.iter().map(|text| (*text).to_owned()).collect();
        match embedder.embed(owned).await {
            Err(EmbedError::Busy) if patience > 0 => {
                patience -= 1;
                tokio::time::sleep(PATIENCE.1).await;
            }
            Ok(vectors) if vectors.len() != texts.len() => {
                let detail = format!("{} vectors for {} texts", vectors.len(), texts.len());
                return Err(EmbedError::BadAnswer { detail });
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::embed::Identity;

    /// A text becomes its length. "bad…" is refused, "down" ends all.
    #[derive(Debug)]
    struct Fake {
        identity: Identity,
        asked: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Embedder for Fake {
        fn identity(&self) -> &Identity {
            &self.identity
        }

        async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
            self.asked.lock().unwrap().push(texts.len());
            if texts.iter().any(|text| text == "down") {
                let detail = "down".to_owned();
                return Err(EmbedError::Model { detail });
            }
            if let Some(bad) = texts.iter().find(|text| text.starts_with("bad")) {
                let detail = bad.clone();
                return Err(EmbedError::Refused { detail });
            }
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }

        fn bulk_size(&self) -> usize {
            4
        }
    }

    fn fake() -> Fake {
        Fake {
            identity: Identity::named("fake", 1),
            asked: Mutex::default(),
        }
    }

    fn lengths(embedded: &Embedded) -> Vec<Option<f32>> {
        let first = |vector: &Vec<f32>| vector[0];
        let vectors = embedded.vectors.iter();
        vectors.map(|vector| vector.as_ref().map(first)).collect()
    }

    #[tokio::test]
    async fn a_text_that_is_refused_is_found_and_the_others_are_embedded() {
        let fake = fake();
        let texts = ["a", "bb", "bad", "dddd", "eeeee"];
        let mut done = Vec::new();
        let all = embed_all(&fake, &texts, |so_far| done.push(so_far)).await;
        let all = all.unwrap();
        let expected = [Some(1.0), Some(2.0), None, Some(4.0), Some(5.0)];
        assert_eq!((lengths(&all), all.refused), (expected.to_vec(), 1));
        assert!(matches!(all.refusal, Some(EmbedError::Refused { .. })));
        assert_eq!(*fake.asked.lock().unwrap(), [4, 2, 2, 1, 1, 1]);
        assert_eq!(done, [4, 5]);
        let each = embed_each(&fake, &texts, 8).await.unwrap();
        assert_eq!(each, all);
        assert_eq!(
            embed_all(&fake, &[], |_| {}).await.unwrap(),
            Embedded::default()
        );
    }

    #[tokio::test]
    async fn what_is_not_the_texts_fault_is_an_error() {
        let fake = fake();
        for error in [
            embed_all(&fake, &["a", "bad", "down"], |_| {}).await,
            embed_each(&fake, &["a", "bad", "down"], 8).await,
        ] {
            assert!(matches!(error, Err(EmbedError::Model { .. })), "{error:?}");
        }
        // A few may all be refused, the most of many not.
        let few = embed_all(&fake, &["bad"; FEW], |_| {}).await.unwrap();
        assert_eq!(few.refused, FEW);
        let mut many = vec!["bad"; FEW + 2];
        many.extend(["a"; FEW + 1]);
        let error = embed_all(&fake, &many, |_| {}).await;
        assert!(
            matches!(error, Err(EmbedError::Refused { .. })),
            "{error:?}"
        );
        many.push("a");
        assert!(embed_all(&fake, &many, |_| {}).await.is_ok());
    }

    #[tokio::test]
    async fn refusals_cost_no_more_than_is_allowed() {
        let fake = fake();
        let texts = ["bad"; 1_024];
        let each = embed_each(&fake, &texts, 2).await.unwrap();
        assert_eq!((each.refused, each.vectors.len()), (1_024, 1_024));
        // Down to the first two, then a part for each halving on the way.
        assert_eq!(fake.asked.lock().unwrap().len(), 11 + 1 + 9);
        fake.asked.lock().unwrap().clear();
        assert!(embed_all(&fake, &texts, |_| {}).await.is_err());
        assert_eq!(fake.asked.lock().unwrap().len(), HOPELESS / 4 * 7);
    }
}
