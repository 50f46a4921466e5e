//! The n-grams of a text by name: what stands behind a bucket, for people.

use crate::{
    hashing::{SEED, update},
    lexical::{CHAR, Hasher, WORD},
    text::normalise,
};

/// An n-gram of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NGram<'a> {
    /// Words, a blank between each.
    Words(&'a str),
    /// Characters of one word; a blank is its start or its end.
    Characters(&'a str),
}

impl Hasher {
    /// Tells `each` every n-gram of a text and its bucket, as often as it occurs: those
    /// that [`Hasher::hash`] counts, which tells no names and so is much faster.
    pub fn ngrams(&self, text: &str, mut each: impl FnMut(u32, NGram<'_>)) {
        let normalised = normalise(text);
        let end = normalised.char_indices().nth(self.config().max_chars);
        let text = &normalised[..end.map_or(normalised.len(), |(end, _)| end)];
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let mut name = String::new();
        for start in 0..words.len() {
            name.clear();
            for (i, word) in words[start..]
                .iter()
                .take(self.config().max_word_ngram.max(1))
                .enumerate()
            {
                if i > 0 {
                    name.push(' ');
                }
                name.push_str(word);
                each(self.of(WORD, &name), NGram::Words(&name));
            }
        }
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let padded = format!(" {word} ");
            let starts: Vec<usize> = padded.char_indices().map(|(at, _)| at).collect();
            let end_of = |i: usize| starts.get(i).copied().unwrap_or(padded.len());
            let config = self.config();
            for start in 0..starts.len() {
                for length in config.min_char_ngram.max(1)..=config.max_char_ngram {
                    if start + length > starts.len() {
                        break;
                    }
                    let name = &padded[starts[start]..end_of(start + length)];
                    each(self.of(CHAR, name), NGram::Characters(name));
                }
            }
        }
    }

    fn of(&self, kind: u8, name: &str) -> u32 {
        self.bucket(name.bytes().fold(update(SEED, kind), update))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::LexiconConfig;

    #[test]
    fn the_named_ngrams_are_those_that_are_hashed() {
        let configs = [
            LexiconConfig::default(),
            LexiconConfig {
                max_word_ngram: 3,
                min_char_ngram: 1,
                max_char_ngram: 2,
                max_chars: 9,
                ..LexiconConfig::default()
            },
        ];
        for config in configs {
            let hasher = Hasher::new(&config);
            for text in [
                "Where is MY  card?",
                "a",
                "",
                "größe über 12-34 ñandú\tx",
                "we'll see",
                "\u{1f600} \u{5b57}\u{5b57}",
            ] {
                let mut counts = BTreeMap::<u32, u32>::new();
                hasher.ngrams(text, |bucket, _| *counts.entry(bucket).or_default() += 1);
                let named: Vec<(u32, u32)> = counts.into_iter().collect();
                assert_eq!(named, hasher.hash(text).counts(), "{text:?}");
            }
        }
    }

    #[test]
    fn an_ngram_is_told_by_its_name() {
        let mut names = Vec::new();
        let hasher = Hasher::new(&LexiconConfig {
            max_char_ngram: 2,
            ..LexiconConfig::default()
        });
        hasher.ngrams("No no", |_, ngram| {
            names.push(match ngram {
                NGram::Words(name) => format!("word {name}"),
                NGram::Characters(name) => format!("chars {name:?}"),
            });
        });
        let word = ["chars \" n\"", "chars \"no\"", "chars \"o \""];
        let mut expected = vec!["word no", "word no no", "word no"];
        expected.extend(word.iter().chain(&word));
        assert_eq!(names, expected);
    }
}
