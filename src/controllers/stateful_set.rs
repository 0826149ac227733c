//! StatefulSets: pods with names, places and claims of their own, made and unmade in order.

mod claims;
pub mod identity;
pub mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;

use super::deployment::revision::template_hash;
use super::events::EventRecorder;
use super::history::{self, Draft, History};
use super::labels;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::PodControl;
use super::pods;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use claims::{Claims, Ready};
use plan::{Plan, Revision, View, Why};

/// Reconciles StatefulSets.
pub struct StatefulSets {
    client: Client,
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    control: PodControl,
    claims: Claims,
    history: History,
    own: OwnWrites<ObjectKey, StatefulSet>,
    events: EventRecorder,
}

const ACCOUNT: &str = "statefulset-controller";

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<StatefulSets> {
    let sets = context.informers.of::<StatefulSet>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_controller(&pods);
    let revisions = context.informers.of::<ControllerRevision>();
    let volumes = context.informers.of::<PersistentVolumeClaim>();
    let client = context.client_of(ACCOUNT);
    let events = events.of(ACCOUNT);
    let reconciler = StatefulSets {
        client: client.clone(),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        control: PodControl::new(client.clone(), &pods, events.clone()),
        claims: Claims::new(client.clone(), &volumes, events.clone()),
        history: History::new(client, Arc::clone(&revisions)),
        own: OwnWrites::new(Arc::clone(&sets)),
        events,
    };
    let all = Arc::clone(&sets);
    Controller::new("statefulset", context, begin, reconciler)
        .watch(&sets, |set| vec![ObjectKey::of(set)])
        .watch_changes(&pods, move |seen| {
            owners::concerned::<StatefulSet, Pod>(seen.old, seen.new, |pod| adopters(&all, pod))
        })
        .watch_changes(&revisions, |seen| {
            owners::concerned::<StatefulSet, ControllerRevision>(seen.old, seen.new, |_| Vec::new())
        })
}

/// Whether a pod has a name of the set's.
fn is_named_for(set: &StatefulSet, pod: &Pod) -> bool {
    identity::ordinal(owners::name(&set.metadata), owners::name(&pod.metadata)).is_some()
}

fn adopters(sets: &Informer<StatefulSet>, orphan: &Pod) -> Vec<ObjectKey> {
    let selects = |set: &Arc<StatefulSet>| {
        is_named_for(set, orphan)
            && set.spec.as_ref().is_some_and(|spec| {
                labels::matches(&spec.selector, orphan.metadata.labels.as_ref())
            })
    };
    let sets = sets.list_in(owners::namespace(&orphan.metadata)).into_iter().filter(selects);
    sets.map(|set| ObjectKey::of(&*set)).collect()
}

#[async_trait]
impl Reconcile for StatefulSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        self.control.seen(key).await?;
        self.claims.seen(key).await?;
        self.history.seen(key).await?;
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let mut revisions = self.history.claim(key, &*set, &spec.selector).await?;
        let draft = draft(&set);
        let Some(update) = self.history.record(key, &*set, draft, &mut revisions).await? else {
            return self.note_collision(key, &set).await.map(|()| Next::OnChange);
        };
        let all = pods::claimable::<StatefulSet>(&self.pods, key).into_iter();
        let named = all.filter(|pod| is_named_for(&set, pod));
        let pods = self.control.claim(key, &*set, &spec.selector, named).await?;
        let view = view(&set, pods, &revisions, &update);
        let plan = plan::plan(&view, Timestamp::now());
        let again = plan.again_after;
        let done = self.carry_out(key, &view, &plan).await;
        self.write_status(key, &set, plan.status).await?;
        done?;
        self.trim(key, &view, &revisions).await?;
        Ok(again.into())
    }
}

fn draft(set: &StatefulSet) -> Draft {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&template, collisions.filter(|count| *count > 0));
    let data = history::template_patch(&template);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert("controller.kubernetes.io/hash".to_owned(), hash.clone());
    Draft { data, hash, labels, annotations: set.metadata.annotations.clone() }
}

