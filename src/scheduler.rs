//! The scheduler: gives each pod a node.
//!
//! ```text
//!   informers ──► Cache (nodes, pods, assumed) ──snapshot──┐
//!       │                                                  ▼
//!       └──────► SchedulingQueue ──pop──► cycle: filter, score, choose ──► assume ──► bind
//!                   ▲      ▲                   │ no node                               │
//!                   │      └── unschedulable ◄─┘                                       │
//!                   └───────────────────────── failed ◄────────────────────────────────┘
//! ```
//!
//! One task owns cache and queue and decides about one pod at a time; bindings are written beside
//! it. It runs at the leader only, under its term (invariant R9).

pub mod framework;
pub mod kin;
pub mod resources;

pub mod cache;
pub mod cycle;
pub mod explain;
pub mod nominate;
pub mod plugins;
pub mod preempt;
pub mod queue;
pub mod volumes;

pub mod bind;

#[cfg(test)]
mod testing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kontiki_api::client::Client;
use kontiki_api::informer::{Change, Informer, Informers};
use kontiki_api::status::Status;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::bind::{Act, Nomination, Written};
use self::cache::{Cache, NodeInfo, PodInfo, Snapshot};
use self::cycle::{Preempting, Unschedulable, Waiting};
use self::framework::ClusterEvent;
use self::kin::Surroundings;
use self::nominate::Nominations;
use self::plugins::{FILTERS, SCORES};
use self::queue::SchedulingQueue;
use self::volumes::{Provision, Storage, provisions};
use crate::controllers::events::{self, EventRecorder};
use crate::controllers::volumes::claims_of;
use crate::controllers::{self, owners, pods, runtime};
use crate::leader_context::LeaderContext;

/// Whose pods these are: those that name another scheduler are left alone.
const SCHEDULER_NAME: &str = "default-scheduler";
/// How many bindings and explanations are written at the same time; the next pod waits for one.
const WRITES_MAX: usize = 128;
/// How many bindings wait for volumes at the same time; further ones are tried again later.
const VOLUME_BINDS_MAX: usize = 512;
/// How long whoever makes volumes may take, as upstream.
const VOLUMES_DEADLINE: Duration = Duration::from_mins(10);
/// How long one of them may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// The longest sleep of the loop when nothing happens.
const IDLE: Duration = Duration::from_mins(1);

/// Schedules until the context's token is cancelled.
pub async fn run(context: LeaderContext) {
    let context = context.apart();
    let Some(begin) = controllers::begin(&context.client, &context.token).await else { return };
    let client = context.client.as_user("system:kube-scheduler", &[]);
    let (events, writer) = events::recorder(client.clone(), context.token.child_token());
    let writer = tokio::spawn(writer);
    let namespaces = context.informers.of::<Namespace>();
    let labels_of = {
        let namespaces = Arc::clone(&namespaces);
        move |name: &str| namespaces.get("", name)?.metadata.labels.clone()
    };
    let surroundings = Surroundings::new(labels_of);
    let scheduler = Scheduler {
        client,
        namespaces,
        informers: Arc::clone(&context.informers),
        events: events.of(SCHEDULER_NAME),
        nodes: context.informers.of::<Node>(),
        pods: context.informers.of::<Pod>(),
        budgets: context.informers.of::<PodDisruptionBudget>(),
        nominations: Nominations::default(),
        storage: Storage::new(&context.informers),
        reserved: HashMap::new(),
        cache: Cache::new(surroundings),
        queue: SchedulingQueue::default(),
        writes: JoinSet::new(),
        binds_with_volumes: JoinSet::new(),
    };
    // Dropping the scheduler anywhere is safe: what it knows is of this term only.
    let _ended = context.token.run_until_cancelled(scheduler.run(begin)).await;
    drop(events);
    if let Err(error) = writer.await {
        tracing::error!(%error, "the scheduler's event writer has ended");
    }
}

