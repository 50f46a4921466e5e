//! The rows a refit learns from.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use tracer_features::{HashedText, Hasher, Withheld, normalise};

/// What a weight may be: no sum of squares over- or underflows.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// One row: what is classified and the teacher's label.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The text, where there is one.
    pub text: Option<&'a str>,
    /// The dense embedding, where there is one.
    pub embedding: Option<&'a [f32]>,
    /// The teacher's label.
    pub label: &'a str,
}

/// Rows in the order they were added. Embeddings stand in one block.
///
/// Labels that differ in case or white space alone are one label, called as it is
/// spelled most often. What [`refit`](crate::refit) makes of labels:
///
/// * One that is new since the last refit is a class from this one on, and one that no
///   row has any more is none.
/// * One with a single row is a class if the row trains. If it is in the shadow split
///   the surrogate cannot know the label, and the row counts as a disagreement wherever
///   it is handled.
/// * One that nearly all rows have is a class like others: the promise is about what is
///   handled, and a pipeline may pass that never answers a rare label.
/// * Several for one input are contradictions. Copies of an input train together or
///   certify together and share a fold, nothing predicts them, and they are deferred.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    texts: Vec<Text>,
    embeddings: Vec<f32>,
    has_embedding: Vec<bool>,
    dimension: Option<usize>,
    labels: Vec<u32>,
    /// Empty while every row weighs 1.
    weights: Vec<f64>,
    label_names: Vec<String>,
    /// By label as [`normalise`] folds it.
    label_ids: HashMap<String, u32>,
    /// By label: how often it came in each spelling.
    spellings: Vec<HashMap<String, usize>>,
    /// See [`Dataset::split_by`].
    split_by: String,
    /// See [`Dataset::drawn`].
    drawn: Option<Drawn>,
}

/// Of a dataset that is a sample.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    /// What each row stands for when it trains.
    pub(crate) weights: Vec<f64>,
    /// Rows that were not drawn.
    pub(crate) left_out: usize,
}

/// What there is of a row's text.
#[derive(Clone, Debug)]
enum Text {
    None,
    Plain(String),
    /// Its features and a hash, which tells it from others.
    Withheld(Withheld),
}

/// A row that does not fit the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// Neither text nor embedding.
    #[error("row {row} has neither text nor an embedding")]
    NoInput {
        /// Number of the row.
        row: usize,
    },
    /// Embeddings of one dataset have one dimension.
    #[error("row {row}: the embedding has {got} dimensions, those before it have {expected}")]
    WrongDimension {
        /// Number of the row.
        row: usize,
        /// Dimension of the first embedding.
        expected: usize,
        /// Dimension of this one.
        got: usize,
    },
    /// A value that is not a number, or infinite.
    #[error("row {row}: value {index} of the embedding is not finite")]
    NotFinite {
        /// Number of the row.
        row: usize,
        /// Position in the embedding.
        index: usize,
    },
    /// A weight says how many rows a row stands for.
    #[error("row {row} has the weight {weight}; expected 1e-12 to 1e12")]
    BadWeight {
        /// Number of the row.
        row: usize,
        /// Its weight, as text: errors compare.
        weight: String,
    },
    /// Labels carry the meaning; an empty one has none.
    #[error("row {row} has an empty label")]
    EmptyLabel {
        /// Number of the row.
        row: usize,
    },
}

impl Dataset {
    /// An empty dataset.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row that stands for itself alone. A row that is refused leaves the
    /// dataset as it was.
    pub fn push(&mut self, row: Row<'_>) -> Result<(), DatasetError> {
        self.push_weighted(row, 1.0)
    }

    /// Adds a row that stands for `weight` rows of the traffic. A row that is
    /// refused leaves the dataset as it was.
    pub fn push_weighted(&mut self, row: Row<'_>, weight: f64) -> Result<(), DatasetError> {
        if !WEIGHTS.contains(&weight) {
            return Err(DatasetError::BadWeight {
                row: self.len(),
                weight: weight.to_string(),
            });
        }
        let text = match row.text.filter(|text| !text.trim().is_empty()) {
            Some(text) => Text::Plain(text.to_owned()),
            None => Text::None,
        };
        self.add(text, row.embedding, row.label)?;
        self.weigh(weight);
        Ok(())
    }

