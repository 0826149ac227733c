//! [`Kin`]: what selectors and spreading ask of a pod, which most pods have in common with others.
//!
//! A node keeps how many of each kin it has, and who counts pods asks once of each kin: to match every
//! pod of every node anew for each pod that comes was two thirds of the cycle of pods that are spread
//! (4,000 pods, 1,000 nodes).

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::cache::NodeInfo;
use crate::controllers::labels::Labels;
use crate::controllers::{owners, pods};

/// How many kins are kept before those of nobody any more are looked for.
const KINS_MIN: usize = 1024;
/// The label by which every namespace can be selected.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What pods have in common.
#[derive(Debug)]
pub struct Kin {
    /// Of all that follows.
    hash: u64,
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub labels: Labels,
    /// The uid of their controller; empty where they have none.
    pub owner: String,
    /// Whether they are being deleted.
    pub is_terminating: bool,
}

impl Kin {
    /// The kin of a pod.
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let owner = owners::controller_of(meta).map(|owner| owner.uid.clone());
        let mut kin = Self {
            hash: 0,
            namespace: owners::namespace(meta).to_owned(),
            labels: meta.labels.clone().unwrap_or_default(),
            owner: owner.unwrap_or_default(),
            is_terminating: pods::is_terminating(pod),
        };
        let mut hasher = DefaultHasher::new();
        (&kin.namespace, &kin.labels, &kin.owner, kin.is_terminating).hash(&mut hasher);
        kin.hash = hasher.finish();
        kin
    }
}

impl Hash for Kin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Kin {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && (std::ptr::eq(self, other)
                || (&self.namespace, &self.labels, &self.owner, self.is_terminating)
                    == (&other.namespace, &other.labels, &other.owner, other.is_terminating))
    }
}

impl Eq for Kin {}

/// Says the labels of a namespace, where it is known.
type LabelsOf = dyn Fn(&str) -> Option<Labels> + Send + Sync;

/// What pods are seen against: their kins, each once, and the labels of namespaces.
#[derive(Default)]
pub struct Surroundings {
    kins: Mutex<Kins>,
    namespaces: Option<Box<LabelsOf>>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Kins {
    all: HashSet<Arc<Kin>>,
    /// How many there were when those of nobody were last dropped.
    kept: usize,
}

impl Surroundings {
    /// Surroundings in which namespaces have these labels.
    pub fn new(namespaces: impl Fn(&str) -> Option<Labels> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { namespaces: Some(Box::new(namespaces)), ..Self::default() })
    }

    /// The kin of a pod, the same for all that share it.
    pub fn kin_of(&self, pod: &Pod) -> Arc<Kin> {
        let kin = Kin::of(pod);
        let mut kins = self.kins.lock();
        if let Some(known) = kins.all.get(&kin) {
            return Arc::clone(known);
        }
        if kins.all.len() > KINS_MIN.max(2 * kins.kept) {
            kins.all.retain(|kin| Arc::strong_count(kin) > 1);
            kins.kept = kins.all.len();
        }
        let kin = Arc::new(kin);
        kins.all.insert(Arc::clone(&kin));
        kin
    }

    /// The labels of a namespace; of one that is not known, its name only.
    pub fn labels_of(&self, namespace: &str) -> Labels {
        let known = self.namespaces.as_ref().and_then(|labels_of| labels_of(namespace));
        known.unwrap_or_else(|| Labels::from([(NAMESPACE_NAME.to_owned(), namespace.to_owned())]))
    }
}

/// Counts the pods on nodes whose kin is asked for.
pub struct Tally<F> {
    asks: F,
    /// The answers, by where the kins are: whoever counts holds the nodes, and they hold their kins.
    known: HashMap<*const Kin, bool>,
}

impl<F: Fn(&Kin) -> bool> Tally<F> {
    /// Counts those of whom `asks` says yes.
    pub fn new(asks: F) -> Self {
        Self { asks, known: HashMap::new() }
    }

    /// How many of them are on the node, which must live as long as the tally is used.
    pub fn on(&mut self, node: &NodeInfo) -> i64 {
        let Self { asks, known } = self;
        let counts = node
            .kins
            .iter()
            .filter(|(kin, _)| *known.entry(Arc::as_ptr(kin)).or_insert_with(|| asks(kin)));
        counts.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn pods_with_the_same_labels_are_of_one_kin_and_others_are_not() {
        let all = Surroundings::default();
        let kin = |name: &str, app: &str| all.kin_of(&pod(name).label("app", app).arc());
        assert!(Arc::ptr_eq(&kin("a", "web"), &kin("b", "web")));
        assert!(!Arc::ptr_eq(&kin("a", "web"), &kin("b", "db")));
        let mut elsewhere = pod("a").label("app", "web");
        elsewhere.0.metadata.namespace = Some("prod".to_owned());
        assert_ne!(kin("a", "web"), all.kin_of(&elsewhere.arc()));
    }

    #[test]
    fn kins_of_nobody_are_dropped() {
        let all = Surroundings::default();
        let kept = all.kin_of(&pod("kept").label("app", "kept").arc());
        for number in 0..3 * KINS_MIN {
            all.kin_of(&pod("p").label("app", &number.to_string()).arc());
        }
        assert!(all.kins.lock().all.len() <= 2 * KINS_MIN);
        assert!(Arc::ptr_eq(&kept, &all.kin_of(&pod("other").label("app", "kept").arc())));
    }

    #[test]
    fn a_tally_follows_who_comes_and_goes() {
        let mut busy = NodeInfo::clone(&node("n").info(vec![
            pod("a").label("app", "web").info(),
            pod("b").label("app", "web").info(),
            pod("c").label("app", "db").info(),
        ]));
        let webs = |node: &NodeInfo| {
            let is_web = |kin: &Kin| kin.labels.get("app").is_some_and(|app| app == "web");
            Tally::new(is_web).on(node)
        };
        assert_eq!(webs(&busy), 2);
        busy.remove("a");
        assert_eq!(webs(&busy), 1);
        busy.add(pod("b").label("app", "db").info());
        assert_eq!((webs(&busy), busy.kins.len()), (0, 1));
    }
}
