//! The classes a surrogate can answer.

use crate::{config::FitConfig, dataset::Dataset, refit::FitError};

/// The labels of the training rows, by name.
pub(crate) struct LabelSpace {
    pub(crate) names: Vec<String>,
    /// Class by the dataset's label; `None` for labels only the shadow split has.
    classes: Vec<Option<u32>>,
}

impl LabelSpace {
    pub(crate) fn of(
        data: &Dataset,
        training: &[usize],
        config: &FitConfig,
    ) -> Result<Self, FitError> {
        let mut seen = vec![false; data.label_names().len()];
        for &row in training {
            seen[data.label(row) as usize] = true;
        }
        let mut order: Vec<usize> = (0..seen.len()).filter(|&l| seen[l]).collect();
        order.sort_by_key(|&l| &data.label_names()[l]);
        if order.len() > config.max_labels {
            return Err(FitError::TooManyLabels {
                have: order.len(),
                limit: config.max_labels,
            });
        }
        if let [only] = order[..] {
            return Err(FitError::OneClass {
                label: data.label_names()[only].clone(),
            });
        }
        if order.is_empty() {
            return Err(FitError::TooFewTraces {
                have: 0,
                need: config.min_traces,
            });
        }
        let mut classes = vec![None; seen.len()];
        for (class, &label) in order.iter().enumerate() {
            classes[label] = Some(class as u32);
        }
        Ok(Self {
            names: order
                .iter()
                .map(|&l| data.label_names()[l].clone())
                .collect(),
            classes,
        })
    }

    pub(crate) fn class(&self, data: &Dataset, row: usize) -> Option<u32> {
        self.classes[data.label(row) as usize]
    }
}
