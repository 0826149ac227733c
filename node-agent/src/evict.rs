//! What a node does when it runs short of memory, disk or process ids: it says so, takes no more
//! pods, wins back what nobody uses, and at last ends pods, one at a time. Those that write more than
//! they may are ended in any case.
//!
//! ```text
//!  kernel ──► observe ──► State::step ──► conditions ──► pressure (node's status, admission)
//!                             pure    └─► due ──► images ──► rank ──► order to the pod's worker
//! ```
//!
//! Thresholds, order and words are the kubelet's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::uid;
use crate::events::{Kind, Recorder};
use crate::images::collect::Collector;
use crate::plan::Eviction;
use crate::plan::outcome::told_outcome;
use crate::runtime::ContainerState;
use crate::stats;

mod figures;
mod limits;
mod observe;
pub mod pressure;
pub mod rank;
pub mod signal;
pub mod state;
pub mod threshold;

use pressure::Pressure;
use rank::Candidate;
use signal::{Observations, Resource, Signal};
use state::State;
use threshold::Threshold;

/// How long pods get that are ended at once.
const GRACE: Duration = Duration::from_secs(1);
/// Longest wait until nothing is left of a pod that was ended.
const CLEANED_UP_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether that is so.
const CLEANED_UP_LOOK: Duration = Duration::from_millis(250);

/// When and how a node ends pods.
#[derive(Clone, Debug)]
pub struct EvictionConfig {
    /// What is too little.
    pub thresholds: Vec<Threshold>,
    /// How long the node is said to be under pressure after it was.
    pub transition: Duration,
    /// The most that pods get that are ended for a soft threshold.
    pub grace_max: Duration,
    /// Between two looks.
    pub period: Duration,
}

impl Default for EvictionConfig {
    fn default() -> Self {
        let flags = threshold::Flags { hard: threshold::HARD, ..threshold::Flags::default() };
        Self {
            thresholds: threshold::parse(&flags).unwrap_or_default(),
            transition: Duration::from_secs(300),
            grace_max: Duration::ZERO,
            period: Duration::from_secs(10),
        }
    }
}

/// Ends this pod.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its UID.
    pub uid: String,
    /// How, and why.
    pub eviction: Eviction,
}

/// Keeps a node from running short.
pub struct Evictor {
    /// When and how.
    pub config: EvictionConfig,
    /// The node.
    pub node_name: String,
    /// What pods use.
    pub sources: stats::Sources,
    /// Where events go.
    pub recorder: Recorder,
    /// What others learn from.
    pub pressure: Pressure,
    /// Removes images that nobody uses.
    pub collector: Arc<Collector>,
    /// Where pods are ended.
    pub orders: mpsc::Sender<Order>,
}

/// A pod that was ordered to end.
struct Victim(String);

