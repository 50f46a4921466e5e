//! temp
#[derive(Clone, Debug)]
pub(crate) struct Guard;
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct GuardHeader;
#[derive(Debug, Default)]
pub(crate) struct GuardScratch;
pub(crate) struct Signals<'a> { pub(crate) embedding: Option<&'a [f32]>, pub(crate) lexical: Option<&'a tracer_features::SparseRow>, pub(crate) logits: &'a [Vec<f32>], pub(crate) probabilities: &'a [f32] }
impl Guard {
    pub(crate) fn score(&self, _: Signals<'_>, _: &mut GuardScratch) -> f32 { 0.0 }
    pub(crate) fn is_foreign(&self, _: f32) -> bool { false }
    pub(crate) fn to_parts(&self) -> (GuardHeader, Vec<crate::model::Tensor>) { (GuardHeader, vec![]) }
    pub(crate) fn from_parts(_: GuardHeader, _: Vec<crate::model::Tensor>, _: usize, _: Option<usize>, _: Option<usize>, _: usize) -> Result<Self, String> { Ok(Self) }
}
