//! What a call of the teacher costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The price of a teacher's calls: by the call, by their tokens, or both together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TeacherPrice {
    /// Dollars for a call, whatever its length.
    pub call_dollars: f64,
    /// Dollars for a million tokens that go in.
    pub input_dollars_per_million: f64,
    /// Dollars for a million tokens that come out.
    pub output_dollars_per_million: f64,
}

/// What traces tell of the calls they come from, as means over those that tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Traces that tell their tokens.
    pub traces: u64,
    /// Tokens that went in, on average.
    pub input_tokens: f64,
    /// Tokens that came out, on average.
    pub output_tokens: f64,
    /// Traces that tell what they cost.
    pub priced: u64,
    /// Dollars that they cost, on average.
    pub cost_dollars: f64,
}

impl TokenUsage {
    /// Takes in a trace by its metadata: `input_tokens`, `output_tokens` and
    /// `cost_dollars`, as OpenTelemetry's spans give them. Anybody may send anything:
    /// what is no sensible number is not counted.
    pub fn add(&mut self, metadata: &BTreeMap<String, String>) {
        let number = |key: &str| {
            let value: f64 = metadata.get(key)?.trim().parse().ok()?;
            (0.0..=1e9).contains(&value).then_some(value)
        };
        let (input, output) = (number("input_tokens"), number("output_tokens"));
        if input.is_some() || output.is_some() {
            self.traces += 1;
            let share = 1.0 / self.traces as f64;
            self.input_tokens += (input.unwrap_or(0.0) - self.input_tokens) * share;
            self.output_tokens += (output.unwrap_or(0.0) - self.output_tokens) * share;
        }
        if let Some(dollars) = number("cost_dollars") {
            self.priced += 1;
            self.cost_dollars += (dollars - self.cost_dollars) / self.priced as f64;
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.traces == 0 && self.priced == 0
    }
}

impl TeacherPrice {
    /// Whether no price is set.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Dollars of one call on average. Where no price is set, what the traces say
    /// that they cost.
    pub fn of_a_call(&self, usage: Option<&TokenUsage>) -> f64 {
        let usage = usage.copied().unwrap_or_default();
        if self.is_zero() {
            return usage.cost_dollars;
        }
        self.call_dollars
            + (usage.input_tokens * self.input_dollars_per_million
                + usage.output_tokens * self.output_dollars_per_million)
                / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter();
        entries
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn tokens_and_prices_make_dollars() {
        let mut usage = TokenUsage::default();
        assert!(usage.is_empty());
        usage.add(&metadata(&[
            ("input_tokens", "100"),
            ("output_tokens", "10"),
        ]));
        usage.add(&metadata(&[
            ("input_tokens", "300"),
            ("output_tokens", " 30 "),
        ]));
        usage.add(&metadata(&[("model", "x"), ("input_tokens", "many")]));
        usage.add(&metadata(&[
            ("input_tokens", "-5"),
            ("output_tokens", "nan"),
        ]));
        usage.add(&metadata(&[("cost_dollars", "0.5")]));
        assert_eq!(
            (usage.traces, usage.input_tokens, usage.output_tokens),
            (2, 200.0, 20.0)
        );
        let price = TeacherPrice {
            call_dollars: 0.001,
            input_dollars_per_million: 3.0,
            output_dollars_per_million: 15.0,
        };
        // 200 · 3 + 20 · 15 = 900 dollars a million calls.
        assert!((price.of_a_call(Some(&usage)) - 0.0019).abs() < 1e-12);
        assert_eq!(price.of_a_call(None), 0.001);
        assert_eq!(TeacherPrice::default().of_a_call(Some(&usage)), 0.5);
        assert_eq!(TeacherPrice::default().of_a_call(None), 0.0);
    }
}
