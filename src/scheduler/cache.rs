//! What the scheduler knows of the nodes and of the pods on them.
//!
//! A pod that was given a node is *assumed* to be there until the informer shows it bound, so that
//! the next pod finds the room taken. A snapshot shares the nodes' states: what changes afterwards
//! is copied first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kontiki_node_agent::fit::ports::{HostPort, host_ports};

use super::cycle;
use super::kin::{Kin, Surroundings};
use super::resources::{self, Resources};
use super::volumes::ClaimNeed;
use crate::controllers::{owners, pods};

/// A pod with what the plugins ask of it, worked out once.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it has in common with others.
    pub kin: Arc<Kin>,
    /// What it is seen against.
    pub surroundings: Arc<Surroundings>,
    /// What it asks for.
    pub requests: Resources,
    /// The same with defaults, for comparing nodes.
    pub counted: Resources,
    /// The ports of the node it wants.
    pub host_ports: Vec<HostPort>,
    /// What its claims want, or why it cannot be placed; filled in before it is scheduled.
    pub claims: Result<Vec<ClaimNeed>, String>,
}

impl PodInfo {
    /// Works out a pod.
    pub fn new(pod: Arc<Pod>, surroundings: &Arc<Surroundings>) -> Self {
        let kin = surroundings.kin_of(&pod);
        let surroundings = Arc::clone(surroundings);
        let requests = resources::requests(&pod);
        let counted = requests.or_default();
        let host_ports = host_ports(&pod);
        let claims = Ok(Vec::new());
        Self { pod, kin, surroundings, requests, counted, host_ports, claims }
    }

    /// The same with what its claims want.
    #[must_use]
    pub fn with_claims(&self, claims: Result<Vec<ClaimNeed>, String>) -> Self {
        Self {
            claims,
            host_ports: self.host_ports.clone(),
            pod: Arc::clone(&self.pod),
            kin: Arc::clone(&self.kin),
            surroundings: Arc::clone(&self.surroundings),
            requests: self.requests.clone(),
            counted: self.counted.clone(),
        }
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        owners::uid(&self.pod.metadata)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        owners::namespace(&self.pod.metadata)
    }

    /// Whether it wants to be near to other pods or far from them.
    pub fn is_choosy(&self) -> bool {
        let affinity = self.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        affinity.is_some_and(|one| one.pod_affinity.is_some() || one.pod_anti_affinity.is_some())
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
    }
}

/// A node with what is on it.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The node; an empty one where only its pods are known yet.
    pub node: Arc<Node>,
    /// Its pods by uid.
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    /// Those of them that want to be near to other pods or far from them, by uid: the others need
    /// not be looked at for every pod that comes.
    pub choosy: BTreeMap<String, Arc<PodInfo>>,
    /// How many it has of each kin.
    pub kins: Vec<(Arc<Kin>, i64)>,
    /// What it offers.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: i64,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same with defaults.
    pub counted: Resources,
    /// What decides, with a pod's, between it and nodes as good.
    pub lot: u64,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            node: Arc::default(),
            pods: BTreeMap::new(),
            choosy: BTreeMap::new(),
            kins: Vec::new(),
            allocatable: Resources::default(),
            max_pods: 0,
            requested: Resources::default(),
            counted: Resources::default(),
            lot: 0,
        };
        info.set_node(node);
        info
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let allocatable =
            node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        self.max_pods = allocatable
            .get("pods")
            .and_then(|quantity| quantity.0.parse::<kontiki_api::quantity::Quantity>().ok())
            .map_or(0, kontiki_api::quantity::Quantity::value);
        self.allocatable = Resources::of(&allocatable);
        self.lot = cycle::lot(owners::name(&node.metadata));
        self.node = node;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        owners::name(&self.node.metadata)
    }

    /// A label of it.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.requested.add(&pod.requests);
        self.counted.add(&pod.counted);
        if pod.is_choosy() {
            self.choosy.insert(pod.uid().to_owned(), Arc::clone(&pod));
        }
        match self.kins.iter_mut().find(|(kin, _)| *kin == pod.kin) {
            Some((_, count)) => *count += 1,
            None => self.kins.push((Arc::clone(&pod.kin), 1)),
        }
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    /// Takes a pod off it.
    pub fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.sub(&pod.requests);
            self.counted.sub(&pod.counted);
            self.choosy.remove(uid);
            if let Some((_, count)) = self.kins.iter_mut().find(|(kin, _)| *kin == pod.kin) {
                *count -= 1;
            }
            self.kins.retain(|(_, count)| *count > 0);
        }
    }
}