struct Scheduler {
    client: Client,
    informers: Arc<Informers>,
    namespaces: Arc<Informer<Namespace>>,
    events: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    nominations: Nominations,
    storage: Storage,
    /// Volumes that claims of assumed pods are about to get, by the pods' uids.
    reserved: HashMap<String, Vec<String>>,
    cache: Cache,
    queue: SchedulingQueue,
    writes: JoinSet<Written>,
    /// Bindings that wait for volumes; apart, since somebody else makes those, at leisure.
    binds_with_volumes: JoinSet<Written>,
}

/// What the scheduler hears.
struct Changes {
    nodes: mpsc::Receiver<Change<Node>>,
    pods: mpsc::Receiver<Change<Pod>>,
    claims: mpsc::Receiver<Change<PersistentVolumeClaim>>,
    volumes: mpsc::Receiver<Change<PersistentVolume>>,
    classes: mpsc::Receiver<Change<StorageClass>>,
    namespaces: mpsc::Receiver<Change<Namespace>>,
}

impl Changes {
    /// Whether claims, volumes or classes have changed: what they are is read when a pod needs it.
    fn storage_changed(&mut self) -> bool {
        fn drain<T>(changes: &mut mpsc::Receiver<T>) -> bool {
            let mut any = false;
            while changes.try_recv().is_ok() {
                any = true;
            }
            any
        }
        drain(&mut self.claims) | drain(&mut self.volumes) | drain(&mut self.classes)
    }
}

