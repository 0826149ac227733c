//! The scheduling cycle: one pod, all nodes; filter, score, choose. It only decides.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::cache::{NodeInfo, PodInfo, Snapshot};
use super::framework::{Filter, MAX_SCORE, NodeFilter, Rejection, Score};

/// A node for the pod, or why there is none.
pub type Outcome = Result<Arc<NodeInfo>, Unschedulable>;

/// Why no node can have a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes each reason is for.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// The filters that rejected a node, by name.
    pub rejected_by: Vec<&'static str>,
    /// The nodes that other pods' leaving could open.
    pub resolvable: Vec<String>,
}

/// What came of driving off others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preempting {
    /// Some leave.
    Done,
    /// It was not tried.
    Refused(&'static str),
    /// Nobody's leaving would help.
    InVain,
}

impl Unschedulable {
    /// In Kubernetes' words: `0/3 nodes are available: 1 node(s) …, 2 Insufficient cpu.`
    pub fn message(&self, preemption: Preempting) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let all = self.nodes;
        let mut message = format!("0/{all} nodes are available: {}.", listed(&self.reasons));
        match preemption {
            Preempting::Done => return message,
            Preempting::Refused(why) => return format!("{message} preemption: {why}"),
            Preempting::InVain => {}
        }
        let hopeless = all - self.resolvable.len();
        let mut preemption: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
        if hopeless > 0 {
            preemption.insert("Preemption is not helpful for scheduling".into(), hopeless);
        }
        if !self.resolvable.is_empty() {
            preemption.insert(
                "No preemption victims found for incoming pod".into(),
                self.resolvable.len(),
            );
        }
        // Writing to a String cannot fail.
        let _written =
            write!(message, " preemption: 0/{all} nodes are available: {}.", listed(&preemption));
        message
    }
}

/// `1 this, 2 that`, sorted as texts.
fn listed(reasons: &BTreeMap<Cow<'static, str>, usize>) -> String {
    let mut parts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort_unstable();
    parts.join(", ")
}

/// Clusters up to this size are looked at wholly.
const NODES_MIN: usize = 100;
/// Of larger ones so many percent of the nodes must be found feasible, less as they grow, as
/// upstream.
const PERCENT_MAX: usize = 50;
const PERCENT_MIN: usize = 5;
const NODES_PER_PERCENT: usize = 125;

/// How many feasible nodes are enough to choose among, of so many.
fn enough(nodes: usize) -> usize {
    let percent = PERCENT_MAX.saturating_sub(nodes / NODES_PER_PERCENT).max(PERCENT_MIN);
    (nodes * percent / 100).max(NODES_MIN)
}

/// Finds a node for the pod.
pub fn schedule(
    pod: &PodInfo,
    nodes: &Snapshot,
    waiting: &Waiting<'_>,
    filters: &[&dyn Filter],
    scores: &[&dyn Score],
) -> Outcome {
    let feasible = feasible(pod, nodes, filters, waiting)?;
    let nominated = waiting.nominated.and_then(|n| feasible.iter().find(|node| node.name() == n));
    if let Some(nominated) = nominated {
        return Ok(Arc::clone(nominated));
    }
    if let [only] = feasible.as_slice() {
        return Ok(Arc::clone(only));
    }
    let totals = totals(pod, &feasible, nodes, scores);
    let own = lot(pod.uid());
    let best = (0..feasible.len())
        .max_by_key(|position| (totals[*position], joined(own, feasible[*position].lot)))
        .expect("there must be a feasible node where no reason was found against all");
    Ok(Arc::clone(&feasible[best]))
}

/// What preemption did before.
#[derive(Debug, Default)]
pub struct Waiting<'a> {
    /// The nodes with the pods on them that wait for them, where there are such.
    pub crowded: Option<&'a Snapshot>,
    /// The node that the pod itself waits for.
    pub nominated: Option<&'a str>,
}

