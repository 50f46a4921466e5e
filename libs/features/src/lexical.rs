//! Lexical features: hashed word 1–2-grams and character 2–5-grams, weighted by
//! sublinear tf·idf and scaled to unit length.
//!
//! Hashing and weighting are apart. [`Hasher`] turns a text into counted buckets
//! once; a [`Lexicon`] is fitted on hashed texts, keeps the buckets that enough
//! of them share, and maps a hashed text to a [`SparseRow`]. A refit hashes each
//! text once and fits a lexicon per fold from the same hashes.

use serde::{Deserialize, Serialize};

use crate::{
    hashing::{SEED, finish, update},
    text::normalise_into,
};

/// Which n-grams there are and which of them a lexicon keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LexiconConfig {
    /// Longest word n-gram.
    pub max_word_ngram: usize,
    /// Shortest character n-gram.
    pub min_char_ngram: usize,
    /// Longest character n-gram.
    pub max_char_ngram: usize,
    /// Buckets are the low bits of the hash: 2^bits of them.
    pub bucket_bits: u32,
    /// A bucket is kept when at least this many texts hold it.
    pub min_texts: u32,
    /// At most this many buckets are kept, the most frequent first.
    pub max_features: usize,
    /// Text beyond this many characters adds no features: what a route costs is bounded.
    pub max_chars: usize,
}

impl LexiconConfig {
    /// Whether what one text costs is bounded: n-grams of at most 16, of at most a
    /// million characters.
    pub fn is_bounded(&self) -> bool {
        self.max_word_ngram <= 16 && self.max_char_ngram <= 16 && self.max_chars <= 1 << 20
    }

    /// A name of how texts are cut and hashed. Counts of one scheme mean nothing in
    /// another.
    pub fn scheme(&self) -> String {
        let Self {
            max_word_ngram: words,
            min_char_ngram: shortest,
            max_char_ngram: longest,
            bucket_bits,
            max_chars,
            ..
        } = self;
        format!("v1-w{words}-c{shortest}:{longest}-b{bucket_bits}-n{max_chars}")
    }
}

impl Default for LexiconConfig {
    fn default() -> Self {
        Self {
            max_word_ngram: 2,
            min_char_ngram: 2,
            max_char_ngram: 5,
            bucket_bits: 20,
            min_texts: 2,
            max_features: 1 << 17,
            max_chars: 4096,
        }
    }
}

/// A text as counted buckets, sorted by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HashedText {
    counts: Vec<(u32, u32)>,
}

impl HashedText {
    /// The buckets and how often each occurs.
    pub fn counts(&self) -> &[(u32, u32)] {
        &self.counts
    }

    /// A text that was hashed before, under the same [`LexiconConfig::scheme`].
    pub fn from_counts(
        config: &LexiconConfig,
        counts: Vec<(u32, u32)>,
    ) -> Result<Self, DamagedCounts> {
        let buckets = || counts.iter().map(|(bucket, _)| *bucket);
        if !buckets().is_sorted_by(|a, b| a < b) {
            return Err(DamagedCounts("the buckets are not ascending"));
        }
        if buckets().any(|bucket| u64::from(bucket) >> config.bucket_bits != 0) {
            return Err(DamagedCounts("a bucket is out of range"));
        }
        if counts.iter().any(|(_, count)| *count == 0) {
            return Err(DamagedCounts("a count is 0"));
        }
        Ok(Self { counts })
    }
}