fn view(
    set: &StatefulSet,
    pods: Vec<Arc<Pod>>,
    revisions: &[ControllerRevision],
    update: &ControllerRevision,
) -> View {
    let of = |revision: &ControllerRevision| Revision {
        name: owners::name(&revision.metadata).to_owned(),
        template: history::template_of(revision).unwrap_or_default(),
    };
    let current = set.status.as_ref().and_then(|status| status.current_revision.as_ref());
    let current = revisions.iter().find(|revision| revision.metadata.name.as_ref() == current);
    View { set: set.clone(), pods, current: of(current.unwrap_or(update)), update: of(update) }
}

impl StatefulSets {
    async fn carry_out(
        &self,
        key: &ObjectKey,
        view: &View,
        plan: &Plan,
    ) -> Result<(), ReconcileError> {
        let set = &view.set;
        self.claims.keep_owned(key, set, &view.pods).await?;
        for pod in &plan.create {
            // In this order: who creates the second has created the first.
            if self.claims.furnish(key, set, pod).await? == Ready::NotYet {
                return Ok(());
            }
            self.create(key, set, pod).await?;
        }
        for (pod, why) in &plan.delete {
            if *why == Why::Ended {
                self.tell_of_ended(set, pod);
            }
            self.delete(key, set, pod).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &Pod,
    ) -> Result<(), ReconcileError> {
        let (name, of) = (owners::name(&pod.metadata), &key.name);
        match self.control.create_silently(key, pod).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                let message = format!("create Pod {name} in StatefulSet {of} successful");
                self.events.normal(set, "SuccessfulCreate", message);
            }
            // Its namesake is there, and not the set's: it may go.
            Err(status) => {
                let why = status.message();
                let message = format!("create Pod {name} in StatefulSet {of} failed error: {why}");
                self.events.warning(set, "FailedCreate", message);
                return Err(status).during(|| format!("creating pod {}/{name}", key.namespace));
            }
        }
        Ok(())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &Pod,
    ) -> Result<(), ReconcileError> {
        let (name, of) = (owners::name(&pod.metadata), &key.name);
        match self.control.delete_silently(key, pod).await {
            Ok(()) => {
                let message = format!("delete Pod {name} in StatefulSet {of} successful");
                self.events.normal(set, "SuccessfulDelete", message);
                Ok(())
            }
            Err(status) => {
                let why = status.message();
                let message = format!("delete Pod {name} in StatefulSet {of} failed error: {why}");
                self.events.warning(set, "FailedDelete", message);
                Err(status).during(|| format!("deleting pod {}/{name}", key.namespace))
            }
        }
    }

    fn tell_of_ended(&self, set: &StatefulSet, pod: &Pod) {
        let (namespace, of) = (owners::namespace(&set.metadata), owners::name(&set.metadata));
        let name = owners::name(&pod.metadata);
        let (reason, how) = match super::pods::phase(pod) {
            "Failed" => ("RecreatingFailedPod", "failed"),
            _ => ("RecreatingTerminatedPod", "terminated"),
        };
        let message = format!("StatefulSet {namespace}/{of} is recreating {how} Pod {name}");
        self.events.warning(set, reason, message);
    }

    /// Deletes the oldest revisions that no pod is of and the history has no room for.
    async fn trim(
        &self,
        key: &ObjectKey,
        view: &View,
        revisions: &[ControllerRevision],
    ) -> Result<(), ReconcileError> {
        let limit = view.set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let in_use = |revision: &ControllerRevision| {
            let name = owners::name(&revision.metadata);
            [&view.current.name, &view.update.name].into_iter().any(|used| used == name)
                || view.pods.iter().any(|pod| identity::revision_of(pod) == name)
        };
        let beyond = history::beyond_limit(revisions, limit.unwrap_or(10), in_use);
        self.history.delete(key, &beyond).await
    }

    /// Two templates have the same hash: from now on it is made with another count.
    async fn note_collision(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
    ) -> Result<(), ReconcileError> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(key, set, status).await
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let set = StatefulSet { status: Some(status), ..set.clone() };
        match self.client.update_status(&set).await {
            Ok(set) => {
                self.own.wrote(key, &set);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("writing the status of stateful set {key}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