    /// Adds a row whose text nobody kept: it learns as the text would, as long as its
    /// n-grams are of the refit's [`LexiconConfig`](tracer_features::LexiconConfig), and
    /// counts as a copy of no row whose text is known. A row that is refused leaves the
    /// dataset as it was.
    pub fn push_withheld(
        &mut self,
        withheld: Withheld,
        embedding: Option<&[f32]>,
        label: &str,
    ) -> Result<(), DatasetError> {
        self.add(Text::Withheld(withheld), embedding, label)?;
        self.weigh(1.0);
        Ok(())
    }

    fn weigh(&mut self, weight: f64) {
        if weight != 1.0 && self.weights.is_empty() {
            self.weights = vec![1.0; self.len() - 1];
        }
        if weight != 1.0 || !self.weights.is_empty() {
            self.weights.push(weight);
        }
    }

    fn add(
        &mut self,
        text: Text,
        embedding: Option<&[f32]>,
        label: &str,
    ) -> Result<(), DatasetError> {
        let number = self.len();
        if matches!(text, Text::None) && embedding.is_none() {
            return Err(DatasetError::NoInput { row: number });
        }
        if label.trim().is_empty() {
            return Err(DatasetError::EmptyLabel { row: number });
        }
        if let Some(embedding) = embedding {
            let expected = self.dimension.unwrap_or(embedding.len());
            if embedding.is_empty() || embedding.len() != expected {
                return Err(DatasetError::WrongDimension {
                    row: number,
                    expected,
                    got: embedding.len(),
                });
            }
            if let Some(index) = embedding.iter().position(|v| !v.is_finite()) {
                return Err(DatasetError::NotFinite { row: number, index });
            }
            if self.dimension.is_none() {
                self.dimension = Some(expected);
                // Rows before the first embedding have none: keep the block rectangular.
                self.embeddings = vec![0.0; number * expected];
            }
            self.embeddings.extend_from_slice(embedding);
        } else if let Some(dimension) = self.dimension {
            self.embeddings
                .resize(self.embeddings.len() + dimension, 0.0);
        }
        self.has_embedding.push(embedding.is_some());
        self.texts.push(text);
        let label = self.label_id(label.trim());
        self.labels.push(label);
        Ok(())
    }