/// Stored counts that no text can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged n-gram counts: {0}")]
pub struct DamagedCounts(&'static str);

/// Turns texts into buckets.
#[derive(Clone, Debug)]
pub struct Hasher {
    config: LexiconConfig,
}

/// Kinds of n-gram hash apart, so that the word "at" and the characters "at" differ.
pub(crate) const WORD: u8 = 1;
pub(crate) const CHAR: u8 = 2;

impl Hasher {
    /// A hasher for the n-grams of `config`.
    pub fn new(config: &LexiconConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// The n-grams it makes.
    pub fn config(&self) -> &LexiconConfig {
        &self.config
    }

    /// Hashes one text.
    pub fn hash(&self, text: &str) -> HashedText {
        let mut scratch = LexicalScratch::default();
        self.hash_into(text, &mut scratch);
        scratch.hashed
    }

    /// Hashes one text into `scratch.hashed`.
    fn hash_into(&self, text: &str, scratch: &mut LexicalScratch) {
        let LexicalScratch {
            text: normalised,
            buckets,
            hashed: out,
        } = scratch;
        buckets.clear();
        out.counts.clear();
        normalise_into(text, normalised);
        // A text has at least as many bytes as characters.
        let end = if normalised.len() > self.config.max_chars {
            let mut starts = normalised.char_indices();
            starts.nth(self.config.max_chars).map(|(end, _)| end)
        } else {
            None
        };
        let text = &normalised[..end.unwrap_or(normalised.len())];
        self.words(text, buckets);
        self.chars(text, buckets);
        buckets.sort_unstable();
        for &bucket in buckets.iter() {
            match out.counts.last_mut() {
                Some((last, count)) if *last == bucket => *count += 1,
                _ => out.counts.push((bucket, 1)),
            }
        }
    }

    pub(crate) fn bucket(&self, state: u64) -> u32 {
        let mask = (1_u64 << self.config.bucket_bits) - 1;
        (finish(state) & mask) as u32
    }

    fn words(&self, text: &str, buckets: &mut Vec<u32>) {
        let mut words = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|w| !w.is_empty());
        while let Some(first) = words.next() {
            let mut state = update(SEED, WORD);
            let following = words
                .clone()
                .take(self.config.max_word_ngram.saturating_sub(1));
            for (i, word) in std::iter::once(first).chain(following).enumerate() {
                if i > 0 {
                    state = update(state, b' ');
                }
                state = word.bytes().fold(state, update);
                buckets.push(self.bucket(state));
            }
        }
    }

    /// Character n-grams within words, each word between blanks: a word's ends
    /// are features, and no n-gram spans two words, which is what word n-grams
    /// are for.
    fn chars(&self, text: &str, buckets: &mut Vec<u32>) {
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            if word.is_ascii() {
                self.ascii_chars(word.as_bytes(), buckets);
            } else {
                self.wide_chars(word, buckets);
            }
        }
    }

    fn wide_chars(&self, word: &str, buckets: &mut Vec<u32>) {
        let (shortest, longest) = (self.config.min_char_ngram, self.config.max_char_ngram);
        let mut window = std::iter::once(' ')
            .chain(word.chars())
            .chain(std::iter::once(' '));
        loop {
            let mut state = update(SEED, CHAR);
            let mut utf8 = [0; 4];
            let mut length = 0;
            for c in window.clone().take(longest) {
                state = c.encode_utf8(&mut utf8).bytes().fold(state, update);
                length += 1;
                if length >= shortest {
                    buckets.push(self.bucket(state));
                }
            }
            if length < shortest || window.next().is_none() {
                break;
            }
        }
    }

    /// The same of a word whose characters are its bytes.
    fn ascii_chars(&self, word: &[u8], buckets: &mut Vec<u32>) {
        let (shortest, longest) = (self.config.min_char_ngram, self.config.max_char_ngram);
        // The word between blanks, from `start` on.
        let padded = word.len() + 2;
        for start in 0..padded {
            let mut state = update(SEED, CHAR);
            let most = longest.min(padded - start);
            for length in 1..=most {
                let at = start + length - 1;
                let byte = match at.checked_sub(1) {
                    Some(inner) => word.get(inner).copied().unwrap_or(b' '),
                    None => b' ',
                };
                state = update(state, byte);
                if length >= shortest {
                    buckets.push(self.bucket(state));
                }
            }
            if most < shortest {
                break;
            }
        }
    }
}

/// A sparse feature row: columns ascending, values of unit Euclidean length
/// (or no entries at all).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseRow {
    /// Column indices, ascending.
    pub columns: Vec<u32>,
    /// Their values.
    pub values: Vec<f32>,
}

/// How much of a text a lexicon knows, as squared weights: [`Lexicon::novelty`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Novelty {
    /// Σ (tf · idf)² over the n-grams that are columns.
    pub known: f32,
    /// Σ tf² over the n-grams that are not.
    pub unknown: f32,
}

/// Working space of [`Lexicon::features`], reusable from call to call.
#[derive(Debug, Default)]
pub struct LexicalScratch {
    text: String,
    buckets: Vec<u32>,
    hashed: HashedText,
}

