//! Whether a node is alive: when it was last heard, and what its conditions must say then.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controllers::owners;

/// The conditions that the node itself reports.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What a node's condition `Ready` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// `True`.
    Ready,
    /// `False`: the node itself says so.
    NotReady,
    /// `Unknown`: the node is silent.
    Unknown,
    /// Nothing was said yet.
    Unsaid,
}

impl Readiness {
    /// What the node's condition says.
    pub fn of(node: &Node) -> Self {
        match condition(node, "Ready").map(|ready| ready.status.as_str()) {
            Some("True") => Self::Ready,
            Some("False") => Self::NotReady,
            Some(_) => Self::Unknown,
            None => Self::Unsaid,
        }
    }

    /// Whether the node was reported as not ready, or is silent.
    pub fn is_down(self) -> bool {
        matches!(self, Self::NotReady | Self::Unknown)
    }
}

/// How long a node may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// One that has reported its status.
    pub running: Duration,
    /// One that has not yet.
    pub starting: Duration,
}

impl Graces {
    fn of(self, node: &Node) -> Duration {
        if Readiness::of(node) == Readiness::Unsaid { self.starting } else { self.running }
    }
}

/// When each node was last heard, by the clock of this process: the nodes' own clocks may be wrong.
/// A new term counts from its own beginning.
#[derive(Debug, Default)]
pub struct Heartbeats {
    nodes: Mutex<HashMap<String, Beat>>,
}

#[derive(Debug)]
struct Beat {
    heard: Instant,
    /// The renewal last seen in the node's Lease.
    renewed: Option<Timestamp>,
    /// The heartbeat last seen in the node's status.
    reported: Option<Timestamp>,
    down_since: Option<Instant>,
    /// Known once the node itself was seen; its Lease may come first.
    uid: Option<String>,
}

impl Heartbeats {
    /// Takes note of a Lease as it is.
    pub fn renewed(&self, node: &str, at: Option<Timestamp>, now: Instant) {
        let mut nodes = self.nodes.lock();
        let beat = nodes.entry(node.to_owned()).or_insert_with(|| Beat::new(now));
        if at > beat.renewed {
            beat.renewed = at;
            beat.heard = now;
        }
    }

    /// Takes note of a node as it is; when it was last heard.
    pub fn observe(&self, node: &Node, now: Instant) -> Instant {
        let reported = condition(node, "Ready")
            .and_then(|ready| ready.last_heartbeat_time.as_ref())
            .map(|time| time.0);
        let mut nodes = self.nodes.lock();
        let name = owners::name(&node.metadata).to_owned();
        let beat = nodes.entry(name).or_insert_with(|| Beat::new(now));
        if beat.uid != node.metadata.uid {
            beat.uid.clone_from(&node.metadata.uid);
            beat.heard = now;
        }
        if reported != beat.reported {
            beat.reported = reported;
            beat.heard = now;
        }
        beat.heard
    }

    /// Whether the node was seen before.
    pub fn knows(&self, node: &str) -> bool {
        self.nodes.lock().get(node).is_some_and(|beat| beat.uid.is_some())
    }

    /// Forgets a node that is gone; the uid it had.
    pub fn forget(&self, node: &str) -> Option<String> {
        self.nodes.lock().remove(node)?.uid
    }

    /// Since when the node is seen to be down; `None` where it is not.
    pub fn down_since(&self, node: &str, readiness: Readiness, now: Instant) -> Option<Instant> {
        let mut nodes = self.nodes.lock();
        let beat = nodes.get_mut(node)?;
        if !readiness.is_down() {
            beat.down_since = None;
            return None;
        }
        Some(*beat.down_since.get_or_insert(now))
    }

    /// Counts all silence anew: nobody could be heard.
    pub fn restart(&self, now: Instant) {
        for beat in self.nodes.lock().values_mut() {
            beat.heard = now;
            beat.down_since = beat.down_since.map(|_| now);
        }
    }
}

impl Beat {
    fn new(now: Instant) -> Self {
        Self { heard: now, renewed: None, reported: None, down_since: None, uid: None }
    }
}

/// The conditions of a node that was last heard at `heard`, where they must change.
pub fn plan(
    node: &Node,
    heard: Instant,
    graces: Graces,
    now: Instant,
    time: Timestamp,
) -> Option<Vec<NodeCondition>> {
    if now.duration_since(heard) < graces.of(node) || Readiness::of(node) == Readiness::Unknown {
        return None;
    }
    let mut conditions =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(seconds(time))),
            }),
            Some(condition) if condition.status != "Unknown" => {
                "Unknown".clone_into(&mut condition.status);
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(seconds(time)));
            }
            Some(_) => {}
        }
    }
    Some(conditions)
}

/// How long until the node's grace ends, where it is not known to be silent already.
pub fn next_look(node: &Node, heard: Instant, graces: Graces, now: Instant) -> Option<Duration> {
    (Readiness::of(node) != Readiness::Unknown)
        .then(|| graces.of(node).saturating_sub(now.duration_since(heard)))
}