impl Scheduler {
    async fn run(mut self, begin: u64) {
        let mut changes = Changes {
            nodes: self.nodes.subscribe(),
            pods: self.pods.subscribe(),
            claims: self.storage.claims.subscribe(),
            volumes: self.storage.volumes.subscribe(),
            classes: self.storage.classes.subscribe(),
            namespaces: self.namespaces.subscribe(),
        };
        runtime::caught_up(&self.informers, begin).await;
        self.reset();
        loop {
            self.take_all(&mut changes);
            if self.writes.len() < WRITES_MAX
                && let Some(pod) = self.queue.pop(Instant::now())
            {
                self.schedule(pod);
                // Lets the writes go out while more pods are placed.
                tokio::task::yield_now().await;
                continue;
            }
            let wake = self.queue.next_wake().unwrap_or_else(|| Instant::now() + IDLE);
            // Each arm is cancel-safe: a change or a result that is not taken stays where it is.
            tokio::select! {
                change = changes.nodes.recv() => match change {
                    Some(change) => self.take_node(&change),
                    None => return,
                },
                change = changes.pods.recv() => match change {
                    Some(change) => self.take_pod(&change),
                    None => return,
                },
                Some(_) = changes.claims.recv() => self.wake(ClusterEvent::Volumes),
                Some(_) = changes.volumes.recv() => self.wake(ClusterEvent::Volumes),
                Some(_) = changes.classes.recv() => self.wake(ClusterEvent::Volumes),
                Some(change) = changes.namespaces.recv() => self.take_namespace(&change),
                Some(written) = self.writes.join_next(), if !self.writes.is_empty() => self.take_written(written),
                Some(written) = self.binds_with_volumes.join_next(), if !self.binds_with_volumes.is_empty() => self.take_written(written),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn take_all(&mut self, changes: &mut Changes) {
        while let Ok(change) = changes.nodes.try_recv() {
            self.take_node(&change);
        }
        while let Ok(change) = changes.pods.try_recv() {
            self.take_pod(&change);
        }
        while let Ok(change) = changes.namespaces.try_recv() {
            self.take_namespace(&change);
        }
        if changes.storage_changed() {
            self.wake(ClusterEvent::Volumes);
        }
        while let Some(written) = self.writes.try_join_next() {
            self.take_written(written);
        }
        while let Some(written) = self.binds_with_volumes.try_join_next() {
            self.take_written(written);
        }
    }

    /// Takes the whole state anew.
    fn reset(&mut self) {
        let all = self.pods.list();
        self.cache.reset(self.nodes.list(), &all);
        let present: HashSet<&str> = all.iter().map(|pod| owners::uid(&pod.metadata)).collect();
        self.queue.retain(|uid| present.contains(uid));
        self.nominations.retain(|uid| present.contains(uid));
        for pod in &all {
            self.apply_pod(pod);
        }
        self.wake(ClusterEvent::NodeGrew);
    }

    fn wake(&mut self, event: ClusterEvent) {
        self.queue.wake(event, FILTERS, Instant::now());
    }

    fn take_node(&mut self, change: &Change<Node>) {
        match change {
            Change::Added(node) => {
                self.cache.apply_node(Arc::clone(node));
                self.wake(ClusterEvent::NodeGrew);
            }
            Change::Updated { old, new } => {
                self.cache.apply_node(Arc::clone(new));
                for event in node_events(old, new) {
                    self.wake(event);
                }
            }
            Change::Deleted(node) => self.cache.delete_node(owners::name(&node.metadata)),
            Change::Resync => self.reset(),
        }
    }

    /// Other labels of a namespace may let its pods in where they were not, or make company of them.
    fn take_namespace(&mut self, change: &Change<Namespace>) {
        if let Change::Updated { old, new } = change
            && old.metadata.labels != new.metadata.labels
        {
            self.wake(ClusterEvent::PodArrived);
        }
    }

    fn take_pod(&mut self, change: &Change<Pod>) {
        match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } => self.apply_pod(pod),
            Change::Deleted(pod) => {
                let uid = owners::uid(&pod.metadata);
                self.queue.delete(uid);
                if self.nominations.delete(uid) {
                    self.wake(ClusterEvent::PodLeft);
                }
                if self.cache.has_pod(uid) {
                    self.cache.delete_pod(uid);
                    self.wake(ClusterEvent::PodLeft);
                }
            }
            Change::Resync => self.reset(),
        }
    }

    fn apply_pod(&mut self, pod: &Arc<Pod>) {
        let uid = owners::uid(&pod.metadata);
        if pods::node_name(pod).is_some() {
            self.queue.delete(uid);
            self.nominations.delete(uid);
            let before = self.cache.pod(uid);
            self.cache.apply_pod(pod);
            for event in pod_events(before.as_deref(), self.cache.pod(uid).as_deref()) {
                self.wake(event);
            }
        } else if is_ours(pod) {
            // One that was assumed is on its way to its node already.
            if !self.cache.has_pod(uid) {
                let info = self.cache.work_out(Arc::clone(pod));
                self.nominations.apply(&info);
                self.queue.apply(info);
            }
        } else {
            self.queue.delete(uid);
            self.nominations.delete(uid);
            self.cache.forget(uid);
        }
    }

    fn schedule(&mut self, pod: Arc<PodInfo>) {
        let snapshot = self.cache.snapshot();
        let pod = self.with_claims(pod);
        let crowded = self.nominations.crowd(&snapshot, &pod);
        let waiting =
            Waiting { crowded: crowded.as_ref(), nominated: self.nominations.node_of(pod.uid()) };
        match cycle::schedule(&pod, &snapshot, &waiting, FILTERS, SCORES) {
            Ok(node) => {
                // What is held is copied before it changes.
                drop((snapshot, crowded));
                self.bind(pod, node);
            }
            Err(why) => self.put_back(pod, why, crowded.as_ref().unwrap_or(&snapshot)),
        }
    }

    /// Puts a pod back that no node takes; others may be driven off for it.
    fn put_back(&mut self, pod: Arc<PodInfo>, why: Unschedulable, nodes: &Snapshot) {
        let uid = pod.uid().to_owned();
        let nominated = self.nominations.node_of(&uid);
        let nominated = nominated.and_then(|n| nodes.iter().find(|node| node.name() == n));
        let refusal = preempt::refusal(&pod, nominated.map(Arc::as_ref));
        let choice = match refusal {
            Some(_) => None,
            None => preempt::plan(&pod, nodes, &why.resolvable, FILTERS, &self.budgets.list()),
        };
        let came_of_it = match (refusal, &choice) {
            (Some(why), _) => Preempting::Refused(why),
            (None, Some(_)) => Preempting::Done,
            (None, None) => Preempting::InVain,
        };
        let message = why.message(came_of_it);
        tracing::debug!(pod = owners::name(&pod.pod.metadata), message, "no node");
        self.queue.unschedulable(&uid, why.rejected_by, FILTERS, Instant::now());
        let (client, events) = (self.client.clone(), self.events.clone());
        let Some(choice) = choice else {
            let nomination = match came_of_it {
                Preempting::InVain if self.nominations.delete(&uid) => Nomination::Clear,
                _ => Nomination::Keep,
            };
            let write = bind::explain(client, events, pod, message, nomination);
            return self.spawn(uid, Act::Explain, write);
        };
        for displaced in self.nominations.displace(&choice.node, pod.priority()) {
            let write = bind::displace(self.client.clone(), Arc::clone(&displaced));
            self.spawn(displaced.uid().to_owned(), Act::Explain, write);
        }
        self.nominations.put(Arc::clone(&pod), choice.node.clone());
        self.spawn(uid, Act::Explain, bind::preempt(client, events, pod, message, choice));
    }

    /// The pod with what its claims want, as that is now.
    fn with_claims(&self, pod: Arc<PodInfo>) -> Arc<PodInfo> {
        if claims_of(&pod.pod).is_empty() {
            return pod;
        }
        let reserved: HashSet<String> = self.reserved.values().flatten().cloned().collect();
        Arc::new(pod.with_claims(volumes::needs(&self.storage, &pod.pod, &reserved)))
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: Arc<NodeInfo>) {
        let uid = pod.uid().to_owned();
        let (node, provisions) = assume(&mut self.cache, &pod, node);
        let bind = bind::bind(self.client.clone(), self.events.clone(), pod, node.clone());
        if provisions.is_empty() {
            return self.spawn(uid, Act::Bind, bind);
        }
        if self.binds_with_volumes.len() >= VOLUME_BINDS_MAX {
            self.cache.forget(&uid);
            return self.queue.failed(&uid, Instant::now());
        }
        let names = provisions.iter().filter_map(|(_, provision)| match provision {
            Provision::Reserve(volume) => volume.metadata.name.clone(),
            Provision::Select => None,
        });
        self.reserved.insert(uid.clone(), names.collect());
        let (storage, client) = (self.storage.clone(), self.client.clone());
        self.binds_with_volumes.spawn(async move {
            let volumes = storage.bind(&client, &provisions, &node);
            let volumes = tokio::time::timeout(VOLUMES_DEADLINE, volumes).await;
            let outcome = match volumes {
                Ok(Ok(())) => return within(WRITE_DEADLINE, uid, Act::Bind, bind).await,
                Ok(Err(status)) => Err(status),
                Err(_) => Err(Status::timeout("the pod's claims were not bound in time")),
            };
            Written { uid, act: Act::Bind, outcome }
        });
    }

    fn spawn(
        &mut self,
        uid: String,
        act: Act,
        write: impl Future<Output = Written> + Send + 'static,
    ) {
        self.writes.spawn(within(WRITE_DEADLINE, uid, act, write));
    }

    fn take_written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        let written = match written {
            Ok(written) => written,
            Err(error) => return tracing::error!(%error, "a write of the scheduler has ended"),
        };
        if written.act == Act::Bind {
            self.reserved.remove(&written.uid);
        }
        let Err(status) = written.outcome else { return };
        if status.is_fenced() {
            return;
        }
        tracing::debug!(act = ?written.act, uid = written.uid, %status, "a write of the scheduler failed");
        if written.act == Act::Bind {
            self.cache.forget(&written.uid);
            self.queue.failed(&written.uid, Instant::now());
            self.wake(ClusterEvent::PodLeft);
        }
    }
}

