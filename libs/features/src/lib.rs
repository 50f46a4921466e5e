//! Features of an input.
//!
//! Where there is text there are always [lexical](lexical) features: hashed word
//! and character n-grams, which need no model. Dense embeddings come with the
//! trace, or are made by the task's [embedder](embed) (cargo feature `embed`).

#[cfg(feature = "embed")]
pub mod embed;
mod hashing;
pub mod lexical;
mod ngrams;
mod text;
mod withhold;

pub use lexical::{
    DamagedCounts, HashedText, Hasher, LexicalScratch, Lexicon, LexiconConfig, Novelty, SparseRow,
};
pub use ngrams::NGram;
pub use text::{normalise, stable_hash};
pub use withhold::{InputKey, Withheld, Withholder};