impl Evictor {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let work = async {
            let (mut state, mut ordered) = (State::default(), HashSet::new());
            loop {
                match self.look(&mut state, &mut ordered).await {
                    Some(victim) => self.cleaned_up(&victim).await,
                    None => tokio::time::sleep(self.config.period).await,
                }
            }
        };
        // A look cut off is taken anew by the next agent.
        shutdown.run_until_cancelled(work).await;
    }

    /// Looks once; answers the pod that was ordered to end.
    async fn look(&self, state: &mut State, ordered: &mut HashSet<String>) -> Option<Victim> {
        let images = self.image_folder().await;
        let seen = self.observe(images.clone()).await;
        let all = &self.config.thresholds;
        let verdict = state.step(all, self.config.transition, &seen, Instant::now());
        self.pressure.set(verdict.conditions);
        if let Some(victim) = self.end_one_over_its_limit(ordered).await {
            return Some(victim);
        }
        let due: Vec<&Threshold> = verdict.due.iter().map(|place| &all[*place]).collect();
        let first = *due.first()?;
        let resource = first.signal.resource();
        let text = format!("Attempting to reclaim {}", resource.name());
        self.recorder.node(&self.node(), Kind::Warning, "EvictionThresholdMet", text);
        let is_split = images.as_deref().is_some_and(|images| self.is_apart(images));
        if self.reclaim(first.signal, is_split).await && self.is_enough(images).await {
            tracing::info!(resource = resource.name(), "enough was won back without ending pods");
            return None;
        }
        self.end_one(first, &due, &seen, figures::Parts::of(first.signal, is_split), ordered).await
    }

    /// Orders a pod to end that has written more than it may.
    async fn end_one_over_its_limit(&self, ordered: &mut HashSet<String>) -> Option<Victim> {
        let mut bounded = active(&self.sources.index.all(), ordered);
        bounded.retain(|pod| limits::has_any(pod) && !rank::is_critical(pod));
        if bounded.is_empty() {
            return None;
        }
        let sample = stats::take(&self.sources).await;
        let paths = self.sources.paths.clone();
        let read = move || figures::on_disk(bounded, &sample, &paths);
        let used = tokio::task::spawn_blocking(read).await.unwrap_or_default();
        let over = |(pod, used): &(Arc<Pod>, _)| Some((pod.clone(), limits::exceeded(pod, used)?));
        let (pod, message) = used.iter().find_map(over)?;
        self.end(&pod, message, GRACE, ordered).await
    }

    /// Orders the first pod in the order of the resource to end.
    async fn end_one(
        &self,
        first: &Threshold,
        due: &[&Threshold],
        seen: &Observations,
        parts: figures::Parts,
        ordered: &mut HashSet<String>,
    ) -> Option<Victim> {
        let active = active(&self.sources.index.all(), ordered);
        let resource = first.signal.resource();
        let candidates = self.candidates(active, resource, parts).await;
        let one =
            rank::rank(resource, candidates).into_iter().find(|one| !rank::is_critical(&one.pod));
        let Some(one) = one else {
            tracing::error!(resource = resource.name(), "no pod can be ended to win back more");
            return None;
        };
        let message = rank::message(resource, &one, due, seen);
        let grace = if first.grace.is_some() { self.config.grace_max } else { GRACE };
        self.end(&one.pod, message, grace, ordered).await
    }

    async fn end(
        &self,
        pod: &Pod,
        message: String,
        grace: Duration,
        ordered: &mut HashSet<String>,
    ) -> Option<Victim> {
        self.recorder.pod(pod, None, Kind::Warning, "Evicted", message.clone());
        let uid = uid(pod).to_owned();
        let order = Order { uid: uid.clone(), eviction: Eviction { message, grace } };
        self.orders.send(order).await.ok()?;
        ordered.insert(uid.clone());
        Some(Victim(uid))
    }

    /// Waits until the runtime has nothing of the pod any more.
    async fn cleaned_up(&self, Victim(uid): &Victim) {
        let wait = async {
            loop {
                let listed = self.sources.runtime.list().await;
                if listed.is_ok_and(|all| all.iter().all(|one| one.pod_uid != *uid)) {
                    return;
                }
                tokio::time::sleep(CLEANED_UP_LOOK).await;
            }
        };
        if tokio::time::timeout(CLEANED_UP_WITHIN, wait).await.is_err() {
            tracing::warn!(%uid, "an evicted pod is not cleaned up yet");
        }
    }

    /// Removes containers of pods that have ended, then images that nobody uses; answers whether
    /// there was anything to try. Images on a disk of their own are no help for the pods' disk.
    async fn reclaim(&self, signal: Signal, is_split: bool) -> bool {
        let is_images = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
        let is_disk = matches!(signal.resource(), Resource::EphemeralStorage | Resource::Inodes);
        if !is_disk || (is_split && !is_images) {
            return false;
        }
        self.remove_ended_containers().await;
        if let Err(error) = self.collector.remove_unused().await {
            tracing::warn!(%error, "not all unused images were removed");
        }
        true
    }

    async fn remove_ended_containers(&self) {
        let (index, runtime) = (self.sources.index.all(), &self.sources.runtime);
        let over: HashSet<String> = index
            .iter()
            .filter(|pod| told_outcome(pod).is_some())
            .map(|pod| uid(pod).to_owned())
            .collect();
        let all = runtime.containers(None).await.unwrap_or_default();
        for container in all {
            if container.state == ContainerState::Exited
                && over.contains(&container.pod_uid)
                && let Err(error) = runtime.remove_container(&container.id).await
            {
                tracing::debug!(%error, "an ended container stays");
            }
        }
    }

    /// Whether nothing is short any more, with what must be won back beyond that.
    async fn is_enough(&self, images: Option<PathBuf>) -> bool {
        let seen = self.observe(images).await;
        let is_short = |threshold: &Threshold| {
            seen.get(&threshold.signal).is_some_and(|seen| threshold.is_unresolved(*seen))
        };
        !self.config.thresholds.iter().any(is_short)
    }

    async fn observe(&self, images: Option<PathBuf>) -> Observations {
        let (data, fs) = (self.sources.paths.data().to_owned(), self.sources.cgroup_fs.clone());
        let read = move || observe::observe(&data, images.as_deref().unwrap_or(&data), &fs);
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Where the runtime keeps images, where it tells.
    async fn image_folder(&self) -> Option<PathBuf> {
        self.sources.runtime.image_folder().await.ok().flatten()
    }

    /// Whether images are on another disk than pods.
    fn is_apart(&self, images: &Path) -> bool {
        observe::device(images)
            .zip(observe::device(self.sources.paths.data()))
            .is_some_and(|(images, data)| images != data)
    }

    async fn candidates(
        &self,
        active: Vec<Arc<Pod>>,
        resource: Resource,
        parts: figures::Parts,
    ) -> Vec<Candidate> {
        let sample = stats::take(&self.sources).await;
        let paths = self.sources.paths.clone();
        let read = move || figures::candidates(&active, &sample, &paths, resource, parts);
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The node, as events name it.
    fn node(&self) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(self.node_name.clone());
        node.metadata.uid = Some(self.node_name.clone());
        node
    }
}

/// Pods that have not ended, and were not ordered to.
fn active(pods: &[Arc<Pod>], ordered: &mut HashSet<String>) -> Vec<Arc<Pod>> {
    ordered.retain(|known| pods.iter().any(|pod| uid(pod) == known));
    let is_active = |pod: &&Arc<Pod>| told_outcome(pod).is_none() && !ordered.contains(uid(pod));
    pods.iter().filter(is_active).cloned().collect()
}

#[cfg(test)]
mod tests;
