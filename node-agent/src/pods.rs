//! The pods of this node: one task watches them in the API and the runtime, and keeps a worker
//! for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::{name, namespace, uid};
use crate::evict::Order;
use crate::follow::{Change, follow};
use crate::mirrors::{Key, Mirror, View, key};
use crate::pod_worker::{Context, Desired, Worker};
use crate::runtime::{Listed, Runtime};
use crate::static_pods::is_static;

mod statics;

/// What the API says, waiting to be taken in; the watch waits when it is full.
const CHANGES: usize = 64;
/// Looks at the runtime waiting to be taken in.
const LOOKS: usize = 4;
/// Wait before a pod whose worker broke gets another one.
const WORKER_RETRY: Duration = Duration::from_secs(1);

/// The pods known now, for the agent's server.
#[derive(Clone, Debug, Default)]
pub struct PodIndex {
    pods: Arc<RwLock<BTreeMap<String, Arc<Pod>>>>,
}

impl PodIndex {
    /// The pod of this name that came last.
    pub fn find(&self, namespace_wanted: &str, name_wanted: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.read();
        let named = pods
            .values()
            .filter(|pod| namespace(pod) == namespace_wanted && name(pod) == name_wanted);
        named.max_by_key(|pod| pod.metadata.creation_timestamp.clone()).cloned()
    }

    /// One pod more.
    #[cfg(test)]
    pub(crate) fn insert(&self, pod: Pod) {
        self.pods.write().insert(uid(&pod).to_owned(), Arc::new(pod));
    }

    /// All pods.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.pods.read().values().cloned().collect()
    }
}

/// Whether the API has a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    Gone,
}

/// What the task is told by others of the agent.
#[derive(Debug)]
pub struct Told {
    /// Pods to be ended.
    pub orders: mpsc::Receiver<Order>,
    /// All static pods, whenever they change.
    pub statics: mpsc::Receiver<Vec<Pod>>,
}

struct Handle {
    desired: watch::Sender<Desired>,
    nudge: Arc<Notify>,
}

/// Keeps the workers.
pub struct Pods {
    context: Arc<Context>,
    index: PodIndex,
    handles: HashMap<String, Handle>,
    workers: JoinSet<()>,
    /// Whose task is which.
    tasks: HashMap<task::Id, String>,
    listed: HashSet<Listed>,
    /// Static pods that have no worker yet, because their name is taken.
    waiting: BTreeMap<String, Pod>,
    /// What shows static pods in the API.
    mirrors: BTreeMap<Key, Mirror>,
    /// For whoever keeps those.
    view: watch::Sender<View>,
    /// The files of static pods were read since the start.
    files_read: bool,
    /// The API was heard since the start: what it does not name may be removed.
    heard: bool,
}

impl Pods {
    /// No pod yet.
    pub fn new(context: Arc<Context>, index: PodIndex) -> Self {
        Self {
            context,
            index,
            handles: HashMap::new(),
            workers: JoinSet::new(),
            tasks: HashMap::new(),
            listed: HashSet::new(),
            waiting: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            view: watch::Sender::default(),
            files_read: false,
            heard: false,
        }
    }

