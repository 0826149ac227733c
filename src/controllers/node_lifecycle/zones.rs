//! How the nodes fare zone by zone, and how fast pods may be driven off the nodes that are down.
//!
//! | zone | rate |
//! |---|---|
//! | normal | one node an interval (10 s) |
//! | most nodes down, zone of more than 50 nodes | one node in ten intervals |
//! | most nodes down, smaller zone | none |
//! | all nodes down, other zones live | one node an interval |
//! | all nodes of all zones down | none, and what was begun is called off |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::health::Readiness;
use crate::controllers::owners;

/// A zone with more nodes goes on slowly when most of them are down.
const LARGE_ZONE: usize = 50;
/// How much slower.
const SLOWER: u32 = 10;
/// How many hundredths of a zone's nodes must be down for it to be disrupted.
const DISRUPTED_PERCENT: usize = 55;
/// Fewer nodes that are down disrupt no zone.
const DISRUPTED_MIN: usize = 3;
/// Nodes with it do not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// How a zone fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// Most nodes are ready.
    Normal,
    /// Most are not.
    PartialDisruption,
    /// None is.
    FullDisruption,
}

/// What changed with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing that matters to all.
    Same,
    /// All nodes were down, and now one is ready.
    Recovered,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    ready: usize,
    down: usize,
}

impl Count {
    fn of(&mut self, is_ready: bool) -> &mut usize {
        if is_ready { &mut self.ready } else { &mut self.down }
    }

    fn state(self) -> ZoneState {
        let all = self.ready + self.down;
        if self.ready == 0 && self.down > 0 {
            ZoneState::FullDisruption
        } else if self.down >= DISRUPTED_MIN && self.down * 100 >= all * DISRUPTED_PERCENT {
            ZoneState::PartialDisruption
        } else {
            ZoneState::Normal
        }
    }
}

/// All zones: which nodes they have, and how those fare.
#[derive(Debug)]
pub struct Zones {
    interval: Duration,
    /// The zone of each node that counts, and whether it is ready.
    nodes: HashMap<String, (String, bool)>,
    counts: BTreeMap<String, Count>,
    /// When a node of the zone last had its turn.
    turns: BTreeMap<String, Instant>,
    were_all_down: bool,
}

impl Zones {
    /// With one turn an `interval` in zones that fare well.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            nodes: HashMap::new(),
            counts: BTreeMap::new(),
            turns: BTreeMap::new(),
            were_all_down: false,
        }
    }

    /// Whether no node is known: what is decided on a part of them would be wrong.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Counts these nodes and no others.
    pub fn reset(&mut self, nodes: &[Arc<Node>]) {
        self.nodes.clear();
        self.counts.clear();
        for node in nodes {
            self.insert(node);
        }
        self.were_all_down = self.all_are_down();
    }

    /// Counts a node as it is now.
    pub fn apply(&mut self, node: &Node) -> Turn {
        self.remove(owners::name(&node.metadata));
        self.insert(node);
        let have_recovered = self.were_all_down && !self.all_are_down();
        self.were_all_down = self.all_are_down();
        if have_recovered { Turn::Recovered } else { Turn::Same }
    }

    /// Counts a node no more.
    pub fn delete(&mut self, name: &str) {
        self.remove(name);
        self.were_all_down = self.all_are_down();
    }

    fn insert(&mut self, node: &Node) {
        if node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED)) {
            return;
        }
        let (zone, is_ready) = (zone(node), Readiness::of(node) == Readiness::Ready);
        *self.counts.entry(zone.clone()).or_default().of(is_ready) += 1;
        self.nodes.insert(owners::name(&node.metadata).to_owned(), (zone, is_ready));
    }

    fn remove(&mut self, name: &str) {
        let Some((zone, is_ready)) = self.nodes.remove(name) else { return };
        let Some(count) = self.counts.get_mut(&zone) else { return };
        *count.of(is_ready) -= 1;
        if count.ready + count.down == 0 {
            self.counts.remove(&zone);
            self.turns.remove(&zone);
        }
    }

    /// Whether no node of any zone is ready.
    pub fn all_are_down(&self) -> bool {
        !self.counts.is_empty()
            && self.counts.values().all(|count| count.state() == ZoneState::FullDisruption)
    }

    /// Takes the next turn of the node's zone, if it has come.
    pub fn take_turn(&mut self, node: &Node, now: Instant) -> bool {
        let zone = zone(node);
        let count = self.counts.get(&zone).copied().unwrap_or_default();
        let interval = match count.state() {
            ZoneState::Normal | ZoneState::FullDisruption => self.interval,
            ZoneState::PartialDisruption if count.ready + count.down > LARGE_ZONE => {
                self.interval * SLOWER
            }
            ZoneState::PartialDisruption => return false,
        };
        let last = self.turns.get(&zone);
        let has_come = last.is_none_or(|last| now.duration_since(*last) >= interval);
        if has_come {
            self.turns.insert(zone, now);
        }
        has_come
    }
}

