//! Forests as tensors and back.

use super::{Forest, LEAF, Leaves, MAX_TREES, Node};
use crate::model::{
    DamagedModel, Tensor,
    tensor::{Parts, damaged},
};

impl Forest {
    /// The model as tensors: `roots` (trees + 1), of every node `features`,
    /// `thresholds` and `next`, and the leaves' distributions as compressed rows
    /// `leaf_starts`, `leaf_classes`, `leaf_shares`.
    pub(crate) fn parts(&self) -> Vec<Tensor> {
        let nodes = &self.nodes;
        vec![
            Tensor::u32("roots", self.roots.clone()),
            Tensor::u16("features", nodes.iter().map(|n| n.feature).collect()),
            Tensor::f32(
                "thresholds",
                &[nodes.len()],
                nodes.iter().map(|n| n.threshold).collect(),
            ),
            Tensor::u32("next", nodes.iter().map(|n| n.next).collect()),
            Tensor::u32("leaf_starts", self.leaves.starts.clone()),
            Tensor::u16("leaf_classes", self.leaves.classes.clone()),
            Tensor::f32(
                "leaf_shares",
                &[self.leaves.shares.len()],
                self.leaves.shares.clone(),
            ),
        ]
    }

    /// Puts a stored model together again. Every walk from a root ends: a node's
    /// children stand behind it.
    pub(crate) fn from_parts(
        features: usize,
        classes: usize,
        tensors: Vec<Tensor>,
    ) -> Result<Self, DamagedModel> {
        let mut parts = Parts::new(tensors)?;
        let leaves = leaves(&mut parts, classes)?;
        let roots = parts.words("roots")?;
        let node_features = parts.shorts("features")?;
        let (_, thresholds) = parts.floats("thresholds")?;
        let next = parts.words("next")?;
        if node_features.len() != thresholds.len() || next.len() != thresholds.len() {
            return Err(damaged(
                "features",
                "the parts of the nodes differ in number",
            ));
        }
        let nodes: Vec<Node> = node_features
            .into_iter()
            .zip(thresholds)
            .zip(next)
            .map(|((feature, threshold), next)| Node {
                threshold,
                next,
                feature,
            })
            .collect();
        if roots.len() < 2 || roots.len() > MAX_TREES + 1 {
            return Err(damaged("roots", "there are no trees, or too many"));
        }
        let ends = roots.last().map(|&r| r as usize) == Some(nodes.len());
        if roots[0] != 0 || !ends || !roots.is_sorted() {
            return Err(damaged("roots", "they do not span the nodes"));
        }
        let numbers = classes + leaves.starts.len() - 1;
        for tree in roots.windows(2) {
            if tree[0] >= tree[1] {
                return Err(damaged("roots", "a tree has no nodes"));
            }
            let tree = &nodes[tree[0] as usize..tree[1] as usize];
            for (i, node) in tree.iter().enumerate() {
                let next = node.next as usize;
                if node.feature == LEAF {
                    if next >= numbers {
                        return Err(damaged("next", "there is no such leaf"));
                    }
                } else if usize::from(node.feature) >= features {
                    return Err(damaged("features", "there is no such feature"));
                } else if next <= i || next + 1 >= tree.len() {
                    return Err(damaged("next", "a child is not behind its node"));
                }
            }
        }
        Ok(Self {
            features,
            classes,
            roots,
            nodes,
            leaves,
        })
    }
}

fn leaves(parts: &mut Parts, classes: usize) -> Result<Leaves, DamagedModel> {
    let starts = parts.words("leaf_starts")?;
    let leaf_classes = parts.shorts("leaf_classes")?;
    let (_, shares) = parts.floats("leaf_shares")?;
    if classes == 0 {
        return Err(damaged("leaf_classes", "there are no classes"));
    }
    if leaf_classes.len() != shares.len() {
        return Err(damaged("leaf_shares", "they do not match the classes"));
    }
    let spans = starts.first() == Some(&0)
        && starts.last().map(|&s| s as usize) == Some(shares.len())
        && starts.is_sorted();
    if !spans {
        return Err(damaged("leaf_starts", "they do not span the entries"));
    }
    if leaf_classes.iter().any(|&c| usize::from(c) >= classes) {
        return Err(damaged("leaf_classes", "there is no such class"));
    }
    if shares.iter().any(|s| !(0.0..=1.0).contains(s)) {
        return Err(damaged("leaf_shares", "a share is not between 0 and 1"));
    }
    Ok(Leaves {
        starts,
        classes: leaf_classes,
        shares,
    })
}
