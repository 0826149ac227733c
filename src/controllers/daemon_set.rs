//! DaemonSets: one pod on every node that is meant.
//!
//! The controller decides the node and ties the pod to it by node affinity; the scheduler binds it,
//! with all its rules.

pub mod backoff;
pub mod placement;
pub mod plan;
mod roll;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::status::Status;
use parking_lot::Mutex;

use super::deployment::revision::template_hash;
use super::events::EventRecorder;
use super::history::{self, Draft, History, REVISION_HASH};
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::PodControl;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use backoff::Backoff;
use plan::{Ended, Plan, View};

/// Reconciles DaemonSets.
pub struct DaemonSets {
    client: Client,
    sets: Arc<Informer<DaemonSet>>,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    control: PodControl,
    history: History,
    own: OwnWrites<ObjectKey, DaemonSet>,
    events: EventRecorder,
    /// Lost with the term: then a failing pod is replaced once too soon.
    backoffs: Mutex<HashMap<ObjectKey, Backoff>>,
}

const ACCOUNT: &str = "daemon-set-controller";
const COMPONENT: &str = "daemonset-controller";

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<DaemonSets> {
    let sets = context.informers.of::<DaemonSet>();
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_controller(&pods);
    let revisions = context.informers.of::<ControllerRevision>();
    let client = context.client_of(ACCOUNT);
    let events = events.of(COMPONENT);
    let reconciler = DaemonSets {
        client: client.clone(),
        sets: Arc::clone(&sets),
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        control: PodControl::new(client.clone(), &pods, events.clone()),
        history: History::new(client, Arc::clone(&revisions)),
        own: OwnWrites::new(Arc::clone(&sets)),
        events,
        backoffs: Mutex::default(),
    };
    let (by_pod, by_revision, by_node) = (Arc::clone(&sets), Arc::clone(&sets), Arc::clone(&sets));
    Controller::new("daemonset", context, begin, reconciler)
        .watch(&sets, |set| vec![ObjectKey::of(set)])
        .watch_changes(&pods, move |seen| {
            owners::concerned::<DaemonSet, Pod>(seen.old, seen.new, |pod| adopters(&by_pod, pod))
        })
        .watch_changes(&revisions, move |seen| {
            owners::concerned::<DaemonSet, ControllerRevision>(seen.old, seen.new, |revision| {
                adopters(&by_revision, revision)
            })
        })
        .watch_changes(&nodes, move |seen| concerned_by_node(&by_node, &seen))
}

fn adopters<D>(sets: &Informer<DaemonSet>, orphan: &D) -> Vec<ObjectKey>
where
    D: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
{
    let meta = orphan.metadata();
    let selects = |set: &Arc<DaemonSet>| {
        set.spec.as_ref().is_some_and(|spec| labels::matches(&spec.selector, meta.labels.as_ref()))
    };
    let sets = sets.list_in(owners::namespace(meta)).into_iter().filter(selects);
    sets.map(|set| ObjectKey::of(&*set)).collect()
}

/// All DaemonSets, where a node came or went or changed in what decides about its pods; its
/// heartbeats do not.
fn concerned_by_node(sets: &Informer<DaemonSet>, seen: &Seen<'_, Node>) -> Vec<ObjectKey> {
    let deciding = |node: &Node| (node.metadata.labels.clone(), node.spec.clone());
    if seen.old.map(deciding) == seen.new.map(deciding) {
        return Vec::new();
    }
    sets.list().iter().map(|set| ObjectKey::of(&**set)).collect()
}