    /// Labels that differ in case or white space alone are one label, called as
    /// it is spelled most often; of equals, as it was spelled first.
    fn label_id(&mut self, label: &str) -> u32 {
        let id = match self.label_ids.entry(normalise(label)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = self.label_names.len() as u32;
                self.label_names.push(label.to_owned());
                self.spellings.push(HashMap::new());
                *entry.insert(id)
            }
        };
        let spellings = &mut self.spellings[id as usize];
        let count = *spellings
            .entry(label.to_owned())
            .and_modify(|count| *count += 1)
            .or_insert(1_usize);
        let name = &mut self.label_names[id as usize];
        if name != label && count > spellings.get(name).copied().unwrap_or(0) {
            label.clone_into(name);
        }
        id
    }

    /// Names what the hashes of withheld texts were made with. Rows are split by them:
    /// a pipeline that was fitted on rows split otherwise has seen what certifies now,
    /// and no refit begins at its weights.
    pub fn split_by(&mut self, scheme: &str) {
        scheme.clone_into(&mut self.split_by);
    }

    /// What [`Dataset::split_by`] was told; empty for rows that have their texts.
    pub(crate) fn scheme(&self) -> &str {
        &self.split_by
    }

    /// Says that the rows are a sample that [`draw`](crate::draw()) has drawn, what each
    /// stands for when it trains, in their order, and how many were not drawn. A refit
    /// takes all of it then, and splits it as it would have split the whole.
    ///
    /// # Panics
    ///
    /// When there are not as many weights as rows.
    pub fn drawn(&mut self, weights: Vec<f64>, left_out: usize) {
        assert_eq!(weights.len(), self.len(), "a weight for each row");
        self.drawn = Some(Drawn { weights, left_out });
    }

    pub(crate) fn draw(&self) -> Option<&Drawn> {
        self.drawn.as_ref()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The text of a row, where it is known.
    pub fn text(&self, row: usize) -> Option<&str> {
        match &self.texts[row] {
            Text::Plain(text) => Some(text),
            Text::None | Text::Withheld(_) => None,
        }
    }

    /// What is kept of a row's text in its place.
    pub fn withheld(&self, row: usize) -> Option<&Withheld> {
        match &self.texts[row] {
            Text::Withheld(withheld) => Some(withheld),
            Text::None | Text::Plain(_) => None,
        }
    }

    /// Whether lexical features can be made of a row.
    pub fn has_lexical(&self, row: usize) -> bool {
        !matches!(self.texts[row], Text::None)
    }

    /// The n-grams of a row's text.
    pub(crate) fn hashed(&self, row: usize, hasher: &Hasher) -> Option<Cow<'_, HashedText>> {
        match &self.texts[row] {
            Text::None => None,
            Text::Plain(text) => Some(Cow::Owned(hasher.hash(text))),
            Text::Withheld(withheld) => Some(Cow::Borrowed(&withheld.hashed)),
        }
    }

    /// The embedding of a row.
    pub fn embedding(&self, row: usize) -> Option<&[f32]> {
        let dimension = self.dimension?;
        self.has_embedding[row].then(|| &self.embeddings[row * dimension..(row + 1) * dimension])
    }

    /// Dimension of the embeddings; `None` when no row has one.
    pub fn dimension(&self) -> Option<usize> {
        self.dimension
    }

    /// The label of a row, as an index into [`Dataset::label_names`].
    pub fn label(&self, row: usize) -> u32 {
        self.labels[row]
    }

    /// How many rows of the traffic a row stands for.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.get(row).copied().unwrap_or(1.0)
    }

    /// Whether any row stands for more or less than itself.
    pub fn is_weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    /// In how many spellings a label came: those that differ in case or white space alone.
    pub fn spellings(&self, label: u32) -> usize {
        self.spellings[label as usize].len()
    }

    /// The labels, in order of first appearance.
    pub fn label_names(&self) -> &[String] {
        &self.label_names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(label: &str) -> Row<'_> {
        Row {
            text: Some("a"),
            embedding: None,
            label,
        }
    }

    #[test]
    fn labels_that_differ_in_case_or_space_are_one() {
        let mut data = Dataset::new();
        for label in [
            "Card lost",
            "card  lost",
            "refund",
            "card lost",
            " card lost ",
        ] {
            data.push(labelled(label)).unwrap();
        }
        assert_eq!(data.label_names(), ["card lost", "refund"]);
        assert_eq!(
            (0..5).map(|i| data.label(i)).collect::<Vec<_>>(),
            [0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn weights_stand_beside_their_rows() {
        let mut data = Dataset::new();
        data.push(labelled("x")).unwrap();
        assert!(!data.is_weighted());
        data.push_weighted(labelled("x"), 2.5).unwrap();
        data.push(labelled("x")).unwrap();
        assert!(data.is_weighted());
        assert_eq!(
            (0..3).map(|i| data.weight(i)).collect::<Vec<_>>(),
            [1.0, 2.5, 1.0]
        );
        for bad in [0.0, -1.0, 1e-13, 1e13, f64::NAN, f64::INFINITY] {
            assert!(data.push_weighted(labelled("x"), bad).is_err());
        }
        assert_eq!(data.len(), 3);
    }

    #[test]
    fn refuses_rows_that_do_not_fit() {
        let mut data = Dataset::new();
        data.push(Row {
            text: Some("a"),
            embedding: None,
            label: "x",
        })
        .unwrap();
        data.push(Row {
            text: None,
            embedding: Some(&[1.0, 2.0]),
            label: " y ",
        })
        .unwrap();
        assert_eq!(data.embedding(0), None);
        assert_eq!(data.embedding(1), Some([1.0, 2.0].as_slice()));
        assert_eq!(data.label_names(), ["x", "y"]);

        let bad = [
            (
                Row {
                    text: Some("  "),
                    embedding: None,
                    label: "x",
                },
                DatasetError::NoInput { row: 2 },
            ),
            (
                Row {
                    text: None,
                    embedding: Some(&[1.0]),
                    label: "x",
                },
                DatasetError::WrongDimension {
                    row: 2,
                    expected: 2,
                    got: 1,
                },
            ),
            (
                Row {
                    text: None,
                    embedding: Some(&[1.0, f32::NAN]),
                    label: "x",
                },
                DatasetError::NotFinite { row: 2, index: 1 },
            ),
            (
                Row {
                    text: Some("a"),
                    embedding: None,
                    label: " ",
                },
                DatasetError::EmptyLabel { row: 2 },
            ),
        ];
        for (row, error) in bad {
            assert_eq!(data.push(row), Err(error));
        }
        assert_eq!(data.len(), 2);
    }
}
