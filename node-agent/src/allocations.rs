//! What this node has promised its pods, and what their containers were given of it. A pod that asks
//! for more is promised it only while there is room beside what the others were promised; until then
//! it keeps what it has. Both are on disk, so that an agent that starts anew restarts nothing; they are
//! written there off the runtime's threads, one pod's in the order in which its worker waits for it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::admit::Refusal;
use crate::api::uid;
use crate::checkpoint;
use crate::fit::extended::{self, Extended};
use crate::fit::ports::{HostPort, host_ports};
use crate::paths::Paths;
use crate::plan::all_containers;
use crate::plan::resize::Pending;
use crate::static_pods::is_static;
use crate::{quantity, requests};

mod room;

type ByContainer = BTreeMap<String, ResourceRequirements>;

/// What can be divided, as far as it is asked for or is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Thousandths of processors.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes.
    #[serde(default)]
    pub disk_bytes: i64,
}

/// What a node has for its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub amounts: Amounts,
    /// How many pods.
    pub pods: usize,
}

impl Amounts {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }

    /// What a pod asks for: the most that runs at the same time.
    pub fn of_pod(pod: &Pod) -> Self {
        Self {
            cpu_milli: requests::of_pod(pod, "cpu", quantity::milli),
            memory_bytes: requests::of_pod(pod, "memory", quantity::whole),
            disk_bytes: requests::of_pod(pod, "ephemeral-storage", quantity::whole),
        }
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
    /// The node's ports that are its own.
    #[serde(default)]
    ports: Vec<HostPort>,
    /// What it has of that which has a name alone.
    #[serde(default)]
    extended: Extended,
}

impl Held {
    /// What a pod has that is new here.
    fn new(pod: &Pod) -> Self {
        let wanted = resources(pod);
        let requests = Amounts::of_pod(pod);
        let (ports, extended) = (host_ports(pod), extended::of_pod(pod));
        Self { requests, promised: wanted.clone(), given: wanted, ports, extended }
    }
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
    room: Room,
    held: Mutex<HashMap<String, Held>>,
}

impl Allocations {
    /// The promises of a node with so much to give, as they were when the agent ended. A file that
    /// cannot be read is left out: its pod is promised what it asks for then. So is one of a pod that
    /// the checkpoint does not know: nobody would ever take its promise back.
    pub fn open(paths: &Paths, room: Room) -> std::io::Result<Self> {
        let dir = paths.allocations();
        std::fs::create_dir_all(&dir)?;
        let mut held = HashMap::new();
        for path in std::fs::read_dir(&dir)?.flatten().map(|entry| entry.path()) {
            match read(&path) {
                Some((uid, one)) if checkpoint::file(&paths.checkpoint(), &uid).exists() => {
                    held.insert(uid, one);
                }
                Some((uid, _)) => {
                    tracing::info!(uid, "drop an allocation whose pod is gone");
                    let _ = std::fs::remove_file(&path);
                }
                None => tracing::warn!(file = %path.display(), "skip a damaged allocation"),
            }
        }
        Ok(Self { dir, room, held: Mutex::new(held) })
    }

    /// Promises a pod that is seen for the first time what it asks for, if there is room, with so much
    /// of what has a name alone, and `elsewise` names no other reason against it. Static pods find room always: where upstream would drive
    /// others off for them, they share what there is.
    pub async fn take_in(
        &self,
        pod: &Pod,
        named: &Extended,
        elsewise: Option<Refusal>,
    ) -> Result<(), Refusal> {
        let held = Held::new(pod);
        {
            let mut all = self.held.lock();
            let amounts = if is_static(pod) { Amounts::default() } else { held.requests };
            let (ports, extended) = (held.ports.as_slice(), &held.extended);
            let wants = room::Wants { amounts, ports, extended, extended_room: named };
            let others = all.iter().filter(|(other, _)| *other != uid(pod)).map(|(_, held)| held);
            if let Some(refusal) = room::refusal(&wants, elsewise, self.room, others) {
                return Err(refusal);
            }
            all.insert(uid(pod).to_owned(), held.clone());
        }
        self.save(uid(pod), held).await;
        Ok(())
    }

