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
pub mod resources;

pub mod cache;
pub mod cycle;
pub mod plugins;
pub mod queue;

pub mod bind;

#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kontiki_api::client::Client;
use kontiki_api::informer::{Change, Informer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::bind::{Act, Written};
use self::cache::{Cache, PodInfo};
use self::framework::ClusterEvent;
use self::plugins::{FILTERS, SCORES};
use self::queue::SchedulingQueue;
use crate::controllers::events::{self, EventRecorder};
use crate::controllers::{self, owners, pods};
use crate::leader_context::LeaderContext;

/// Whose pods these are: those that name another scheduler are left alone.
const SCHEDULER_NAME: &str = "default-scheduler";
/// How many bindings and explanations are written at the same time; the next pod waits for one.
const WRITES_MAX: usize = 128;
/// How long one of them may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// The longest wait for the informers to reach the revision at which the term began.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(10);
/// The longest sleep of the loop when nothing happens.
const IDLE: Duration = Duration::from_mins(1);

/// Schedules until the context's token is cancelled.
pub async fn run(context: LeaderContext) {
    let Some(begin) = controllers::begin(&context.client, &context.token).await else { return };
    let client = context.client.as_user("system:kube-scheduler", &[]);
    let (events, writer) = events::recorder(client.clone(), context.token.child_token());
    let writer = tokio::spawn(writer);
    let scheduler = Scheduler {
        client,
        events: events.of(SCHEDULER_NAME),
        nodes: context.informers.of::<Node>(),
        pods: context.informers.of::<Pod>(),
        cache: Cache::default(),
        queue: SchedulingQueue::default(),
        writes: JoinSet::new(),
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
    events: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    cache: Cache,
    queue: SchedulingQueue,
    writes: JoinSet<Written>,
}

impl Scheduler {
    async fn run(mut self, begin: u64) {
        let mut node_changes = self.nodes.subscribe();
        let mut pod_changes = self.pods.subscribe();
        self.catch_up(begin).await;
        self.reset();
        loop {
            self.take_all(&mut node_changes, &mut pod_changes);
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
                change = node_changes.recv() => match change {
                    Some(change) => self.take_node(&change),
                    None => return,
                },
                change = pod_changes.recv() => match change {
                    Some(change) => self.take_pod(&change),
                    None => return,
                },
                Some(written) = self.writes.join_next(), if !self.writes.is_empty() => self.take_written(written),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn catch_up(&self, begin: u64) {
        let reached = async {
            self.nodes.synced().await;
            self.pods.synced().await;
            self.nodes.reached(begin).await;
            self.pods.reached(begin).await;
        };
        if tokio::time::timeout(CATCH_UP_DEADLINE, reached).await.is_err() {
            tracing::warn!(begin, "the informers are behind; scheduling all the same");
        }
    }

    fn take_all(
        &mut self,
        nodes: &mut mpsc::Receiver<Change<Node>>,
        pods: &mut mpsc::Receiver<Change<Pod>>,
    ) {
        while let Ok(change) = nodes.try_recv() {
            self.take_node(&change);
        }
        while let Ok(change) = pods.try_recv() {
            self.take_pod(&change);
        }
        while let Some(written) = self.writes.try_join_next() {
            self.take_written(written);
        }
    }

    /// Takes the whole state anew.
    fn reset(&mut self) {
        let all = self.pods.list();
        self.cache.reset(self.nodes.list(), &all);
        self.queue.retain(|uid| all.iter().any(|pod| owners::uid(&pod.metadata) == uid));
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

    fn take_pod(&mut self, change: &Change<Pod>) {
        match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } => self.apply_pod(pod),
            Change::Deleted(pod) => {
                let uid = owners::uid(&pod.metadata);
                self.queue.delete(uid);
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
            let had = self.cache.has_pod(uid);
            self.cache.apply_pod(pod);
            match (had, self.cache.has_pod(uid)) {
                (true, false) => self.wake(ClusterEvent::PodLeft),
                (false, true) => self.wake(ClusterEvent::PodArrived),
                _ => {}
            }
        } else if is_ours(pod) {
            // One that was assumed is on its way to its node already.
            if !self.cache.has_pod(uid) {
                self.queue.apply(Arc::new(PodInfo::new(Arc::clone(pod))));
            }
        } else {
            self.queue.delete(uid);
            self.cache.forget(uid);
        }
    }

    fn schedule(&mut self, pod: Arc<PodInfo>) {
        let snapshot = self.cache.snapshot();
        match cycle::schedule(&pod, &snapshot, FILTERS, SCORES) {
            Ok(node) => {
                let node = node.name().to_owned();
                self.cache.assume(Arc::clone(&pod), &node);
                let write =
                    bind::bind(self.client.clone(), self.events.clone(), Arc::clone(&pod), node);
                self.spawn(pod.uid().to_owned(), Act::Bind, write);
            }
            Err(why) => {
                let message = why.message();
                tracing::debug!(pod = owners::name(&pod.pod.metadata), message, "no node");
                let uid = pod.uid().to_owned();
                self.queue.unschedulable(&uid, why.rejected_by, FILTERS, Instant::now());
                let write = bind::explain(self.client.clone(), self.events.clone(), pod, message);
                self.spawn(uid, Act::Explain, write);
            }
        }
    }

    fn spawn(
        &mut self,
        uid: String,
        act: Act,
        write: impl Future<Output = Written> + Send + 'static,
    ) {
        self.writes.spawn(async move {
            tokio::time::timeout(WRITE_DEADLINE, write).await.unwrap_or_else(|_| Written {
                uid,
                act,
                outcome: Err(kontiki_api::status::Status::timeout("the write took too long")),
            })
        });
    }

    fn take_written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        let written = match written {
            Ok(written) => written,
            Err(error) => return tracing::error!(%error, "a write of the scheduler has ended"),
        };
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

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let name = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    name == SCHEDULER_NAME && !gated && pods::is_active(pod)
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