impl LexicalScratch {
    /// The text that [`Lexicon::features`] saw last.
    pub fn hashed(&self) -> &HashedText {
        &self.hashed
    }
}

/// The fitted part of the lexical features: which buckets are columns, and how
/// much each weighs.
#[derive(Clone, Debug)]
pub struct Lexicon {
    hasher: Hasher,
    /// Buckets by column, ascending.
    buckets: Vec<u32>,
    /// Inverse document frequency by column.
    idf: Vec<f32>,
    /// By sixty-four buckets: which of them are columns.
    kept: Vec<Kept>,
}

/// Which of sixty-four buckets are columns, and how many of those before are. A
/// table of columns by bucket would be twenty times as large, and a route would
/// find little of it in the processor's caches.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    bits: u64,
    before: u32,
}

/// A stored lexicon whose parts do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged lexicon: {0}")]
pub struct DamagedLexicon(&'static str);

impl Lexicon {
    /// Fits a lexicon on hashed texts.
    pub fn fit<'a>(
        config: &LexiconConfig,
        texts: impl IntoIterator<Item = &'a HashedText>,
    ) -> Self {
        let mut frequency = vec![0_u32; 1 << config.bucket_bits];
        let mut n = 0_u32;
        for text in texts {
            n += 1;
            for &(bucket, _) in text.counts() {
                frequency[bucket as usize] += 1;
            }
        }
        let mut buckets: Vec<u32> = (0..frequency.len() as u32)
            .filter(|&b| frequency[b as usize] >= config.min_texts.max(1))
            .collect();
        if buckets.len() > config.max_features {
            buckets.sort_by_key(|&b| std::cmp::Reverse(frequency[b as usize]));
            buckets.truncate(config.max_features);
            buckets.sort_unstable();
        }
        let idf = buckets
            .iter()
            .map(|&b| {
                ((1.0 + f64::from(n)) / (1.0 + f64::from(frequency[b as usize]))).ln() as f32 + 1.0
            })
            .collect();
        Self::assemble(config, buckets, idf)
    }

    /// Puts a stored lexicon together again.
    pub fn from_parts(
        config: &LexiconConfig,
        buckets: Vec<u32>,
        idf: Vec<f32>,
    ) -> Result<Self, DamagedLexicon> {
        if !(1..=24).contains(&config.bucket_bits) {
            return Err(DamagedLexicon("bucket_bits is not in 1..=24"));
        }
        if !config.is_bounded() {
            return Err(DamagedLexicon("its n-grams or texts are too long"));
        }
        if buckets.len() != idf.len() {
            return Err(DamagedLexicon("there are not as many weights as buckets"));
        }
        if !buckets.is_sorted_by(|a, b| a < b) {
            return Err(DamagedLexicon("the buckets are not ascending"));
        }
        if buckets
            .last()
            .is_some_and(|&b| b >> config.bucket_bits != 0)
        {
            return Err(DamagedLexicon("a bucket is out of range"));
        }
        if idf.iter().any(|w| !w.is_finite()) {
            return Err(DamagedLexicon("a weight is not finite"));
        }
        Ok(Self::assemble(config, buckets, idf))
    }

    fn assemble(config: &LexiconConfig, buckets: Vec<u32>, idf: Vec<f32>) -> Self {
        let mut kept = vec![Kept::default(); (1_usize << config.bucket_bits).div_ceil(64)];
        for &bucket in &buckets {
            kept[bucket as usize / 64].bits |= 1 << (bucket % 64);
        }
        let mut before = 0;
        for word in &mut kept {
            word.before = before;
            before += word.bits.count_ones();
        }
        Self {
            hasher: Hasher::new(config),
            buckets,
            idf,
            kept,
        }
    }

    /// The column of a bucket, if it is one. The buckets of columns ascend.
    fn column(&self, bucket: u32) -> Option<u32> {
        let word = self.kept[bucket as usize / 64];
        let bit = 1_u64 << (bucket % 64);
        let below = (word.bits & (bit - 1)).count_ones();
        (word.bits & bit != 0).then_some(word.before + below)
    }

    /// How the texts are cut and hashed.
    pub fn config(&self) -> &LexiconConfig {
        &self.hasher.config
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// True when no bucket was shared by enough texts.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Buckets by column.
    pub fn buckets(&self) -> &[u32] {
        &self.buckets
    }

    /// Inverse document frequencies by column.
    pub fn idf(&self) -> &[f32] {
        &self.idf
    }

    /// The features of a text, and what [`Lexicon::novelty`] says of it.
    pub fn features(
        &self,
        text: &str,
        scratch: &mut LexicalScratch,
        row: &mut SparseRow,
    ) -> Novelty {
        self.hasher.hash_into(text, scratch);
        self.weigh(&scratch.hashed, row)
    }

    /// The features of a text hashed before, by a hasher of the same configuration,
    /// and what [`Lexicon::novelty`] says of it.
    pub fn weigh(&self, text: &HashedText, row: &mut SparseRow) -> Novelty {
        row.columns.clear();
        row.values.clear();
        let mut novelty = Novelty::default();
        for &(bucket, count) in text.counts() {
            let tf = term_frequency(count);
            let Some(column) = self.column(bucket) else {
                novelty.unknown += tf * tf;
                continue;
            };
            let value = tf * self.idf[column as usize];
            novelty.known += value * value;
            row.columns.push(column);
            row.values.push(value);
        }
        if novelty.known > 0.0 {
            let scale = novelty.known.sqrt().recip();
            for v in &mut row.values {
                *v *= scale;
            }
        }
        novelty
    }

    /// How much of a hashed text this lexicon knows. Costs a look-up an n-gram.
    pub fn novelty(&self, text: &HashedText) -> Novelty {
        let mut novelty = Novelty::default();
        for &(bucket, count) in text.counts() {
            let tf = term_frequency(count);
            match self.column(bucket) {
                None => novelty.unknown += tf * tf,
                Some(column) => novelty.known += (tf * self.idf[column as usize]).powi(2),
            }
        }
        novelty
    }
}

/// Sublinear term frequency.
fn term_frequency(count: u32) -> f32 {
    if count == 1 {
        1.0
    } else {
        1.0 + (count as f32).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lexicon: &Lexicon, text: &str) -> SparseRow {
        let mut row = SparseRow::default();
        lexicon.features(text, &mut LexicalScratch::default(), &mut row);
        row
    }

    fn fitted(texts: &[&str]) -> Lexicon {
        let config = LexiconConfig::default();
        let hasher = Hasher::new(&config);
        let hashed: Vec<_> = texts.iter().map(|t| hasher.hash(t)).collect();
        Lexicon::fit(&config, &hashed)
    }

    #[test]
    fn counts_the_ngrams_there_are() {
        let config = LexiconConfig {
            max_word_ngram: 2,
            min_char_ngram: 2,
            max_char_ngram: 3,
            ..LexiconConfig::default()
        };
        let hashed = Hasher::new(&config).hash("ab ab");
        // Words: ab, ab, "ab ab". Characters, twice: " a" " ab" "ab" "ab " "b ".
        let total: u32 = hashed.counts().iter().map(|&(_, n)| n).sum();
        assert_eq!(total, 3 + 2 * 5);
        assert_eq!(hashed.counts().len(), 2 + 5);
    }

    /// The way of words whose characters are bytes, beside the way of all others.
    #[test]
    fn ascii_words_are_hashed_as_all_others() {
        for (shortest, longest) in [(2, 5), (1, 1), (3, 3), (4, 16), (9, 9)] {
            let hasher = Hasher::new(&LexiconConfig {
                min_char_ngram: shortest,
                max_char_ngram: longest,
                ..LexiconConfig::default()
            });
            for word in ["a", "ab", "card?", "x-1", "extraordinarily"] {
                let (mut bytes, mut chars) = (Vec::new(), Vec::new());
                hasher.ascii_chars(word.as_bytes(), &mut bytes);
                hasher.wide_chars(word, &mut chars);
                assert_eq!(bytes, chars, "{word} {shortest} {longest}");
            }
        }
    }

    /// Words of the table that are empty, full, and at the ends.
    #[test]
    fn columns_are_found_by_bucket() {
        for bits in [1, 6, 8] {
            let config = LexiconConfig {
                bucket_bits: bits,
                ..LexiconConfig::default()
            };
            let all = 1_u32 << bits;
            for step in [1, 3, 70] {
                let buckets: Vec<u32> = (0..all).step_by(step).collect();
                let idf = vec![1.0; buckets.len()];
                let lexicon = Lexicon::from_parts(&config, buckets.clone(), idf).unwrap();
                for bucket in 0..all {
                    let expected = buckets.iter().position(|&b| b == bucket);
                    assert_eq!(lexicon.column(bucket).map(|c| c as usize), expected);
                }
            }
        }
    }

    #[test]
    fn rows_have_unit_length_and_ignore_case_and_space() {
        let lexicon = fitted(&["where is my card", "where is my money", "block my card"]);
        let a = row(&lexicon, "Where  is MY card");
        let b = row(&lexicon, "where is my card");
        assert_eq!(a, b);
        let length: f32 = a.values.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5);
        assert!(a.columns.is_sorted());
    }

    #[test]
    fn unseen_and_empty_text_give_an_empty_row() {
        let lexicon = fitted(&["aaa", "aaa"]);
        assert!(row(&lexicon, "zzz").columns.is_empty());
        assert!(row(&lexicon, "").columns.is_empty());
    }

    #[test]
    fn novelty_weighs_what_is_known_against_what_is_not() {
        let lexicon = fitted(&["aaa", "aaa bbb"]);
        let novelty = |text: &str| {
            let mut scratch = LexicalScratch::default();
            let told = lexicon.features(text, &mut scratch, &mut SparseRow::default());
            let novelty = lexicon.novelty(scratch.hashed());
            assert_eq!(told, novelty, "{text:?}");
            novelty
        };
        let (seen, new, half) = (novelty("aaa"), novelty("zzz"), novelty("aaa zzz"));
        assert_eq!(seen.unknown, 0.0);
        // The word, and " a" " aa" " aaa" " aaa " "aa"×2 "aaa" "aaa " "aa " "a ": all in
        // both texts, so of idf 1.
        assert!((seen.known - (9.0 + (1.0 + 2.0_f32.ln()).powi(2))).abs() < 1e-4);
        assert_eq!((new.known, new.unknown), (0.0, seen.known));
        assert_eq!(half.known, seen.known);
        assert!(
            half.unknown > new.unknown,
            "the pair of words is new as well"
        );
        assert_eq!(novelty(""), Novelty::default());
    }

    #[test]
    fn stored_counts_come_back_and_damaged_ones_do_not() {
        let config = LexiconConfig::default();
        let hashed = Hasher::new(&config).hash("where is my card");
        let again = HashedText::from_counts(&config, hashed.counts().to_vec());
        assert_eq!(again.unwrap(), hashed);
        for damaged in [vec![(2, 1), (2, 1)], vec![(1 << 20, 1)], vec![(1, 0)]] {
            assert!(HashedText::from_counts(&config, damaged).is_err());
        }
        let other = LexiconConfig {
            max_char_ngram: 4,
            ..config.clone()
        };
        assert_ne!(other.scheme(), config.scheme());
    }

    #[test]
    fn keeps_the_most_frequent_when_there_are_too_many() {
        let config = LexiconConfig {
            max_features: 3,
            min_texts: 1,
            ..LexiconConfig::default()
        };
        let hasher = Hasher::new(&config);
        let hashed: Vec<_> = ["ab", "ab", "cd"].iter().map(|t| hasher.hash(t)).collect();
        let lexicon = Lexicon::fit(&config, &hashed);
        assert_eq!(lexicon.len(), 3);
        assert!(row(&lexicon, "cd").columns.is_empty());
    }

    #[test]
    fn a_stored_lexicon_comes_back_and_a_damaged_one_does_not() {
        let lexicon = fitted(&["where is my card", "where is my money"]);
        let again = Lexicon::from_parts(
            lexicon.config(),
            lexicon.buckets().to_vec(),
            lexicon.idf().to_vec(),
        )
        .unwrap();
        assert_eq!(row(&lexicon, "my card"), row(&again, "my card"));
        let mut idf = lexicon.idf().to_vec();
        idf[0] = f32::NAN;
        assert!(Lexicon::from_parts(lexicon.config(), lexicon.buckets().to_vec(), idf).is_err());
        assert!(Lexicon::from_parts(lexicon.config(), vec![2, 1], vec![1.0, 1.0]).is_err());
    }
}
