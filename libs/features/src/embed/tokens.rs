//! Text into tokens.

use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

use super::{EmbedError, OpenError};

/// Characters of a text that are looked at, for each token that counts. A word of more
/// characters is no word of any vocabulary.
const CHARS_PER_TOKEN: usize = 64;

/// A tokenizer that cuts what is too long and never pads.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    limit: usize,
    special: bool,
}

impl Tokens {
    /// From `tokenizer.json`. `special` adds the tokens that begin and end a text;
    /// they count.
    pub(super) fn new(
        json: &[u8],
        file: &str,
        max_tokens: usize,
        special: bool,
    ) -> Result<Self, OpenError> {
        let bad = |error: tokenizers::Error| OpenError::file(file, error);
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(bad)?;
        tokenizer.with_padding(None::<PaddingParams>);
        let truncation = special.then(|| TruncationParams {
            max_length: max_tokens,
            ..TruncationParams::default()
        });
        tokenizer.with_truncation(truncation).map_err(bad)?;
        Ok(Self {
            tokenizer,
            limit: max_tokens,
            special,
        })
    }

    /// The tokens of a text, at most as many as are allowed.
    pub(super) fn of(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        let most = self.limit.saturating_mul(CHARS_PER_TOKEN);
        let end = text.char_indices().nth(most).map(|(end, _)| end);
        let text = end.map_or(text, |end| &text[..end]);
        let encoded = self.tokenizer.encode_fast(text, self.special);
        let encoded = encoded.map_err(|error| EmbedError::Refused {
            detail: error.to_string(),
        })?;
        let ids = encoded.get_ids();
        Ok(ids[..ids.len().min(self.limit)].to_vec())
    }

    /// The token of a word, where there is one.
    pub(super) fn id(&self, word: &str) -> Option<u32> {
        self.tokenizer.token_to_id(word)
    }
}
