//! Where the search for a linear model may begin: an earlier model, carried over
//! to another lexicon or another set of labels.

use std::collections::HashMap;

use tracer_features::Lexicon;

use crate::{
    candidate::Candidate, component::Component, design::stride_of, logistic::Logistic,
    pipeline::Pipeline,
};

/// Which old place stands for each new one; `None` where there was none.
struct Mapping {
    old: usize,
    of_new: Vec<Option<usize>>,
}

impl Mapping {
    fn same(size: usize) -> Self {
        Self {
            old: size,
            of_new: (0..size).map(Some).collect(),
        }
    }

    /// Columns of one lexicon by the columns of another, through their buckets.
    fn of_columns(old: Option<&Lexicon>, new: Option<&Lexicon>) -> Self {
        let (Some(old), Some(new)) = (old, new) else {
            return Self::same(0);
        };
        Self {
            old: old.len(),
            of_new: new
                .buckets()
                .iter()
                .map(|bucket| old.buckets().binary_search(bucket).ok())
                .collect(),
        }
    }

    fn of_labels(old: &[String], new: &[String]) -> Self {
        let places: HashMap<&str, usize> = old
            .iter()
            .enumerate()
            .map(|(class, label)| (label.as_str(), class))
            .collect();
        Self {
            old: old.len(),
            of_new: new
                .iter()
                .map(|l| places.get(l.as_str()).copied())
                .collect(),
        }
    }

    /// This mapping, and after it `more` places that stay as they are.
    fn then_same(mut self, more: usize) -> Self {
        let old = self.old;
        self.of_new.extend((old..old + more).map(Some));
        self.old += more;
        self
    }
}

impl Component {
    /// This component for another lexicon, with the same classes. `None` for
    /// kinds that begin anew every time.
    pub(crate) fn moved(
        &self,
        from: Option<&Lexicon>,
        to: Option<&Lexicon>,
        classes: usize,
    ) -> Option<Self> {
        self.carried(Mapping::of_columns(from, to), &Mapping::same(classes))
    }

    fn carried(&self, lexical: Mapping, classes: &Mapping) -> Option<Self> {
        match self {
            Self::Dense(model) => {
                let features = Mapping::same(model.features());
                carry(model, &features, classes).map(Self::Dense)
            }
            Self::Lexical(model) => carry(model, &lexical, classes).map(Self::Lexical),
            Self::Fused(model) => {
                let dimension = model.features().checked_sub(lexical.old)?;
                carry(model, &lexical.then_same(dimension), classes).map(Self::Fused)
            }
            Self::Mlp(_) | Self::LexicalMlp(_) | Self::Forest(_) => None,
        }
    }
}

/// The model with its features and classes in other places; new ones begin at 0.
fn carry(model: &Logistic, features: &Mapping, classes: &Mapping) -> Option<Logistic> {
    if model.features() != features.old || model.classes() != classes.old {
        return None;
    }
    let (old, new) = (model.intercepts().len(), stride_of(classes.of_new.len()));
    let place = |from: &[f32], to: &mut [f32]| {
        for (to, from_class) in to.iter_mut().zip(&classes.of_new) {
            *to = from_class.map_or(0.0, |class| from[class]);
        }
    };
    let mut weights = vec![0.0; features.of_new.len() * new];
    for (to, from) in weights.chunks_exact_mut(new).zip(&features.of_new) {
        if let Some(from) = *from {
            place(&model.weights()[from * old..(from + 1) * old], to);
        }
    }
    let mut intercepts = vec![0.0; new];
    place(model.intercepts(), &mut intercepts);
    Logistic::from_parts(classes.of_new.len(), weights, intercepts).ok()
}

impl Pipeline {
    /// The earlier fit of a candidate, for a new lexicon and new labels.
    pub(crate) fn start_for(
        &self,
        candidate: Candidate,
        lexicon: Option<&Lexicon>,
        labels: &[String],
    ) -> Option<Component> {
        let name = candidate.to_string();
        let at = self.card.candidates.iter().position(|c| *c == name)?;
        let columns = Mapping::of_columns(self.lexicon.as_ref(), lexicon);
        let classes = Mapping::of_labels(&self.labels, labels);
        self.first
            .surrogate
            .components()
            .get(at)?
            .carried(columns, &classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn classes_and_features_find_their_places() {
        let stride = stride_of(2);
        let mut weights = vec![0.0; 3 * stride];
        for (i, w) in weights.iter_mut().enumerate() {
            *w = i as f32;
        }
        let mut intercepts = vec![0.0; stride];
        intercepts[1] = 7.0;
        let model = Logistic::from_parts(2, weights, intercepts).unwrap();
        let classes = Mapping::of_labels(&names(&["a", "b"]), &names(&["b", "c", "a"]));
        let features = Mapping {
            old: 2,
            of_new: vec![Some(1), None],
        }
        .then_same(1);
        let carried = carry(&model, &features, &classes).unwrap();
        assert_eq!((carried.features(), carried.classes()), (3, 3));
        let at = |feature: usize| {
            let start = feature * carried.intercepts().len();
            &carried.weights()[start..start + 3]
        };
        let old = stride as f32;
        assert_eq!(at(0), [old + 1.0, 0.0, old]);
        assert_eq!(at(1), [0.0; 3]);
        assert_eq!(at(2), [2.0 * old + 1.0, 0.0, 2.0 * old]);
        assert_eq!(carried.intercepts()[..3], [7.0, 0.0, 0.0]);
        assert!(carry(&model, &Mapping::same(2), &classes).is_none());
    }
}