/// The nodes at one moment, in the order of their names.
pub type Snapshot = Vec<Arc<NodeInfo>>;

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    node: String,
    /// Not yet seen there by the informer.
    assumed: bool,
}

/// The nodes and their pods.
#[derive(Debug, Default)]
pub struct Cache {
    /// The nodes that exist, in the order of their names. A snapshot is another hold of it.
    nodes: Arc<Snapshot>,
    /// Nodes of which only the pods are known.
    strange: HashMap<String, NodeInfo>,
    places: HashMap<String, Place>,
    surroundings: Arc<Surroundings>,
}

impl Cache {
    /// Nothing yet.
    pub fn new(surroundings: Arc<Surroundings>) -> Self {
        Self { surroundings, ..Self::default() }
    }

    /// A pod, worked out.
    pub fn work_out(&self, pod: Arc<Pod>) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(pod, &self.surroundings))
    }

    /// The nodes as they are now. What changes while a snapshot is held is copied first, so it should
    /// not be held for longer than it is needed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.nodes)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.name().cmp(name))
    }

    /// Takes a node's state.
    pub fn apply_node(&mut self, node: Arc<Node>) {
        let name = owners::name(&node.metadata).to_owned();
        match self.position(&name) {
            Ok(at) => Arc::make_mut(&mut Arc::make_mut(&mut self.nodes)[at]).set_node(node),
            Err(at) => {
                let info = match self.strange.remove(&name) {
                    Some(mut info) => {
                        info.set_node(node);
                        info
                    }
                    None => NodeInfo::new(node),
                };
                Arc::make_mut(&mut self.nodes).insert(at, Arc::new(info));
            }
        }
    }

    /// Forgets a node; its pods stay known until they are deleted.
    pub fn delete_node(&mut self, name: &str) {
        let Ok(at) = self.position(name) else { return };
        let info = Arc::make_mut(&mut self.nodes).remove(at);
        if !info.pods.is_empty() {
            self.strange.insert(name.to_owned(), Arc::unwrap_or_clone(info));
        }
    }

    /// Takes a bound pod's state. One that has come to its end takes no room.
    pub fn apply_pod(&mut self, pod: &Arc<Pod>) {
        let Some(node) = pods::node_name(pod).filter(|_| !pods::is_terminal(pod)) else {
            return self.delete_pod(owners::uid(&pod.metadata));
        };
        let info = self.work_out(Arc::clone(pod));
        self.put(info, node.to_owned(), false);
    }

    /// Forgets a pod.
    pub fn delete_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        if let Ok(at) = self.position(&place.node) {
            Arc::make_mut(&mut Arc::make_mut(&mut self.nodes)[at]).remove(uid);
        } else if let Some(info) = self.strange.get_mut(&place.node) {
            info.remove(uid);
            if info.pods.is_empty() {
                self.strange.remove(&place.node);
            }
        }
    }

    /// Takes a pod to be on a node before that is seen.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.put(pod, node.to_owned(), true);
    }

    /// Takes back what was assumed, unless the pod has been seen bound meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.places.get(uid).is_some_and(|place| place.assumed) {
            self.delete_pod(uid);
        }
    }

    /// Whether the pod has a place, seen or assumed.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    /// The pod as it was last taken, where it has a place.
    pub fn pod(&self, uid: &str) -> Option<Arc<PodInfo>> {
        let place = self.places.get(uid)?;
        let node = match self.position(&place.node) {
            Ok(at) => &*self.nodes[at],
            Err(_) => self.strange.get(&place.node)?,
        };
        node.pods.get(uid).cloned()
    }

    /// Takes the whole state anew; what is assumed of pods that still exist unbound stays.
    pub fn reset(&mut self, nodes: Vec<Arc<Node>>, all_pods: &[Arc<Pod>]) {
        let present: HashSet<&str> =
            nodes.iter().map(|node| owners::name(&node.metadata)).collect();
        let gone = self.nodes.iter().map(|node| node.name().to_owned());
        let gone: Vec<String> = gone.filter(|name| !present.contains(name.as_str())).collect();
        for name in gone {
            self.delete_node(&name);
        }
        for node in nodes {
            self.apply_node(node);
        }
        let present: HashMap<&str, &Arc<Pod>> =
            all_pods.iter().map(|pod| (owners::uid(&pod.metadata), pod)).collect();
        let gone: Vec<String> =
            self.places.keys().filter(|uid| !present.contains_key(uid.as_str())).cloned().collect();
        for uid in gone {
            self.delete_pod(&uid);
        }
        for pod in all_pods.iter().filter(|pod| pods::node_name(pod).is_some()) {
            self.apply_pod(pod);
        }
    }

    fn put(&mut self, pod: Arc<PodInfo>, node: String, assumed: bool) {
        let uid = pod.uid().to_owned();
        self.delete_pod(&uid);
        if let Ok(at) = self.position(&node) {
            Arc::make_mut(&mut Arc::make_mut(&mut self.nodes)[at]).add(pod);
        } else {
            let strange = self.strange.entry(node.clone());
            strange.or_insert_with(|| NodeInfo::new(Arc::default())).add(pod);
        }
        self.places.insert(uid, Place { node, assumed });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, pod};
    use super::*;

    fn cpu_of(cache: &Cache, name: &str) -> i64 {
        cache.snapshot().iter().find(|node| node.name() == name).unwrap().requested.cpu_milli
    }

    #[test]
    fn what_is_assumed_takes_room_until_it_is_seen_or_taken_back() {
        let mut cache = Cache::default();
        cache.apply_node(node("n").cpu("4").arc());
        let one = pod("one").cpu("1").arc();
        cache.assume(cache.work_out(Arc::clone(&one)), "n");
        assert_eq!(cpu_of(&cache, "n"), 1000);
        cache.forget("one");
        assert_eq!(cpu_of(&cache, "n"), 0);

        cache.assume(cache.work_out(one), "n");
        cache.apply_pod(&pod("one").cpu("1").on("n").arc());
        cache.forget("one");
        assert_eq!(cpu_of(&cache, "n"), 1000, "what was seen is not taken back");
    }

    #[test]
    fn pods_at_their_end_and_deleted_ones_make_room() {
        let mut cache = Cache::default();
        cache.apply_node(node("n").cpu("4").arc());
        cache.apply_pod(&pod("one").cpu("1").on("n").arc());
        cache.apply_pod(&pod("two").cpu("2").on("n").arc());
        assert_eq!(cpu_of(&cache, "n"), 3000);
        cache.apply_pod(&pod("one").cpu("1").on("n").phase("Succeeded").arc());
        assert_eq!(cpu_of(&cache, "n"), 2000);
        cache.delete_pod("two");
        assert_eq!(cpu_of(&cache, "n"), 0);
    }

    #[test]
    fn a_node_that_comes_after_its_pods_has_them() {
        let mut cache = Cache::default();
        cache.apply_pod(&pod("early").cpu("1").on("late").arc());
        assert!(cache.snapshot().is_empty(), "pods alone make no node");
        cache.apply_node(node("late").cpu("4").arc());
        assert_eq!(cpu_of(&cache, "late"), 1000);
        cache.delete_node("late");
        assert!(cache.snapshot().is_empty());
    }

    #[test]
    fn a_snapshot_does_not_change_with_the_cache() {
        let mut cache = Cache::default();
        cache.apply_node(node("n").cpu("4").arc());
        let before = cache.snapshot();
        cache.apply_pod(&pod("one").cpu("1").on("n").arc());
        assert_eq!(before[0].requested.cpu_milli, 0);
    }

    #[test]
    fn a_reset_drops_what_is_gone_and_keeps_what_is_assumed() {
        let mut cache = Cache::default();
        cache.apply_node(node("n").cpu("4").arc());
        cache.apply_node(node("gone").cpu("4").arc());
        cache.apply_pod(&pod("deleted").cpu("1").on("n").arc());
        let waiting = pod("waiting").cpu("2").arc();
        cache.assume(cache.work_out(Arc::clone(&waiting)), "n");
        cache.reset(vec![node("n").cpu("4").arc()], &[waiting]);
        assert_eq!(cache.snapshot().len(), 1);
        assert_eq!(cpu_of(&cache, "n"), 2000);
    }
}