/// Whether the pod fits on the node at that position.
pub fn fits(pod: &PodInfo, nodes: &Snapshot, position: usize, filters: &[&dyn Filter]) -> bool {
    let prepared = filters.iter().filter_map(|filter| filter.prepare(pod, nodes));
    prepared.into_iter().all(|filter| filter(&nodes[position]).is_ok())
}

/// The nodes that can have the pod, up to so many. Each pod begins at another node, so that all
/// nodes get their share, and goes on in long strides, so that what is looked at is of everywhere:
/// neighbours by name are often neighbours in a zone. The one it waits for is looked at first. A node
/// for which others wait must take the pod with them and without: they may yet go elsewhere.
fn feasible(
    pod: &PodInfo,
    nodes: &Snapshot,
    filters: &[&dyn Filter],
    waiting: &Waiting<'_>,
) -> Result<Snapshot, Unschedulable> {
    let wanted = enough(nodes.len());
    let nominated = waiting.nominated;
    let prepared = prepare(pod, nodes, filters);
    let crowded = waiting.crowded.map(|crowded| (crowded, prepare(pod, crowded, filters)));
    let rejected = |at: usize| {
        let by = |prepared: &[Prepared<'_>], node: &NodeInfo| {
            prepared.iter().find_map(|(name, filter)| Some((*name, filter(node).err()?)))
        };
        by(&prepared, &nodes[at]).or_else(|| {
            let (crowded, prepared) = crowded.as_ref()?;
            let is_waited_for = !Arc::ptr_eq(&crowded[at], &nodes[at]);
            is_waited_for.then(|| by(prepared, &crowded[at])).flatten()
        })
    };
    let mut feasible = Snapshot::new();
    let mut why = Unschedulable {
        nodes: nodes.len(),
        reasons: BTreeMap::new(),
        rejected_by: vec![],
        resolvable: vec![],
    };
    let (begin, stride) = if wanted < nodes.len() {
        (place_of(pod.uid(), nodes.len()), stride(nodes.len()))
    } else {
        (0, 1)
    };
    // Snapshots are in the order of names.
    let first = nominated.and_then(|n| nodes.binary_search_by(|node| node.name().cmp(n)).ok());
    let others = turns(nodes.len(), begin, stride).filter(|at| Some(*at) != first);
    for at in first.into_iter().chain(others) {
        if feasible.len() >= wanted {
            break;
        }
        match rejected(at) {
            None => feasible.push(Arc::clone(&nodes[at])),
            Some((name, rejection)) => why.note(&nodes[at], name, rejection),
        }
    }
    if feasible.is_empty() { Err(why) } else { Ok(feasible) }
}

/// A filter with its name.
type Prepared<'a> = (&'static str, NodeFilter<'a>);

fn prepare<'a>(
    pod: &'a PodInfo,
    nodes: &'a Snapshot,
    filters: &[&'a dyn Filter],
) -> Vec<Prepared<'a>> {
    let named = filters.iter().map(|filter| Some((filter.name(), filter.prepare(pod, nodes)?)));
    named.flatten().collect()
}

