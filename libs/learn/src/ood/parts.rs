//! A guard as a JSON header and tensors, and back with every check.

use serde::{Deserialize, Serialize};

use super::{
    Guard, NoveltyCue, Standard, SweepPoint,
    prototypes::{MAX_DIMENSION, Prototypes},
};

/// The small parts of a guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardHeader {
    chosen: SweepPoint,
    sweep: Vec<SweepPoint>,
    component_scales: Vec<f32>,
    fit: Standard,
    likeness: Standard,
    /// Dimension of the embeddings; `None` where it looks at none.
    dimension: Option<usize>,
    novelty: Option<NoveltyCue>,
}

/// The large parts of a guard; both empty where it looks at no embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GuardTensors<'a> {
    /// classes + 1: where each class's prototypes begin, and the last ends.
    pub(crate) starts: &'a [u32],
    /// prototypes × dimension.
    pub(crate) codes: &'a [i8],
}

/// A stored guard whose parts do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged guard: {0}")]
pub(crate) struct DamagedGuard(&'static str);

impl Guard {
    /// The guard, taken apart to be stored.
    pub(crate) fn parts(&self) -> (GuardHeader, GuardTensors<'_>) {
        let header = GuardHeader {
            chosen: self.chosen,
            sweep: self.sweep.clone(),
            component_scales: self.component_scales.clone(),
            fit: self.fit,
            likeness: self.likeness,
            dimension: self.prototypes.as_ref().map(|p| p.dimension),
            novelty: self.novelty,
        };
        let tensors = self
            .prototypes
            .as_ref()
            .map_or(GuardTensors::default(), |p| GuardTensors {
                starts: &p.starts,
                codes: &p.codes,
            });
        (header, tensors)
    }

    /// Puts a stored guard together again, for a surrogate of so many classes and
    /// components, that takes embeddings of this dimension, and text or not.
    pub(crate) fn from_parts(
        header: GuardHeader,
        starts: Vec<u32>,
        codes: Vec<i8>,
        classes: usize,
        components: usize,
        embedding_dimension: Option<usize>,
        takes_text: bool,
    ) -> Result<Self, DamagedGuard> {
        let sound = |sound: bool, what| {
            if sound {
                Ok(())
            } else {
                Err(DamagedGuard(what))
            }
        };
        sound(classes > 0, "there are no classes")?;
        sound(
            components > 0 && header.component_scales.len() == components,
            "it is for another number of components",
        )?;
        sound(
            header.dimension.is_none() || header.dimension == embedding_dimension,
            "it takes embeddings of another dimension than the pipeline",
        )?;
        sound(
            header.novelty.is_none() || takes_text,
            "it takes text and the pipeline does not",
        )?;
        let novelty = header.novelty.unwrap_or(NoveltyCue {
            unknown: 1.0,
            standard: Standard::default(),
        });
        let numbers = [header.fit, header.likeness, novelty.standard]
            .into_iter()
            .flat_map(|s| [s.mean, s.scale]);
        sound(
            numbers
                .chain(header.component_scales.iter().copied())
                .all(f32::is_finite),
            "a statistic is not finite",
        )?;
        sound(
            novelty.unknown.is_finite() && novelty.unknown > 0.0,
            "the weight of unknown n-grams is not a positive number",
        )?;
        sound(
            header
                .sweep
                .iter()
                .chain([&header.chosen])
                .all(SweepPoint::is_sound),
            "a budget and its threshold contradict each other",
        )?;
        Ok(Self {
            chosen: header.chosen,
            sweep: header.sweep,
            classes,
            component_scales: header.component_scales,
            fit: header.fit,
            likeness: header.likeness,
            prototypes: Prototypes::from_parts(header.dimension, starts, codes, classes)?,
            novelty: header.novelty,
        })
    }
}

impl SweepPoint {
    fn is_sound(&self) -> bool {
        (0.0..1.0).contains(&self.budget)
            && self.threshold.is_some() == (self.budget > 0.0)
            && self.threshold.is_none_or(f32::is_finite)
    }
}

impl Prototypes {
    fn from_parts(
        dimension: Option<usize>,
        starts: Vec<u32>,
        codes: Vec<i8>,
        classes: usize,
    ) -> Result<Option<Self>, DamagedGuard> {
        let Some(dimension) = dimension else {
            return if starts.is_empty() && codes.is_empty() {
                Ok(None)
            } else {
                Err(DamagedGuard("it has prototypes and takes no embedding"))
            };
        };
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(DamagedGuard("its dimension is 0, or too large"));
        }
        if starts.len() != classes + 1 || starts[0] != 0 || !starts.is_sorted() {
            return Err(DamagedGuard("its prototypes do not fit the classes"));
        }
        let count = starts[classes] as usize;
        if !codes.len().is_multiple_of(dimension) || codes.len() / dimension != count {
            return Err(DamagedGuard("its prototypes are not whole"));
        }
        if codes
            .chunks_exact(dimension)
            .any(|c| c.iter().all(|&c| c == 0))
        {
            return Err(DamagedGuard("a prototype has no direction"));
        }
        Ok(Some(Self::assemble(dimension, starts, codes)))
    }
}