    /// What there is of static pods and of what shows them, as it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Works until `shutdown`; leaves every pod running then (N1).
    pub async fn run(
        mut self,
        client: kube::Client,
        node: String,
        mut told: Told,
        shutdown: CancellationToken,
    ) {
        for pod in self.context.checkpoint.load() {
            self.apply(pod, &shutdown);
        }
        let (change_sender, mut changes) = mpsc::channel(CHANGES);
        let (look_sender, mut looks) = mpsc::channel(LOOKS);
        let mut tasks = JoinSet::new();
        let fields = format!("spec.nodeName={node}");
        let ours = Api::all(client);
        tasks.spawn(follow(ours, fields, change_sender, |change| change, shutdown.clone()));
        tasks.spawn(watch_runtime(self.context.clone(), look_sender, shutdown.clone()));
        loop {
            // Every arm is cancel-safe: what was not received stays in its channel.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(change) = changes.recv() => self.change(change, &shutdown),
                Some(look) = looks.recv() => self.look(look, &shutdown),
                Some(order) = told.orders.recv() => self.evict(order),
                Some(pods) = told.statics.recv() => self.set_statics(pods, &shutdown),
                Some(ended) = self.workers.join_next_with_id() => self.worker_ended(ended, &shutdown),
            }
        }
        self.handles.clear();
        while self.workers.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
    }

    fn change(&mut self, change: Change<Pod>, shutdown: &CancellationToken) {
        match change {
            Change::Reset(pods) => {
                let present: HashSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
                self.mirrors.clear();
                for pod in pods {
                    match Mirror::of(&pod) {
                        Some(mirror) => drop(self.mirrors.insert(key(&pod), mirror)),
                        None => self.apply(pod, shutdown),
                    }
                }
                for (uid, handle) in &self.handles {
                    let is_of_files = is_static(&handle.desired.borrow().pod);
                    if !is_of_files && !present.contains(uid) {
                        handle.desired.send_modify(|desired| desired.gone = true);
                    }
                }
                self.heard = true;
                self.show();
                self.remove_orphans(shutdown);
            }
            Change::Apply(pod) => match Mirror::of(&pod) {
                Some(mirror) => self.set_mirror(key(&pod), Some(mirror)),
                None => self.apply(*pod, shutdown),
            },
            Change::Delete(pod) if Mirror::of(&pod).is_some() => {
                self.set_mirror(key(&pod), None);
            }
            Change::Delete(pod) => {
                if let Some(handle) = self.handles.get(uid(&pod)) {
                    handle.desired.send_modify(|desired| desired.gone = true);
                }
            }
        }
    }

    fn apply(&mut self, pod: Pod, shutdown: &CancellationToken) {
        self.context.checkpoint.save(&pod);
        self.want(Arc::new(pod), Presence::There, shutdown);
    }

    fn want(&mut self, pod: Arc<Pod>, presence: Presence, shutdown: &CancellationToken) {
        let key = uid(&pod).to_owned();
        let gone = presence == Presence::Gone;
        if !gone {
            self.index.pods.write().insert(key.clone(), pod.clone());
        }
        if let Some(handle) = self.handles.get(&key) {
            // An eviction is not called off.
            handle.desired.send_modify(|desired| (desired.pod, desired.gone) = (pod, gone));
            return;
        }
        self.employ(
            key,
            Desired { pod, gone, eviction: None, mirror: None },
            Duration::ZERO,
            shutdown,
        );
    }

    /// Has a pod's worker end it.
    fn evict(&self, order: Order) {
        if let Some(handle) = self.handles.get(&order.uid) {
            handle.desired.send_modify(|desired| desired.eviction = Some(order.eviction));
        }
    }

    /// A worker for a pod, which begins after `wait`.
    fn employ(&mut self, key: String, desired: Desired, wait: Duration, stop: &CancellationToken) {
        let (sender, receiver) = watch::channel(desired);
        let nudge = Arc::new(Notify::new());
        let worker = Worker::new(self.context.clone(), receiver, nudge.clone());
        let stop = stop.clone();
        let task = self.workers.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => worker.run(stop).await,
                () = stop.cancelled() => {}
            }
        });
        self.tasks.insert(task.id(), key.clone());
        self.handles.insert(key, Handle { desired: sender, nudge });
    }

    fn worker_ended(
        &mut self,
        ended: Result<(task::Id, ()), JoinError>,
        shutdown: &CancellationToken,
    ) {
        let (id, broke) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(uid) = self.tasks.remove(&id) else { return };
        let Some(handle) = self.handles.remove(&uid) else { return };
        match broke {
            None => {
                self.index.pods.write().remove(&uid);
                self.begin_waiting(shutdown);
            }
            // Its pod is not left alone: all that a worker knows is learnt anew.
            Some(error) => {
                tracing::error!(%uid, %error, "the worker of a pod broke, another one takes over");
                let desired = handle.desired.borrow().clone();
                self.employ(uid, desired, WORKER_RETRY, shutdown);
            }
        }
    }

    /// Wakes the workers whose sandboxes or containers changed.
    fn look(&mut self, look: Vec<Listed>, shutdown: &CancellationToken) {
        let look: HashSet<Listed> = look.into_iter().collect();
        for changed in look.symmetric_difference(&self.listed) {
            if let Some(handle) = self.handles.get(&changed.pod_uid) {
                handle.nudge.notify_one();
            }
        }
        self.listed = look;
        self.remove_orphans(shutdown);
    }

    /// Pods in the runtime that the API does not know are removed like deleted ones.
    fn remove_orphans(&mut self, shutdown: &CancellationToken) {
        if !self.heard {
            return;
        }
        let orphans: HashSet<String> = self
            .listed
            .iter()
            .map(|listed| listed.pod_uid.clone())
            .filter(|uid| !uid.is_empty() && !self.handles.contains_key(uid))
            .collect();
        for uid in orphans {
            tracing::info!(%uid, "remove a pod that the API does not know");
            let mut pod = Pod::default();
            pod.metadata.uid = Some(uid);
            self.want(Arc::new(pod), Presence::Gone, shutdown);
        }
    }
}

/// Looks at the runtime again and again.
async fn watch_runtime(
    context: Arc<Context>,
    looks: mpsc::Sender<Vec<Listed>>,
    shutdown: CancellationToken,
) {
    let runtime: &dyn Runtime = context.runtime.as_ref();
    let mut ticks = tokio::time::interval(context.timers.relist);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = async {
            ticks.tick().await;
            runtime.list().await
        };
        let look = tokio::select! {
            look = look => look,
            () = shutdown.cancelled() => return,
        };
        match look {
            Ok(look) => {
                if looks.send(look).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "the runtime does not answer"),
        }
    }
}

#[cfg(test)]
mod tests;
