//! Pods that drove off others, and the node each waits for: nobody of less importance may take the
//! room meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::{NodeInfo, PodInfo, Snapshot};

/// The nominated pods, by uid.
#[derive(Debug, Default)]
pub struct Nominations(HashMap<String, (Arc<PodInfo>, String)>);

impl Nominations {
    /// Takes the state of a pod without a node. What was nominated here and is not yet in its status
    /// stays.
    pub fn apply(&mut self, pod: &Arc<PodInfo>) {
        let status = pod.pod.status.as_ref();
        let said = status.and_then(|status| status.nominated_node_name.clone());
        if let Some(node) = said.filter(|node| !node.is_empty()) {
            self.put(Arc::clone(pod), node);
        } else if let Some((known, _)) = self.0.get_mut(pod.uid()) {
            *known = Arc::clone(pod);
        }
    }

    /// Nominates a node for a pod.
    pub fn put(&mut self, pod: Arc<PodInfo>, node: String) {
        self.0.insert(pod.uid().to_owned(), (pod, node));
    }

    /// Forgets a pod; says whether it was nominated.
    pub fn delete(&mut self, uid: &str) -> bool {
        self.0.remove(uid).is_some()
    }

    /// Forgets all pods but those that `keep`.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| keep(uid));
    }

    /// The node a pod waits for.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.0.get(uid).map(|(_, node)| node.as_str())
    }

    /// Forgets those of lower priority that wait for the node: it goes to another. They are named.
    pub fn displace(&mut self, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
        let is_displaced = |pod: &PodInfo, own: &str| own == node && pod.priority() < priority;
        let gone: Vec<Arc<PodInfo>> = self
            .0
            .values()
            .filter(|(pod, own)| is_displaced(pod, own))
            .map(|(pod, _)| Arc::clone(pod))
            .collect();
        for pod in &gone {
            self.delete(pod.uid());
        }
        gone
    }

    /// The nodes as `pod` must see them: with those on it that wait for it and are not less
    /// important. `None` where that changes nothing.
    pub fn crowd(&self, nodes: &Snapshot, pod: &PodInfo) -> Option<Snapshot> {
        let others: Vec<&(Arc<PodInfo>, String)> = self
            .0
            .values()
            .filter(|(other, _)| other.uid() != pod.uid() && other.priority() >= pod.priority())
            .collect();
        if others.is_empty() {
            return None;
        }
        let mut crowded = nodes.clone();
        for (other, name) in others {
            // Snapshots are in the order of names: a thousand that wait would each look at all nodes.
            if let Ok(at) = crowded.binary_search_by(|node| node.name().cmp(name)) {
                let node: &mut NodeInfo = Arc::make_mut(&mut crowded[at]);
                node.add(Arc::clone(other));
            }
        }
        Some(crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn the_room_of_a_nominated_pod_is_kept_from_lower_ones_only() {
        let nodes = vec![node("n").cpu("4").info(vec![])];
        let mut nominations = Nominations::default();
        nominations.put(pod("waits").cpu("3").priority(5).info(), "n".to_owned());
        let seen = |priority: i32| {
            let other = pod("other").priority(priority).info();
            nominations.crowd(&nodes, &other).map(|nodes| nodes[0].requested.cpu_milli)
        };
        assert_eq!((seen(1), seen(5), seen(6)), (Some(3000), Some(3000), None));
        let itself = nominations.crowd(&nodes, &pod("waits").priority(5).info());
        assert!(itself.is_none());
    }

    #[test]
    fn a_status_that_lags_behind_takes_no_nomination_back() {
        let mut nominations = Nominations::default();
        nominations.put(pod("p").info(), "n".to_owned());
        nominations.apply(&pod("p").label("a", "b").info());
        assert_eq!(nominations.node_of("p"), Some("n"));
        assert_eq!(nominations.displace("n", 0).len(), 0, "its own priority is no less");
        assert_eq!(nominations.displace("n", 1).len(), 1);
        assert_eq!(nominations.node_of("p"), None);
    }
}