#[async_trait]
impl Reconcile for DaemonSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        self.control.seen(key).await?;
        self.history.seen(key).await?;
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            self.backoffs.lock().remove(key);
            return Ok(Next::OnChange);
        };
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        if labels::is_empty(&spec.selector) {
            self.events.warning(
                &*set,
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Next::OnChange);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let mut revisions = self.history.claim(key, &*set, &spec.selector).await?;
        let draft = draft(&set);
        let Some(current) = self.history.record(key, &*set, draft, &mut revisions).await? else {
            return self.note_collision(key, &set).await.map(|()| Next::OnChange);
        };
        let all = pods::claimable::<DaemonSet>(&self.pods, key);
        let view = View {
            set: DaemonSet::clone(&set),
            nodes: self.nodes.list(),
            pods: self.control.claim(key, &*set, &spec.selector, all).await?,
            hash: hash_of(&current).to_owned(),
        };
        let backoff = self.backoffs.lock().get(key).cloned().unwrap_or_default();
        let plan = plan::plan(&view, &backoff, Timestamp::now());
        let again = plan.again_after;
        let done = self.carry_out(key, &view, &plan).await;
        self.write_status(key, &set, plan.status).await?;
        done.during(|| format!("creating and deleting the pods of daemon set {key}"))?;
        self.trim(key, &view, &current, &revisions).await?;
        Ok(again.into())
    }
}

fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_HASH)).map_or("", String::as_str)
}

fn draft(set: &DaemonSet) -> Draft {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&template, collisions);
    let data = history::template_patch(&template);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    Draft { data, hash, labels, annotations: set.metadata.annotations.clone() }
}

impl DaemonSets {
    async fn carry_out(&self, key: &ObjectKey, view: &View, plan: &Plan) -> Result<(), Status> {
        let set = &view.set;
        for ended in &plan.ended {
            self.tell(set, ended);
            if let Ended::Failed(_, node) = ended {
                self.backoffs.lock().entry(key.clone()).or_default().note(node, Timestamp::now());
            }
        }
        let sample = placement::new_pod(set, &view.hash);
        let wanted: Vec<Pod> = plan
            .create
            .iter()
            .map(|node| {
                let mut pod = sample.clone();
                placement::tie(&mut pod, node);
                pod
            })
            .collect();
        let created = self.control.create_all(key, set, &wanted).await;
        let deleted = self.control.delete_all(key, set, &plan.delete).await;
        created.refused.map_or(deleted, Err)
    }

    fn tell(&self, set: &DaemonSet, ended: &Ended) {
        let named = |pod: &Pod| {
            format!("{}/{}", owners::namespace(&pod.metadata), owners::name(&pod.metadata))
        };
        match ended {
            Ended::Failed(pod, node) => {
                let pod = named(pod);
                let message =
                    format!("Found failed daemon pod {pod} on node {node}, will try to kill it");
                self.events.warning(set, "FailedDaemonPod", message);
            }
            Ended::Succeeded(pod, node) => {
                let pod = named(pod);
                let message = format!(
                    "Found succeeded daemon pod {pod} on node {node}, will try to delete it"
                );
                self.events.normal(set, "SucceededDaemonPod", message);
            }
        }
    }

    /// Deletes the oldest revisions that no pod is of and the history has no room for.
    async fn trim(
        &self,
        key: &ObjectKey,
        view: &View,
        current: &ControllerRevision,
        revisions: &[ControllerRevision],
    ) -> Result<(), ReconcileError> {
        let limit = view.set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let in_use = |revision: &ControllerRevision| {
            revision.metadata.name == current.metadata.name
                || view.pods.iter().any(|pod| {
                    let labels = pod.metadata.labels.as_ref();
                    labels.and_then(|labels| labels.get(REVISION_HASH)).map(String::as_str)
                        == Some(hash_of(revision))
                        && !pods::is_terminal(pod)
                })
        };
        let beyond = history::beyond_limit(revisions, limit.unwrap_or(10), in_use);
        self.history.delete(key, &beyond).await
    }

    /// Two templates have the same hash: from now on it is made with another count.
    async fn note_collision(&self, key: &ObjectKey, set: &DaemonSet) -> Result<(), ReconcileError> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        tracing::info!(daemon_set = %key, count = status.collision_count, "the name of a new revision is taken");
        self.write_status(key, set, status).await
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        status: DaemonSetStatus,
    ) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let set = DaemonSet { status: Some(status), ..set.clone() };
        match self.client.update_status(&set).await {
            Ok(set) => {
                self.own.wrote(key, &set);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("writing the status of daemon set {key}")),
        }
    }
}

#[cfg(test)]
mod tests;