/// Takes the pod to be on the node. Says the node's name, and what must be done for its volumes.
fn assume(
    cache: &mut Cache,
    pod: &Arc<PodInfo>,
    node: Arc<NodeInfo>,
) -> (String, Vec<(Arc<PersistentVolumeClaim>, Provision)>) {
    let claims = pod.claims.as_deref().unwrap_or_default();
    let provisions = provisions(claims, &node.node).unwrap_or_default();
    let name = node.name().to_owned();
    // Let go of before it changes, or it is copied with all its pods.
    drop(node);
    cache.assume(Arc::clone(pod), &name);
    (name, provisions)
}

async fn within(
    limit: Duration,
    uid: String,
    act: Act,
    write: impl Future<Output = Written>,
) -> Written {
    tokio::time::timeout(limit, write).await.unwrap_or_else(|_| Written {
        uid,
        act,
        outcome: Err(Status::timeout("the write took too long")),
    })
}

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let name = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    name == SCHEDULER_NAME && !gated && pods::is_active(pod)
}

/// What a change of a pod that has a node may help with.
fn pod_events(old: Option<&PodInfo>, new: Option<&PodInfo>) -> Vec<ClusterEvent> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (Some(_), None) => return vec![ClusterEvent::PodLeft],
        (None, Some(_)) => return vec![ClusterEvent::PodArrived],
        (None, None) => return Vec::new(),
    };
    let mut events = Vec::new();
    if new.requests.lacks_some_of(&old.requests) {
        events.push(ClusterEvent::PodShrank);
    }
    if new.pod.metadata.labels != old.pod.metadata.labels {
        events.push(ClusterEvent::PodArrived);
    }
    events
}

