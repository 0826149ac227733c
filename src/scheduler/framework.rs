//! What a plugin is: a filter that says which nodes a pod cannot have, or a score that says which
//! it should have.
//!
//! A plugin is prepared once per pod, where it can look at all the nodes, and then asked for each
//! node. One that has nothing to say about a pod prepares nothing.

use std::borrow::Cow;

use super::cache::{NodeInfo, PodInfo, Snapshot};

/// The best score there is.
pub const MAX_SCORE: i64 = 100;

/// Why a node cannot have a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reasons, in Kubernetes' words.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether other pods' leaving could change that.
    pub resolvable: bool,
}

impl Rejection {
    /// Other pods are in the way.
    pub fn by_pods(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// It is the node.
    pub fn by_node(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// A filter prepared for a pod.
pub type NodeFilter<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Rejection> + 'a>;
/// A score prepared for a pod.
pub type NodeScore<'a> = Box<dyn Fn(&NodeInfo) -> i64 + 'a>;

/// What happened in the cluster that may give a waiting pod its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node came, or has more to give.
    NodeGrew,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints changed, or it may be scheduled to again.
    NodeTaints,
    /// A pod that had a node came, or its labels changed.
    PodArrived,
    /// A pod that had a node is gone.
    PodLeft,
    /// A pod that has a node asks for less.
    PodShrank,
    /// A claim, a volume or a storage class came or changed.
    Volumes,
}

/// Says which nodes a pod cannot have.
pub trait Filter: Send + Sync {
    /// Its name, as Kubernetes calls it.
    fn name(&self) -> &'static str;

    /// Prepares for a pod; `None` where it has no objection to any node.
    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Snapshot) -> Option<NodeFilter<'a>>;

    /// Whether a pod that it kept from all nodes should be tried again after this.
    fn wakes_on(&self, event: ClusterEvent) -> bool;
}

/// How raw scores become 0 to [`MAX_SCORE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// They are already.
    AsIs,
    /// The greatest becomes the best.
    Greatest,
    /// The greatest becomes the worst.
    Least,
    /// The least becomes the best and the others by their distance to the greatest.
    Spread,
    /// The least becomes 0 and the greatest the best; raw scores may be negative.
    Stretch,
}

/// Says which nodes a pod should rather have.
pub trait Score: Send + Sync {
    /// Its name, as Kubernetes calls it.
    fn name(&self) -> &'static str;

    /// How much it counts among the others.
    fn weight(&self) -> i64;

    /// How its scores are brought to one scale.
    fn normalize(&self) -> Normalize;

    /// Prepares for a pod; `None` where all nodes are the same to it. `feasible` are those that
    /// passed the filters, `nodes` all.
    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        feasible: &'a Snapshot,
        nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>>;
}

impl Normalize {
    /// Brings scores to one scale.
    pub fn apply(self, scores: &mut [i64]) {
        let greatest = scores.iter().copied().max().unwrap_or(0);
        let least = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = match self {
                Self::AsIs => (*score).clamp(0, MAX_SCORE),
                Self::Greatest if greatest == 0 => 0,
                Self::Greatest => *score * MAX_SCORE / greatest,
                Self::Least | Self::Spread if greatest == 0 => MAX_SCORE,
                Self::Least => MAX_SCORE - *score * MAX_SCORE / greatest,
                Self::Spread => MAX_SCORE * (greatest + least - *score) / greatest,
                Self::Stretch if greatest == least => 0,
                Self::Stretch => MAX_SCORE * (*score - least) / (greatest - least),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_brought_to_one_scale() {
        for (normalize, raw, expected) in [
            (Normalize::AsIs, vec![-5, 50, 500], vec![0, 50, 100]),
            (Normalize::Greatest, vec![0, 5, 10], vec![0, 50, 100]),
            (Normalize::Greatest, vec![0, 0], vec![0, 0]),
            (Normalize::Least, vec![0, 5, 10], vec![100, 50, 0]),
            (Normalize::Least, vec![0, 0], vec![100, 100]),
            (Normalize::Spread, vec![2, 3, 4], vec![100, 75, 50]),
            (Normalize::Spread, vec![0, 0], vec![100, 100]),
            (Normalize::Stretch, vec![-10, 0, 10], vec![0, 50, 100]),
            (Normalize::Stretch, vec![7, 7], vec![0, 0]),
        ] {
            let mut scores = raw.clone();
            normalize.apply(&mut scores);
            assert_eq!(scores, expected, "{normalize:?} {raw:?}");
        }
    }
}
