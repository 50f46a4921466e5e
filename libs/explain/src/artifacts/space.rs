//! Where the held-out rows lie: in the space of their embeddings, where they have some,
//! else in that of their n-grams.

use tracer_features::{HashedText, Hasher, Lexicon, LexiconConfig, SparseRow};

use super::held_out::HeldOut;

/// Rows that have a place, at the most; of more, an even sample has.
const MOST_ROWS: usize = 20_000;

/// Places of unit length.
pub(crate) struct Space<'a> {
    places: Places<'a>,
    /// Length of a dense place.
    width: usize,
}

enum Places<'a> {
    /// The embedding and the inverse of its length.
    Dense(Vec<Option<(&'a [f32], f32)>>),
    Lexical(Vec<Option<SparseRow>>),
}

impl<'a> Space<'a> {
    pub(crate) fn of(held: &HeldOut<'a>, lexicon: &LexiconConfig) -> Self {
        let step = held.rows.len().div_ceil(MOST_ROWS).max(1);
        let rows = || held.rows.iter().enumerate();
        let embedding = |row: usize| {
            let embedding = held.data.embedding(row)?;
            let length = dot(embedding, embedding).sqrt();
            (length.is_normal()).then_some((embedding, length.recip()))
        };
        let embedded = rows().filter(|(_, seen)| held.data.embedding(seen.row).is_some());
        if embedded.count() * 2 >= held.rows.len().max(1) {
            let places = rows().map(|(i, seen)| {
                let embedding = (i % step == 0).then(|| embedding(seen.row));
                embedding.flatten()
            });
            return Self {
                places: Places::Dense(places.collect()),
                width: held.data.dimension().unwrap_or(0),
            };
        }
        let hasher = Hasher::new(lexicon);
        let hashed: Vec<Option<HashedText>> = rows()
            .map(|(i, seen)| {
                if i % step != 0 {
                    return None;
                }
                let withheld = held.data.withheld(seen.row).map(|kept| kept.hashed.clone());
                withheld.or_else(|| held.text(seen).map(|text| hasher.hash(text)))
            })
            .collect();
        // What one row alone has says nothing of its nearness to others.
        let config = LexiconConfig {
            min_texts: 2,
            ..lexicon.clone()
        };
        let lexicon = Lexicon::fit(&config, hashed.iter().flatten());
        let places = hashed.iter().map(|hashed| {
            let mut row = SparseRow::default();
            lexicon.weigh(hashed.as_ref()?, &mut row);
            (!row.columns.is_empty()).then_some(row)
        });
        Self {
            places: Places::Lexical(places.collect()),
            width: lexicon.len(),
        }
    }

    /// Whether rows lie where their embeddings are.
    pub(crate) fn is_dense(&self) -> bool {
        matches!(self.places, Places::Dense(_))
    }

    /// Multiplications that one comparison costs, about.
    pub(crate) fn cost(&self) -> usize {
        match &self.places {
            Places::Dense(_) => self.width.max(1),
            Places::Lexical(_) => 256,
        }
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        match &self.places {
            Places::Dense(places) => places[i].is_some(),
            Places::Lexical(places) => places[i].is_some(),
        }
    }

    /// A vector to compare rows with: the mean of some of them. Of one, that one.
    pub(crate) fn centre(&self, members: &[usize], out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.width, 0.0);
        match &self.places {
            Places::Dense(places) => {
                for &(embedding, scale) in members.iter().filter_map(|&i| places[i].as_ref()) {
                    for (o, x) in out.iter_mut().zip(embedding) {
                        *o += scale * x;
                    }
                }
            }
            Places::Lexical(places) => {
                for row in members.iter().filter_map(|&i| places[i].as_ref()) {
                    for (&column, x) in row.columns.iter().zip(&row.values) {
                        out[column as usize] += x;
                    }
                }
            }
        }
        let length = dot(out, out).sqrt();
        if length.is_normal() {
            for x in out {
                *x /= length;
            }
        }
    }

    /// The cosine of the angle between a row and a vector of unit length.
    fn nearness(&self, i: usize, centre: &[f32]) -> Option<f32> {
        match &self.places {
            Places::Dense(places) => {
                let (embedding, scale) = places[i]?;
                Some(dot(embedding, centre) * scale)
            }
            Places::Lexical(places) => {
                let row = places[i].as_ref()?;
                let terms = row.columns.iter().zip(&row.values);
                Some(terms.map(|(&column, x)| centre[column as usize] * x).sum())
            }
        }
    }

    /// The row of `among` that is nearest to a vector of unit length, and the cosine;
    /// of equals the first.
    pub(crate) fn nearest(
        &self,
        centre: &[f32],
        among: impl IntoIterator<Item = usize>,
    ) -> Option<(usize, f32)> {
        let mut best: Option<(usize, f32)> = None;
        for i in among {
            let Some(nearness) = self.nearness(i, centre) else {
                continue;
            };
            if best.is_none_or(|(_, most)| nearness > most) {
                best = Some((i, nearness));
            }
        }
        best
    }
}

/// Eight sums at a time, so that the compiler makes vector code of it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (blocks_a, blocks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = blocks_a.remainder().iter().zip(blocks_b.remainder());
    let rest: f32 = rest.map(|(x, y)| x * y).sum();
    for (x, y) in blocks_a.zip(blocks_b) {
        for k in 0..8 {
            sums[k] += x[k] * y[k];
        }
    }
    sums.iter().sum::<f32>() + rest
}
