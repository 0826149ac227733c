//! What this node has promised its pods, and what their containers were given of it. A pod that asks
//! for more is promised it only while there is room beside what the others were promised; until then
//! it keeps what it has. Both are on disk, so that an agent that starts anew restarts nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::api::uid;
use crate::paths::Paths;
use crate::plan::resize::Pending;
use crate::plan::{all_containers, is_sidecar, main_containers};
use crate::quantity;

type ByContainer = BTreeMap<String, ResourceRequirements>;

/// CPU and memory that are asked for, or that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Thousandths of processors.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

impl Amounts {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    fn of(
        requests: Option<
            &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >,
    ) -> Self {
        let of = |name: &str| requests.and_then(|requests| requests.get(name));
        Self {
            cpu_milli: of("cpu").and_then(quantity::milli).unwrap_or(0),
            memory_bytes: of("memory").and_then(quantity::whole).unwrap_or(0),
        }
    }

    /// What a pod asks for: the most that runs at the same time.
    pub fn of_pod(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let of = |container: &Container| {
            Self::of(container.resources.as_ref().and_then(|own| own.requests.as_ref()))
        };
        let main = main_containers(pod).map(of).fold(Self::default(), Self::plus);
        let (mut sidecars, mut starting) = (Self::default(), Self::default());
        for container in spec.init_containers.iter().flatten() {
            let now = sidecars.plus(of(container));
            starting = starting.max(now);
            if is_sidecar(container) {
                sidecars = now;
            }
        }
        let mut all = main.plus(sidecars).max(starting);
        let whole = spec.resources.as_ref().and_then(|own| own.requests.as_ref());
        let own = Self::of(whole);
        if whole.is_some_and(|whole| whole.contains_key("cpu")) {
            all.cpu_milli = own.cpu_milli;
        }
        if whole.is_some_and(|whole| whole.contains_key("memory")) {
            all.memory_bytes = own.memory_bytes;
        }
        all.plus(Self::of(spec.overhead.as_ref()))
    }
}

/// What one pod has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Held {
    /// What it asked for when it was last promised something.
    requests: Amounts,
    /// What each container was promised.
    promised: ByContainer,
    /// What each container was given.
    given: ByContainer,
}

/// What a pod asks for, compared with what it was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has been promised that before.
    Same,
    /// It is promised that from now on.
    Promised,
    /// It is not.
    Pending(Pending),
}

/// The promises of a node.
#[derive(Debug)]
pub struct Allocations {
    dir: PathBuf,
    capacity: Amounts,
    held: Mutex<HashMap<String, Held>>,
}

impl Allocations {
    /// The promises of a node with so much to give, as they were when the agent ended. A file that
    /// cannot be read is left out: its pod is promised what it asks for then.
    pub fn open(paths: &Paths, capacity: Amounts) -> std::io::Result<Self> {
        let dir = paths.allocations();
        std::fs::create_dir_all(&dir)?;
        let mut held = HashMap::new();
        for path in std::fs::read_dir(&dir)?.flatten().map(|entry| entry.path()) {
            if let Some((uid, one)) = read(&path) {
                held.insert(uid, one);
            } else {
                tracing::warn!(file = %path.display(), "skip a damaged allocation");
            }
        }
        Ok(Self { dir, capacity, held: Mutex::new(held) })
    }

    /// Promises a pod what it asks for, if there is room. A new pod is promised it in any case: the
    /// scheduler has seen to that.
    pub fn admit(&self, pod: &Pod) -> Verdict {
        let wanted = resources(pod);
        let mut all = self.held.lock();
        let Some(held) = all.get(uid(pod)) else {
            let requests = Amounts::of_pod(pod);
            let held = Held { requests, promised: wanted.clone(), given: wanted };
            self.save(uid(pod), &held);
            all.insert(uid(pod).to_owned(), held);
            return Verdict::Same;
        };
        if held.promised == wanted {
            return Verdict::Same;
        }
        let others = all.iter().filter(|(other, _)| *other != uid(pod));
        let used = others.map(|(_, other)| other.requests).fold(Amounts::default(), Amounts::plus);
        let requests = Amounts::of_pod(pod);
        if let Some(pending) = refusal(requests, held.requests, used, self.capacity) {
            return Verdict::Pending(pending);
        }
        let given = held.given.clone();
        let held = Held { requests, promised: wanted, given };
        self.save(uid(pod), &held);
        all.insert(uid(pod).to_owned(), held);
        Verdict::Promised
    }

    /// The pod with what was promised to it in the place of what it asks for.
    pub fn promised(&self, mut pod: Pod) -> Pod {
        let all = self.held.lock();
        let (Some(held), Some(spec)) = (all.get(uid(&pod)), &mut pod.spec) else {
            drop(all);
            return pod;
        };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
        {
            if let Some(promised) = held.promised.get(&container.name) {
                container.resources = Some(promised.clone());
            }
        }
        drop(all);
        pod
    }

    /// What the containers of a pod were given.
    pub fn given(&self, uid: &str) -> ByContainer {
        self.held.lock().get(uid).map(|held| held.given.clone()).unwrap_or_default()
    }

    /// Notes that a container has what the pod says of it.
    pub fn give(&self, pod: &Pod, name: &str) {
        let Some(resources) = resources(pod).remove(name) else { return };
        let mut all = self.held.lock();
        if let Some(held) = all.get_mut(uid(pod))
            && held.given.get(name) != Some(&resources)
        {
            held.given.insert(name.to_owned(), resources);
            self.save(uid(pod), held);
        }
    }

    /// Takes back what a pod was promised: it has ended.
    pub fn forget(&self, uid: &str) {
        if self.held.lock().remove(uid).is_some() {
            let _ = std::fs::remove_file(self.file(uid));
        }
    }