/// The node's condition of a type.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Times in conditions carry whole seconds.
pub fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRACES: Graces =
        Graces { running: Duration::from_secs(50), starting: Duration::from_secs(60) };

    fn node(conditions: &serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {
                "name": "n", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn ready(heartbeat: &str) -> Node {
        node(&json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat }]))
    }

    #[test]
    fn a_node_that_falls_silent_is_unknown_in_all_it_reports() {
        let node = node(&json!([
            { "type": "NetworkUnavailable", "status": "False" },
            { "type": "Ready", "status": "True", "reason": "KubeletReady" },
            { "type": "MemoryPressure", "status": "False" },
        ]));
        let heard = Instant::now();
        let time: Timestamp = "2026-01-01T01:00:00.7Z".parse().unwrap();
        let early = heard + Duration::from_secs(49);
        assert_eq!(plan(&node, heard, GRACES, early, time), None);
        assert_eq!(next_look(&node, heard, GRACES, early), Some(Duration::from_secs(1)));
        let late = heard + Duration::from_secs(50);
        let told: Vec<_> = plan(&node, heard, GRACES, late, time)
            .unwrap()
            .into_iter()
            .map(|one| (one.type_, one.status, one.reason.unwrap_or_default(), one.message))
            .collect();
        let line = |kind: &str, status: &str, reason: &str, message: Option<&str>| {
            (kind.to_owned(), status.to_owned(), reason.to_owned(), message.map(str::to_owned))
        };
        let stopped = Some("Kubelet stopped posting node status.");
        let never = Some("Kubelet never posted node status.");
        assert_eq!(
            told,
            [
                line("NetworkUnavailable", "False", "", None),
                line("Ready", "Unknown", "NodeStatusUnknown", stopped),
                line("MemoryPressure", "Unknown", "NodeStatusUnknown", stopped),
                line("DiskPressure", "Unknown", "NodeStatusNeverUpdated", never),
                line("PIDPressure", "Unknown", "NodeStatusNeverUpdated", never),
            ]
        );
    }

    #[test]
    fn a_node_that_never_reported_has_longer_and_one_known_as_silent_is_left_alone() {
        let heard = Instant::now();
        let unsaid = node(&json!([]));
        let between = heard + Duration::from_secs(55);
        assert_eq!(plan(&unsaid, heard, GRACES, between, Timestamp::UNIX_EPOCH), None);
        let late = heard + Duration::from_secs(60);
        assert_eq!(
            plan(&unsaid, heard, GRACES, late, Timestamp::UNIX_EPOCH).map(|all| all.len()),
            Some(4)
        );
        let silent = node(&json!([{ "type": "Ready", "status": "Unknown" }]));
        assert_eq!(plan(&silent, heard, GRACES, late, Timestamp::UNIX_EPOCH), None);
        assert_eq!(next_look(&silent, heard, GRACES, late), None);
    }

    #[test]
    fn a_renewed_lease_or_a_newer_report_is_a_heartbeat() {
        let beats = Heartbeats::default();
        let second = |number| {
            "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()
                + jiff::SignedDuration::from_secs(number)
        };
        let begin = Instant::now();
        let at = |number| begin + Duration::from_secs(number);
        assert_eq!(beats.observe(&ready("2026-01-01T00:00:00Z"), at(0)), at(0));
        assert_eq!(beats.observe(&ready("2026-01-01T00:00:00Z"), at(10)), at(0));
        beats.renewed("n", Some(second(5)), at(20));
        beats.renewed("n", Some(second(5)), at(30));
        assert_eq!(beats.observe(&ready("2026-01-01T00:00:00Z"), at(30)), at(20));
        // A clock that was set back is not a sign of life; a newer time is, however far behind.
        beats.renewed("n", Some(second(4)), at(40));
        assert_eq!(beats.observe(&ready("2026-01-01T00:00:00Z"), at(40)), at(20));
        assert_eq!(beats.observe(&ready("2026-01-01T00:00:10Z"), at(50)), at(50));
        assert_eq!(beats.forget("n").as_deref(), Some("1"));
        assert!(!beats.knows("n"));
    }

    #[test]
    fn a_node_is_down_from_when_it_was_first_seen_so() {
        let beats = Heartbeats::default();
        let begin = Instant::now();
        let later = begin + Duration::from_secs(7);
        beats.observe(&ready("2026-01-01T00:00:00Z"), begin);
        assert_eq!(beats.down_since("n", Readiness::Unknown, begin), Some(begin));
        assert_eq!(beats.down_since("n", Readiness::NotReady, later), Some(begin));
        assert_eq!(beats.down_since("n", Readiness::Ready, later), None);
        assert_eq!(beats.down_since("n", Readiness::Unknown, later), Some(later));
    }
}
