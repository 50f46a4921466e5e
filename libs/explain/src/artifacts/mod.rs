//! The artifacts of a refit: what its report shows beside the gate's verdict.
//!
//! All of them are made of the shadow split alone, which nothing was trained on, so what
//! they say of a group is what the group can expect. Each costs no more than a pass over
//! the split, or a bounded number of comparisons.

mod cards;
mod changes;
mod cues;
mod diagnosis;
mod disagreements;
mod finder;
mod held_out;
mod pairs;
mod reliability;
mod slices;
mod space;

pub(crate) use self::{
    cards::label_cards,
    changes::changes,
    cues::cues,
    diagnosis::{diagnose, diagnose_error},
    disagreements::disagreements,
    finder::weak_slices,
    held_out::HeldOut,
    pairs::boundary_pairs,
    reliability::reliability,
    slices::{label_slices, length_slices},
    space::Space,
};
pub use self::{
    cards::{Card, LabelCards},
    changes::{Changes, LabelChange, Previous, Standing},
    cues::{Cues, LabelCues, NGramCue},
    diagnosis::{Cause, Evidence, Finding},
    disagreements::{DisagreementGroup, LabelCount},
    finder::{SliceKind, WeakSlice, WeakSlices},
    held_out::{DeferredBy, Example, TraceRef},
    pairs::{LabelPairs, Pair},
    reliability::ReliabilityBin,
    slices::Slice,
};
