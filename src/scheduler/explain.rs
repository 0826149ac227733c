//! Why a pod goes where it goes: for each node what every filter says, and what every score gives.
//! It is the scheduler's own judgement, of all nodes and to the end, where the scheduler stops at the
//! first filter that rejects a node and at enough nodes.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::cache::{PodInfo, Snapshot};
use super::cycle::{joined, lot, scored};
use super::framework::{Filter, Score};

/// What the scheduler makes of a node for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node: String,
    /// Each filter by name, with its reasons against the node; none where it lets it pass.
    pub filters: Vec<(&'static str, Vec<String>)>,
    /// Each score by name: what it gives, of 100, and its weight. Empty where a filter rejects.
    pub scores: Vec<(&'static str, i64, i64)>,
}

impl Verdict {
    /// Whether the pod fits.
    pub fn fits(&self) -> bool {
        self.filters.iter().all(|(_, reasons)| reasons.is_empty())
    }

    /// The sum of the weighted scores.
    pub fn total(&self) -> i64 {
        self.scores.iter().map(|(_, score, weight)| score * weight).sum()
    }

    /// All that speaks against the node.
    pub fn reasons(&self) -> Vec<&str> {
        self.filters.iter().flat_map(|(_, reasons)| reasons).map(String::as_str).collect()
    }

    /// As a document.
    pub fn document(&self) -> Value {
        let verdict = |reasons: &Vec<String>| match reasons.as_slice() {
            [] => json!({ "passed": true }),
            reasons => json!({ "passed": false, "reasons": reasons }),
        };
        let filters = self.filters.iter().map(|(name, why)| ((*name).to_owned(), verdict(why)));
        let filters: Map<String, Value> = filters.collect();
        let scores = self.scores.iter().map(|(name, score, weight)| {
            ((*name).to_owned(), json!({ "score": score, "weight": weight }))
        });
        let scores: Map<String, Value> = scores.collect();
        json!({
            "node": self.node,
            "fits": self.fits(),
            "filters": filters,
            "scores": scores,
            "total": self.total(),
        })
    }
}

/// The verdicts on all nodes: those that fit first, the best of them at the front.
pub fn explain(
    pod: &PodInfo,
    nodes: &Snapshot,
    filters: &[&dyn Filter],
    scores: &[&dyn Score],
) -> Vec<Verdict> {
    let prepared: Vec<_> =
        filters.iter().map(|filter| (filter.name(), filter.prepare(pod, nodes))).collect();
    let mut verdicts: Vec<Verdict> = nodes
        .iter()
        .map(|node| {
            let filters = prepared.iter().map(|(name, filter)| {
                let rejected = filter.as_ref().and_then(|filter| filter(node).err());
                let reasons = rejected.map(|rejection| rejection.reasons).unwrap_or_default();
                (*name, reasons.into_iter().map(Into::into).collect())
            });
            let node = node.name().to_owned();
            Verdict { node, filters: filters.collect(), scores: Vec::new() }
        })
        .collect();
    let fitting: Vec<usize> =
        (0..nodes.len()).filter(|position| verdicts[*position].fits()).collect();
    let feasible: Snapshot = fitting.iter().map(|position| nodes[*position].clone()).collect();
    for score in scores {
        // A plugin to which all nodes are the same gives them nothing.
        let given = scored(*score, pod, &feasible, nodes);
        for (order, position) in fitting.iter().enumerate() {
            let own = given.as_ref().map_or(0, |given| given[order]);
            verdicts[*position].scores.push((score.name(), own, score.weight()));
        }
    }
    verdicts.sort_by_key(|one| {
        Reverse((one.fits(), one.total(), joined(lot(pod.uid()), lot(&one.node))))
    });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::super::cycle::{self, Waiting};
    use super::super::plugins::{FILTERS, SCORES};
    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn every_filter_and_score_has_its_say_and_the_first_node_is_the_schedulers_choice() {
        let nodes = vec![
            node("closed").unschedulable().info(vec![pod("x").cpu("4").info()]),
            node("half").info(vec![pod("y").cpu("2").info()]),
            node("empty").info(vec![]),
        ];
        let wanting = pod("p").cpu("1").info();
        let verdicts = explain(&wanting, &nodes, FILTERS, SCORES);
        let chosen = cycle::schedule(&wanting, &nodes, &Waiting::default(), FILTERS, SCORES);
        assert_eq!(verdicts[0].node, chosen.unwrap().name());
        assert_eq!((verdicts[0].node.as_str(), verdicts[1].node.as_str()), ("empty", "half"));
        assert!(verdicts[0].total() > verdicts[1].total());
        assert_eq!(verdicts[0].scores.len(), SCORES.len());
        let closed = &verdicts[2];
        assert_eq!(closed.filters.len(), FILTERS.len());
        assert_eq!(closed.reasons(), ["node(s) were unschedulable", "Insufficient cpu"]);
        assert!(closed.scores.is_empty());
        let document = closed.document();
        assert_eq!(document["filters"]["NodeName"], json!({ "passed": true }));
        assert_eq!(document["filters"]["NodeResourcesFit"]["reasons"], json!(["Insufficient cpu"]));
    }
}