    fn file(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.json"))
    }

    fn save(&self, uid: &str, held: &Held) {
        let path = self.file(uid);
        let draft = path.with_extension("new");
        let saved = serde_json::to_vec(held)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&draft, text))
            .and_then(|()| std::fs::rename(&draft, &path));
        if let Err(error) = saved {
            tracing::warn!(file = %path.display(), %error, "what a pod was promised was not noted");
        }
    }
}

fn read(path: &Path) -> Option<(String, Held)> {
    let uid = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
    Some((uid, serde_json::from_slice(&std::fs::read(path).ok()?).ok()?))
}

fn resources(pod: &Pod) -> ByContainer {
    let of = |container: &Container| {
        (container.name.clone(), container.resources.clone().unwrap_or_default())
    };
    all_containers(pod).map(of).collect()
}

/// Why a pod that has been promised `before` is not promised `wanted`.
fn refusal(wanted: Amounts, before: Amounts, used: Amounts, capacity: Amounts) -> Option<Pending> {
    let each = |of: Amounts| [("cpu", of.cpu_milli), ("memory", of.memory_bytes)];
    // Of two that are too much the kubelet names memory first here, and CPU first below.
    for ((name, wanted), (_, capacity)) in each(wanted).into_iter().zip(each(capacity)).rev() {
        if wanted > capacity {
            return Some(Pending {
                reason: "Infeasible",
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
                ),
            });
        }
    }
    let all = each(wanted).into_iter().zip(each(before)).zip(each(used)).zip(each(capacity));
    for ((((name, wanted), (_, before)), (_, used)), (_, capacity)) in all {
        if wanted > before && wanted.saturating_add(used) > capacity {
            return Some(Pending {
                reason: "Deferred",
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, \
                     capacity: {capacity}"
                ),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, cpu: &str, memory: &str) -> Pod {
        let requests = json!({ "cpu": cpu, "memory": memory });
        serde_json::from_value(json!({
            "metadata": { "uid": uid },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": requests } }] },
        }))
        .unwrap()
    }

    fn open(dir: &Path) -> Allocations {
        let capacity = Amounts { cpu_milli: 2000, memory_bytes: 1 << 30 };
        Allocations::open(&Paths::new(dir), capacity).unwrap()
    }

    fn cpu_promised(node: &Allocations, pod: &Pod) -> String {
        let promised = node.promised(pod.clone()).spec.unwrap().containers.remove(0);
        promised.resources.unwrap().requests.unwrap()["cpu"].0.clone()
    }

    #[test]
    fn a_pod_is_promised_more_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        assert_eq!(node.admit(&pod("a", "500m", "64Mi")), Verdict::Same);
        assert_eq!(node.admit(&pod("b", "1", "64Mi")), Verdict::Same);
        assert_eq!(node.admit(&pod("a", "1", "64Mi")), Verdict::Promised);
        assert_eq!(cpu_promised(&node, &pod("a", "1", "64Mi")), "1");
        let too_much = pod("a", "1500m", "64Mi");
        let Verdict::Pending(pending) = node.admit(&too_much) else { panic!("there is no room") };
        assert_eq!(pending.reason, "Deferred");
        assert_eq!(
            pending.message,
            "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
        );
        assert_eq!(cpu_promised(&node, &too_much), "1", "it keeps what it has");
        node.forget("b");
        assert_eq!(node.admit(&too_much), Verdict::Promised);
    }

    #[test]
    fn what_a_node_can_never_give_is_infeasible() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "1", "64Mi"));
        for (cpu, memory, message) in [
            ("1k", "64Mi", "cpu, requested: 1000000, capacity: 2000"),
            ("1k", "2Gi", "memory, requested: 2147483648, capacity: 1073741824"),
        ] {
            let verdict = node.admit(&pod("a", cpu, memory));
            let message = format!("Node didn't have enough capacity: {message}");
            assert_eq!(verdict, Verdict::Pending(Pending { reason: "Infeasible", message }));
        }
    }

    #[test]
    fn a_full_node_still_takes_back() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "3", "64Mi"));
        node.admit(&pod("b", "3", "64Mi"));
        assert_eq!(node.admit(&pod("a", "1900m", "64Mi")), Verdict::Promised);
    }

    #[test]
    fn promises_and_gifts_outlive_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "500m", "64Mi"));
        node.admit(&pod("a", "1", "64Mi"));
        let node = open(dir.path());
        assert_eq!(node.admit(&pod("a", "1", "64Mi")), Verdict::Same);
        let given =
            |node: &Allocations| node.given("a")["c"].requests.clone().unwrap()["cpu"].0.clone();
        assert_eq!(given(&node), "500m", "promised, and not yet given");
        node.give(&pod("a", "1", "64Mi"), "c");
        assert_eq!(given(&open(dir.path())), "1");
        node.forget("a");
        assert!(open(dir.path()).given("a").is_empty());
    }

    #[test]
    fn a_pod_asks_for_the_most_that_runs_at_once() {
        let of = |cpu: &str| json!({ "name": cpu, "resources": { "requests": { "cpu": cpu } } });
        let mut sidecar = of("1");
        sidecar["restartPolicy"] = json!("Always");
        let mut pod: Pod = serde_json::from_value(json!({ "spec": {
            "initContainers": [sidecar, of("4")], "containers": [of("2")],
            "overhead": { "cpu": "250m" },
        }}))
        .unwrap();
        assert_eq!(Amounts::of_pod(&pod).cpu_milli, 5250);
        let whole = json!({ "requests": { "cpu": "3" } });
        pod.spec.as_mut().unwrap().resources = Some(serde_json::from_value(whole).unwrap());
        assert_eq!(Amounts::of_pod(&pod).cpu_milli, 3250);
    }
}