/// The node's region and zone.
fn zone(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let label = |newer: &str, older: &str| {
        let value = labels.and_then(|labels| labels.get(newer).or_else(|| labels.get(older)));
        value.map(String::as_str).unwrap_or_default()
    };
    format!(
        "{}/{}",
        label("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
        label("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn nodes(zone: &str, ready: usize, down: usize) -> Vec<Arc<Node>> {
        (0..ready + down)
            .map(|number| {
                let status = if number < ready { "True" } else { "Unknown" };
                let name = format!("{zone}-{number}");
                Arc::new(
                    serde_json::from_value(json!({
                        "metadata": {
                            "name": name, "uid": name,
                            "labels": { "topology.kubernetes.io/zone": zone },
                        },
                        "status": { "conditions": [{ "type": "Ready", "status": status }] },
                    }))
                    .unwrap(),
                )
            })
            .collect()
    }

    fn counted(all: &[Arc<Node>]) -> Zones {
        let mut zones = Zones::new(INTERVAL);
        zones.reset(all);
        zones
    }

    #[test]
    fn a_zone_is_disrupted_by_more_than_half_of_its_nodes_but_never_by_two() {
        use ZoneState::{FullDisruption, Normal, PartialDisruption};
        for (ready, down, state) in [
            (3, 0, Normal),
            (0, 1, FullDisruption),
            (1, 2, Normal),
            (3, 3, Normal),
            (2, 3, PartialDisruption),
            (45, 55, PartialDisruption),
            (46, 54, Normal),
            (0, 9, FullDisruption),
        ] {
            assert_eq!(Count { ready, down }.state(), state, "{ready} ready, {down} down");
        }
    }

    #[test]
    fn turns_come_one_an_interval_and_zone() {
        let all = [nodes("a", 2, 2), nodes("b", 2, 1)].concat();
        let mut zones = counted(&all);
        let now = Instant::now();
        assert!(zones.take_turn(&all[2], now));
        assert!(!zones.take_turn(&all[3], now + INTERVAL / 2), "the zone had its turn");
        assert!(zones.take_turn(&all[6], now), "another zone has its own");
        assert!(zones.take_turn(&all[3], now + INTERVAL));
    }

    #[test]
    fn a_disrupted_zone_is_slow_if_large_and_stops_if_small() {
        let (small, large) = (nodes("a", 2, 4), nodes("a", 20, 40));
        let now = Instant::now();
        assert!(!counted(&small).take_turn(&small[0], now));
        let mut zones = counted(&large);
        assert!(zones.take_turn(&large[0], now));
        assert!(!zones.take_turn(&large[1], now + INTERVAL * 9));
        assert!(zones.take_turn(&large[1], now + INTERVAL * 10));
    }

    #[test]
    fn all_zones_down_is_no_longer_so_with_the_first_node_that_is_ready() {
        let mut all = [nodes("a", 0, 2), nodes("b", 0, 1)].concat();
        let mut zones = counted(&all);
        assert!(zones.all_are_down());
        all[2] = nodes("b", 1, 0).remove(0);
        assert_eq!(zones.apply(&all[2]), Turn::Recovered);
        assert!(!zones.all_are_down());
        assert_eq!(zones.apply(&all[2]), Turn::Same);
        assert!(zones.take_turn(&all[0], Instant::now()), "a dead zone among others is emptied");
        zones.delete("b-0");
        assert!(zones.all_are_down());
    }

    #[test]
    fn nodes_that_are_excluded_do_not_count() {
        let mut all = nodes("a", 1, 1);
        assert!(!counted(&all).all_are_down());
        let excluded = Arc::make_mut(&mut all[0]);
        excluded.metadata.labels.get_or_insert_default().insert(EXCLUDED.into(), String::new());
        assert!(counted(&all).all_are_down());
    }
}
