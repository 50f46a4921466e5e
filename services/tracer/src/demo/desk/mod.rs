//! The support desk of Moss & Signal, a company we made up. It rents out
//! houseplants in pots that text their keepers when they are thirsty.

mod account;
mod ambiguous;
mod billing;
mod delivery;
mod plan;
mod plants;
mod pots;
pub(crate) mod slots;

pub(crate) use ambiguous::{AMBIGUITIES, Ambiguity};

/// What a customer may want.
#[derive(Debug)]
pub(crate) struct Intent {
    /// The label.
    pub(crate) name: &'static str,
    /// Its share of the traffic, relative to the others.
    pub(crate) weight: f64,
    /// The phrasings only this intent has.
    pub(crate) patterns: &'static [&'static str],
}

/// All intents, in a fixed order.
pub(crate) fn intents() -> impl Iterator<Item = &'static Intent> {
    [
        delivery::INTENTS,
        plan::INTENTS,
        billing::INTENTS,
        pots::INTENTS,
        plants::INTENTS,
        account::INTENTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::demo::{grammar::expand, rng::Rng};

    #[test]
    fn there_are_at_least_thirty_intents_each_named_once() {
        let names: BTreeSet<_> = intents().map(|intent| intent.name).collect();
        assert_eq!(names.len(), intents().count());
        assert!(names.len() >= 30, "{}", names.len());
    }

    #[test]
    fn every_pattern_expands() {
        let mut rng = Rng::new(3);
        let own = intents().flat_map(|intent| intent.patterns);
        let shared = AMBIGUITIES.iter().flat_map(|ambiguity| ambiguity.patterns);
        for pattern in own.chain(shared) {
            for _ in 0..50 {
                let text = expand(pattern, &mut rng);
                assert!(
                    text.len() > 5 && !text.contains(['(', ')', '{', '}', '|']),
                    "{pattern:?} gave {text:?}"
                );
            }
        }
    }

    #[test]
    fn ambiguities_are_between_intents_that_exist() {
        let names: BTreeSet<_> = intents().map(|intent| intent.name).collect();
        for ambiguity in AMBIGUITIES {
            assert!(
                ambiguity.between.iter().all(|name| names.contains(name)),
                "{:?}",
                ambiguity.between
            );
            assert_ne!(ambiguity.between[0], ambiguity.between[1]);
        }
    }
}