/// What a change of a node may help with.
fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    let allocatable =
        |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events.push(ClusterEvent::NodeGrew);
    }
    if old.metadata.labels != new.metadata.labels {
        events.push(ClusterEvent::NodeLabels);
    }
    let open =
        |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    if open(old) != open(new) {
        events.push(ClusterEvent::NodeTaints);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::testing::{node, pod};
    use super::*;

    #[test]
    fn a_bound_pod_that_shrinks_or_is_relabelled_wakes_those_whom_that_can_help() {
        let big = pod("p").cpu("2").label("app", "a").on("n").info();
        let events = |new: &PodInfo| pod_events(Some(&big), Some(new));
        assert_eq!(events(&pod("p").cpu("2").label("app", "a").on("n").info()), []);
        let small = pod("p").cpu("1").label("app", "a").on("n").info();
        assert_eq!(events(&small), [ClusterEvent::PodShrank]);
        let bigger = pod("p").cpu("3").label("app", "a").on("n").info();
        assert_eq!(events(&bigger), []);
        let other = pod("p").cpu("2").label("app", "b").on("n").info();
        assert_eq!(events(&other), [ClusterEvent::PodArrived]);

        let mut queue = SchedulingQueue::default();
        let now = Instant::now();
        queue.apply(pod("waits").cpu("3").info());
        queue.pop(now);
        queue.unschedulable("waits", vec!["NodeResourcesFit"], FILTERS, now);
        let later = now + Duration::from_secs(5);
        queue.wake(ClusterEvent::PodShrank, FILTERS, later);
        assert!(queue.pop(later).is_some(), "there may be room for it now");
    }

    #[test]
    fn a_node_is_not_copied_when_a_pod_is_bound_to_it() {
        let mut cache = Cache::default();
        cache.apply_node(node("n").arc());
        let place = |cache: &Cache| Arc::as_ptr(&cache.snapshot()[0]);
        let before = place(&cache);
        let chosen = Arc::clone(&cache.snapshot()[0]);
        let (name, provisions) = assume(&mut cache, &pod("p").info(), chosen);
        assert_eq!((name.as_str(), provisions.len()), ("n", 0));
        assert_eq!(place(&cache), before);
    }
}