    /// Promises a pod what it asks for, if there is room. One that is not known, but runs, is promised
    /// it in any case.
    pub async fn admit(&self, pod: &Pod) -> Verdict {
        let (verdict, held) = self.decide(pod);
        if let Some(held) = held {
            self.save(uid(pod), held).await;
        }
        verdict
    }

    /// What becomes of a pod's wish, and what must be written of it.
    fn decide(&self, pod: &Pod) -> (Verdict, Option<Held>) {
        let wanted = resources(pod);
        let requests = Amounts::of_pod(pod);
        let mut all = self.held.lock();
        let (verdict, held) = match all.get(uid(pod)) {
            None => (Verdict::Same, Held::new(pod)),
            Some(held) if held.promised == wanted => return (Verdict::Same, None),
            Some(held) => {
                let others = all.iter().filter(|(other, _)| *other != uid(pod));
                let used =
                    others.map(|(_, other)| other.requests).fold(Amounts::default(), Amounts::plus);
                if let Some(pending) = refusal(requests, held.requests, used, self.room.amounts) {
                    return (Verdict::Pending(pending), None);
                }
                (Verdict::Promised, Held { requests, promised: wanted, ..held.clone() })
            }
        };
        all.insert(uid(pod).to_owned(), held.clone());
        drop(all);
        (verdict, Some(held))
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

    /// Whether a pod was promised anything: it has been here before.
    pub fn knows(&self, uid: &str) -> bool {
        self.held.lock().contains_key(uid)
    }

    /// What the containers of a pod were given.
    pub fn given(&self, uid: &str) -> ByContainer {
        self.held.lock().get(uid).map(|held| held.given.clone()).unwrap_or_default()
    }

    /// Notes that a container has what the pod says of it.
    pub async fn give(&self, pod: &Pod, name: &str) {
        let Some(resources) = resources(pod).remove(name) else { return };
        let changed = {
            let mut all = self.held.lock();
            let held = all.get_mut(uid(pod));
            held.filter(|held| held.given.get(name) != Some(&resources)).map(|held| {
                held.given.insert(name.to_owned(), resources);
                held.clone()
            })
        };
        if let Some(held) = changed {
            self.save(uid(pod), held).await;
        }
    }

    /// Takes back what a pod was promised: it has ended.
    pub async fn forget(&self, uid: &str) {
        let was_there = self.held.lock().remove(uid).is_some();
        if was_there {
            let file = self.file(uid);
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(file)).await;
        }
    }

    fn file(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.json"))
    }

    async fn save(&self, uid: &str, held: Held) {
        let path = self.file(uid);
        let shown = path.display().to_string();
        let saved = tokio::task::spawn_blocking(move || write(&path, &held)).await;
        if let Err(error) = saved.map_err(std::io::Error::other).flatten() {
            tracing::warn!(file = shown, %error, "what a pod was promised was not noted");
        }
    }
}

