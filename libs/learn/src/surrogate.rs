//! The classifier of a pipeline: one component, or the average of several.

use pulp::Arch;

pub(crate) use crate::component::Lacks;
use crate::{
    block::BlockScratch,
    component::{Component, Features, Needs, probabilities_from},
    model::MlpScratch,
};

/// A surrogate: the average of its components' class probabilities.
#[derive(Clone, Debug)]
pub(crate) struct Surrogate {
    components: Vec<Component>,
}

/// What a surrogate said of one input.
#[derive(Debug, Default)]
pub(crate) struct Prediction {
    /// Raw scores by component, before the softmax.
    pub(crate) logits: Vec<Vec<f32>>,
    /// Class probabilities by component.
    pub(crate) components: Vec<Vec<f32>>,
    /// The surrogate's class probabilities.
    pub(crate) probabilities: Vec<f32>,
}

impl Surrogate {
    /// A surrogate of at least one component, all with the same classes.
    pub(crate) fn new(components: Vec<Component>) -> Self {
        assert!(!components.is_empty(), "a surrogate has a component");
        Self { components }
    }

    /// What it averages.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components
    }

    /// The features it stands on.
    pub(crate) fn needs(&self) -> Needs {
        self.components
            .iter()
            .map(Component::needs)
            .reduce(Needs::or)
            .expect("a surrogate has a component")
    }

    /// Scores one input.
    pub(crate) fn predict(
        &self,
        arch: Arch,
        input: Features<'_>,
        mlp: &mut MlpScratch,
        out: &mut Prediction,
    ) -> Result<(), Lacks> {
        out.logits.resize_with(self.components.len(), Vec::new);
        out.components.resize_with(self.components.len(), Vec::new);
        for (component, logits) in self.components.iter().zip(&mut out.logits) {
            component.logits(arch, input, mlp, logits)?;
        }
        out.complete(arch);
        Ok(())
    }

    /// What [`Surrogate::predict`] gives for a row of a block that was scored.
    pub(crate) fn predicted(
        &self,
        arch: Arch,
        block: &BlockScratch,
        row: usize,
        classes: usize,
        out: &mut Prediction,
    ) {
        out.logits.resize_with(self.components.len(), Vec::new);
        out.components.resize_with(self.components.len(), Vec::new);
        for (i, logits) in out.logits.iter_mut().enumerate() {
            logits.clear();
            logits.extend_from_slice(block.logits(i, row, classes));
        }
        out.complete(arch);
    }
}

impl Prediction {
    /// Probabilities from the scores.
    fn complete(&mut self, arch: Arch) {
        for (logits, probabilities) in self.logits.iter().zip(&mut self.components) {
            probabilities_from(arch, logits, probabilities);
        }
        average(&self.components, &mut self.probabilities);
    }
}

/// The mean of several probability vectors.
pub(crate) fn average<P: AsRef<[f32]>>(components: &[P], out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(components[0].as_ref());
    for component in &components[1..] {
        for (o, p) in out.iter_mut().zip(component.as_ref()) {
            *o += p;
        }
    }
    if components.len() > 1 {
        let scale = 1.0 / components.len() as f32;
        for p in out.iter_mut() {
            *p *= scale;
        }
    }
}