impl Unschedulable {
    fn note(&mut self, node: &NodeInfo, filter: &'static str, rejection: Rejection) {
        if !self.rejected_by.contains(&filter) {
            self.rejected_by.push(filter);
        }
        if rejection.resolvable {
            self.resolvable.push(node.name().to_owned());
        }
        for reason in rejection.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

fn totals(pod: &PodInfo, feasible: &Snapshot, nodes: &Snapshot, scores: &[&dyn Score]) -> Vec<i64> {
    let mut totals = vec![0; feasible.len()];
    for score in scores {
        let Some(own) = scored(*score, pod, feasible, nodes) else { continue };
        for (total, own) in totals.iter_mut().zip(own) {
            *total += own * score.weight();
        }
    }
    totals
}

/// What a plugin gives each of the feasible nodes, on the common scale and before its weight; `None`
/// where all nodes are the same to it.
pub(super) fn scored(
    score: &dyn Score,
    pod: &PodInfo,
    feasible: &Snapshot,
    nodes: &Snapshot,
) -> Option<Vec<i64>> {
    let prepared = score.prepare(pod, feasible, nodes)?;
    let mut own: Vec<i64> = feasible.iter().map(|node| prepared(node)).collect();
    score.normalize().apply(&mut own);
    let is_within = own.iter().all(|score| (0..=MAX_SCORE).contains(score));
    assert!(is_within, "{} must score within its scale: {own:?}", score.name());
    Some(own)
}

/// Where among so many nodes the search for a pod's begins.
fn place_of(uid: &str, nodes: usize) -> usize {
    let count = u64::try_from(nodes).unwrap_or(u64::MAX).max(1);
    usize::try_from(lot(uid) % count).unwrap_or(0)
}

/// The golden section of so many, or the next number that has no factor in common with them: in
/// strides of it every node is met once.
fn stride(nodes: usize) -> usize {
    let divisor = |stride: usize| {
        let (mut a, mut b) = (nodes, stride);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (nodes * 618 / 1000).max(1);
    (golden..=nodes.max(golden)).find(|stride| divisor(*stride) == 1).unwrap_or(1)
}

/// All positions among so many, each once, from that one on.
fn turns(nodes: usize, begin: usize, stride: usize) -> impl Iterator<Item = usize> {
    (0..nodes).map(move |turn| (begin + turn * stride) % nodes)
}

/// The lot of a name. A node's is drawn once: to hash the names of hundreds of nodes for each pod
/// was a quarter of its cycle.
pub(super) fn lot(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        let hash: u64 = hash ^ u64::from(byte);
        hash.wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

/// Decides among equals: another node for another pod, but always the same for the same two.
pub(super) fn joined(pod: u64, node: u64) -> u64 {
    // The finalizer of splitmix64: each bit of both decides about each bit.
    let mixed = (pod ^ node.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::plugins::{FILTERS, SCORES};
    use super::super::testing::{node, pod};
    use super::*;

    fn place(pod: &PodInfo, nodes: &Snapshot) -> Outcome {
        schedule(pod, nodes, &Waiting::default(), FILTERS, SCORES)
    }

    #[test]
    fn the_reasons_are_counted_and_said_in_kubernetes_words() {
        let nodes = vec![
            node("a").taint("node.kubernetes.io/not-ready", "", "NoSchedule").info(vec![]),
            node("b").info(vec![pod("x").cpu("4").info()]),
            node("c").info(vec![pod("y").cpu("4").info()]),
            node("d").unschedulable().info(vec![]),
        ];
        let why = place(&pod("p").cpu("1").info(), &nodes).unwrap_err();
        assert_eq!(
            why.message(Preempting::InVain),
            "0/4 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
             1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/4 nodes are available: \
             2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(why.rejected_by, ["TaintToleration", "NodeResourcesFit", "NodeUnschedulable"]);
        assert_eq!(why.resolvable, ["b", "c"]);
        let never = why.message(Preempting::Refused("not eligible due to preemptionPolicy=Never."));
        assert!(never.ends_with("cpu. preemption: not eligible due to preemptionPolicy=Never."));
        assert!(why.message(Preempting::Done).ends_with("2 Insufficient cpu."));
    }

    #[test]
    fn without_nodes_that_is_said() {
        let why = place(&pod("p").info(), &vec![]).unwrap_err();
        assert_eq!(why.message(Preempting::InVain), "no nodes available to schedule pods");
    }

    #[test]
    fn the_emptier_node_is_chosen() {
        let nodes = vec![
            node("full").info(vec![pod("x").cpu("3").request("memory", "6Gi").info()]),
            node("empty").info(vec![]),
        ];
        let chosen = place(&pod("p").cpu("500m").request("memory", "1Gi").info(), &nodes).unwrap();
        assert_eq!(chosen.name(), "empty");
    }

    #[test]
    fn of_many_nodes_a_part_is_enough_and_all_get_their_share() {
        for (nodes, expected) in [(50, 100), (100, 100), (1000, 420), (5000, 500), (20_000, 1000)] {
            assert_eq!(enough(nodes), expected, "{nodes} nodes");
        }
        let nodes: Snapshot =
            (0..1000).map(|number| node(&format!("n{number:04}")).info(vec![])).collect();
        let mut used: HashMap<String, usize> = HashMap::new();
        for number in 0..500 {
            let chosen = place(&pod(&format!("pod-{number}")).info(), &nodes).unwrap();
            *used.entry(chosen.name().to_owned()).or_default() += 1;
        }
        assert!(used.len() > 300, "{} nodes used", used.len());
        let waiting = Waiting { crowded: None, nominated: Some("n0007") };
        let found = feasible(&pod("p").info(), &nodes, FILTERS, &waiting).unwrap();
        assert_eq!((found.len(), found[0].name()), (420, "n0007"), "the nominated one is first");
        let mut full = nodes;
        for node in &mut full {
            Arc::make_mut(node).add(pod("x").cpu("4").info());
        }
        full.push(node("z").info(vec![]));
        let chosen = place(&pod("last").cpu("1").info(), &full).unwrap();
        assert_eq!(chosen.name(), "z", "the search goes on until one is found");
    }

    #[test]
    fn the_part_that_is_looked_at_is_of_all_zones_though_names_go_by_zones() {
        for nodes in [1, 2, 7, 100, 101, 1000, 1024] {
            let mut all: Vec<usize> = turns(nodes, nodes / 2, stride(nodes)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..nodes).collect::<Vec<_>>(), "{nodes}: each once");
        }
        let zone = |number: usize| format!("zone-{}", number / 100);
        let nodes: Snapshot = (0..1000)
            .map(|n| node(&format!("n{n:04}")).label("zone", &zone(n)).info(vec![]))
            .collect();
        for name in ["a", "b", "c", "d"] {
            let found = feasible(&pod(name).info(), &nodes, FILTERS, &Waiting::default()).unwrap();
            let mut zones: HashMap<&str, usize> = HashMap::new();
            for node in &found {
                *zones.entry(node.label("zone").unwrap()).or_default() += 1;
            }
            let even = zones.len() == 10 && zones.values().all(|count| (38..=46).contains(count));
            assert!(even, "{name}: {zones:?}");
        }
    }

    #[test]
    fn a_node_that_others_wait_for_takes_no_pod_that_does_not_fit_with_them() {
        let nodes: Snapshot = vec![node("a").cpu("4").info(vec![]), node("b").info(vec![])];
        let mut crowded = nodes.clone();
        Arc::make_mut(&mut crowded[0]).add(pod("waits").cpu("3").info());
        let waiting = Waiting { crowded: Some(&crowded), nominated: None };
        let found = |cpu: &str| {
            let found = feasible(&pod("p").cpu(cpu).info(), &nodes, FILTERS, &waiting).unwrap();
            found.iter().map(|node| node.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("1"), ["a", "b"]);
        assert_eq!(found("2"), ["b"]);
        // What is found is as it is without them.
        let found = feasible(&pod("p").info(), &nodes, FILTERS, &waiting).unwrap();
        assert_eq!(found[0].requested.cpu_milli, 0);
    }

    #[test]
    fn equals_share_the_pods_and_each_pod_has_its_node() {
        let nodes: Snapshot = ["a", "b", "c"].map(|name| node(name).info(vec![])).to_vec();
        let mut shares: HashMap<String, usize> = HashMap::new();
        for number in 0..300 {
            let wanting = pod(&format!("pod-{number}")).info();
            let first = place(&wanting, &nodes).unwrap();
            assert_eq!(first.name(), place(&wanting, &nodes).unwrap().name());
            *shares.entry(first.name().to_owned()).or_default() += 1;
        }
        assert!(shares.len() == 3 && shares.values().all(|share| *share > 50), "{shares:?}");
    }
}