fn write(path: &Path, held: &Held) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, serde_json::to_vec(held)?)?;
    std::fs::rename(&draft, path)
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

    /// The node's promises; the pods `a` and `b` are in its checkpoint.
    fn open(dir: &Path) -> Allocations {
        let paths = Paths::new(dir);
        std::fs::create_dir_all(paths.checkpoint()).unwrap();
        for uid in ["a", "b"] {
            std::fs::write(checkpoint::file(&paths.checkpoint(), uid), "{}").unwrap();
        }
        let amounts = Amounts { cpu_milli: 2000, memory_bytes: 1 << 30, disk_bytes: 1 << 30 };
        Allocations::open(&paths, Room { amounts, pods: 10 }).unwrap()
    }

    fn cpu_promised(node: &Allocations, pod: &Pod) -> String {
        let promised = node.promised(pod.clone()).spec.unwrap().containers.remove(0);
        promised.resources.unwrap().requests.unwrap()["cpu"].0.clone()
    }

    #[tokio::test]
    async fn a_pod_is_promised_more_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        assert_eq!(node.admit(&pod("a", "500m", "64Mi")).await, Verdict::Same);
        assert_eq!(node.admit(&pod("b", "1", "64Mi")).await, Verdict::Same);
        assert_eq!(node.admit(&pod("a", "1", "64Mi")).await, Verdict::Promised);
        assert_eq!(cpu_promised(&node, &pod("a", "1", "64Mi")), "1");
        let too_much = pod("a", "1500m", "64Mi");
        let Verdict::Pending(pending) = node.admit(&too_much).await else {
            panic!("there is no room")
        };
        assert_eq!(pending.reason, "Deferred");
        assert_eq!(
            pending.message,
            "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
        );
        assert_eq!(cpu_promised(&node, &too_much), "1", "it keeps what it has");
        node.forget("b").await;
        assert_eq!(node.admit(&too_much).await, Verdict::Promised);
    }

    #[tokio::test]
    async fn what_a_node_can_never_give_is_infeasible() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "1", "64Mi")).await;
        for (cpu, memory, message) in [
            ("1k", "64Mi", "cpu, requested: 1000000, capacity: 2000"),
            ("1k", "2Gi", "memory, requested: 2147483648, capacity: 1073741824"),
        ] {
            let verdict = node.admit(&pod("a", cpu, memory)).await;
            let message = format!("Node didn't have enough capacity: {message}");
            assert_eq!(verdict, Verdict::Pending(Pending { reason: "Infeasible", message }));
        }
    }

    #[tokio::test]
    async fn a_full_node_still_takes_back() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "3", "64Mi")).await;
        node.admit(&pod("b", "3", "64Mi")).await;
        assert_eq!(node.admit(&pod("a", "1900m", "64Mi")).await, Verdict::Promised);
    }

    #[tokio::test]
    async fn a_new_pod_finds_what_others_have_left() {
        let none = Extended::new();
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        assert_eq!(node.take_in(&pod("a", "1500m", "64Mi"), &none, None).await, Ok(()));
        let refusal = node.take_in(&pod("b", "600m", "64Mi"), &none, None).await.unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert!(!node.knows("b"));
        let elsewise = Refusal::of("NodeAffinity", "no");
        let small = pod("b", "500m", "64Mi");
        assert_eq!(node.take_in(&small, &none, Some(elsewise.clone())).await, Err(elsewise));
        assert_eq!(
            open(dir.path()).take_in(&small, &none, None).await,
            Ok(()),
            "known by its file"
        );
    }

    #[tokio::test]
    async fn promises_and_gifts_outlive_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "500m", "64Mi")).await;
        node.admit(&pod("a", "1", "64Mi")).await;
        let node = open(dir.path());
        assert_eq!(node.admit(&pod("a", "1", "64Mi")).await, Verdict::Same);
        let given =
            |node: &Allocations| node.given("a")["c"].requests.clone().unwrap()["cpu"].0.clone();
        assert_eq!(given(&node), "500m", "promised, and not yet given");
        node.give(&pod("a", "1", "64Mi"), "c").await;
        assert_eq!(given(&open(dir.path())), "1");
        node.forget("a").await;
        assert!(open(dir.path()).given("a").is_empty());
    }

    #[tokio::test]
    async fn an_allocation_whose_pod_the_checkpoint_does_not_know_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        node.admit(&pod("a", "1", "64Mi")).await;
        node.admit(&pod("gone", "1900m", "64Mi")).await;
        let node = open(dir.path());
        assert!(node.given("gone").is_empty());
        assert_eq!(node.admit(&pod("a", "2", "64Mi")).await, Verdict::Promised);
        assert!(!dir.path().join("allocations/gone.json").exists());
    }

    /// The draft is a pipe: whoever writes it waits until it is read, which another task does.
    #[tokio::test]
    async fn promises_are_written_off_the_runtime() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        let draft = dir.path().join("allocations/a.new");
        mknodat(CWD, &draft, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let read = async {
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(move || std::fs::read_to_string(draft)).await.unwrap()
        };
        let new = pod("a", "1", "64Mi");
        let (verdict, text) = tokio::join!(node.admit(&new), read);
        assert_eq!(verdict, Verdict::Same);
        assert!(text.unwrap().contains("promised"));
    }
}
