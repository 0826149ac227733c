//! ReplicaSets: as many pods of a template as wanted.

pub mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use kontiki_api::status::Status;
use serde_json::json;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use plan::{Claim, Failure, Scale};

/// Reconciles ReplicaSets.
pub struct ReplicaSets {
    client: Client,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    own_pods: OwnWrites<ObjectKey, Pod>,
    own_sets: OwnWrites<ObjectKey, ReplicaSet>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<ReplicaSets> {
    let sets = context.informers.of::<ReplicaSet>();
    let pods = context.informers.of::<Pod>();
    let reconciler = ReplicaSets {
        client: context.client_of("replicaset-controller"),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        own_pods: OwnWrites::new(Arc::clone(&pods)),
        own_sets: OwnWrites::new(Arc::clone(&sets)),
        events: events.of("replicaset-controller"),
    };
    let all_sets = Arc::clone(&sets);
    Controller::new("replicaset", context, begin, reconciler)
        .watch(&sets, |set| vec![ObjectKey::of(set)])
        .watch_changes(&pods, move |seen| sets_of(&all_sets, &seen))
}

/// The ReplicaSets that a change of a pod concerns: its controller before and after, or, where it
/// has none, all that might adopt it.
fn sets_of(sets: &Informer<ReplicaSet>, seen: &Seen<'_, Pod>) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = [seen.old, seen.new]
        .into_iter()
        .flatten()
        .filter_map(|pod| owners::controller_key::<ReplicaSet>(&pod.metadata))
        .collect();
    if let Some(orphan) = seen.new.filter(|pod| owners::controller_of(&pod.metadata).is_none()) {
        let adopters =
            sets.list_in(owners::namespace(&orphan.metadata)).into_iter().filter(|set| {
                set.spec.as_ref().is_some_and(|spec| {
                    labels::matches(&spec.selector, orphan.metadata.labels.as_ref())
                })
            });
        keys.extend(adopters.map(|set| ObjectKey::of(&*set)));
    }
    keys
}

#[async_trait]
impl Reconcile for ReplicaSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own_sets.seen(key).await?;
        self.own_pods.seen(key).await?;
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let all = self.pods.list_in(&key.namespace);
        let claim = plan::claim(&set, all.iter().filter(|pod| pods::is_active(pod)).cloned());
        let mut active = claim.own.clone();
        active.extend(self.take_over(key, &set, claim).await?);
        let mut outcome = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            let related = self.related(&set, &all);
            outcome = match plan::scale(&set, &active, &related, Timestamp::now()) {
                Scale::Keep => Ok(()),
                Scale::Create(count) => self.create(key, &set, count, &mut active).await,
                Scale::Delete(victims) => self.delete(key, &set, &victims, &mut active).await,
            };
        }
        let failure = outcome.as_ref().err().map(|(failure, _)| failure.clone());
        let now = Timestamp::now();
        self.write_status(key, &set, plan::status(&set, &active, failure, now)).await?;
        outcome
            .map_err(|(failure, status)| ReconcileError::Api { act: failure.message, status })?;
        Ok(plan::next_available(&set, &active, now).into())
    }
}

impl ReplicaSets {
    /// Adopts and lets go; returns what was adopted.
    async fn take_over(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        claim: Claim,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let mut adopted = Vec::new();
        if !claim.adopt.is_empty() && !self.is_still_there(set).await? {
            return Ok(adopted);
        }
        for pod in &claim.adopt {
            let patch = json!({
                "metadata": {
                    "uid": pod.metadata.uid,
                    "ownerReferences": [owners::controller_reference(set)],
                }
            });
            if let Some(pod) = self.patch_pod(key, pod, patch).await? {
                adopted.push(Arc::new(pod));
            }
        }
        for pod in &claim.release {
            let patch = json!({
                "metadata": {
                    "uid": pod.metadata.uid,
                    "ownerReferences": [{ "$patch": "delete", "uid": set.metadata.uid }],
                }
            });
            self.patch_pod(key, pod, patch).await?;
        }
        Ok(adopted)
    }

    /// Looks at the store itself: a cache that is late must not make a deleted set adopt pods.
    async fn is_still_there(&self, set: &ReplicaSet) -> Result<bool, ReconcileError> {
        let (namespace, name) = (owners::namespace(&set.metadata), owners::name(&set.metadata));
        match self.client.get::<ReplicaSet>(namespace, name).await {
            Ok(fresh) => Ok(fresh.metadata.uid == set.metadata.uid
                && fresh.metadata.deletion_timestamp.is_none()),
            Err(status) if status.is_not_found() => Ok(false),
            Err(status) => Err(status).during(|| format!("reading replica set {namespace}/{name}")),
        }
    }

    async fn patch_pod(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        patch: serde_json::Value,
    ) -> Result<Option<Pod>, ReconcileError> {
        let name = owners::name(&pod.metadata);
        match self
            .client
            .patch::<Pod>(&key.namespace, name, Part::Main, &Patch::Strategic(patch))
            .await
        {
            Ok(pod) => {
                self.own_pods.wrote(key, &pod);
                Ok(Some(pod))
            }
            // Gone, or another pod of the same name by now.
            Err(status) if status.is_not_found() || status.is_invalid() || status.is_conflict() => {
                Ok(None)
            }
            Err(status) => {
                Err(status).during(|| format!("changing the owner of pod {}/{name}", key.namespace))
            }
        }
    }

    /// The active pods of all ReplicaSets of the same owner.
    fn related(&self, set: &ReplicaSet, all: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let owner = owners::controller_of(&set.metadata).map(|owner| owner.uid.clone());
        let siblings: Vec<String> = match owner {
            None => vec![owners::uid(&set.metadata).to_owned()],
            Some(owner) => self
                .sets
                .list_in(owners::namespace(&set.metadata))
                .iter()
                .filter(|sibling| owners::is_controlled_by(&sibling.metadata, &owner))
                .map(|sibling| owners::uid(&sibling.metadata).to_owned())
                .collect(),
        };
        all.iter()
            .filter(|pod| {
                owners::controller_of(&pod.metadata)
                    .is_some_and(|owner| siblings.contains(&owner.uid))
            })
            .cloned()
            .collect()
    }

    /// Creates pods in growing batches; the first batch with a failure is the last.
    async fn create(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        count: usize,
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), (Failure, Status)> {
        let pod = new_pod(set);
        for batch in plan::slow_start(count) {
            let created = join_all((0..batch).map(|_| self.client.create(&pod))).await;
            let mut failed = None;
            for outcome in created {
                match outcome {
                    Ok(pod) => {
                        self.own_pods.wrote(key, &pod);
                        self.events.normal(
                            set,
                            "SuccessfulCreate",
                            format!("Created pod: {}", owners::name(&pod.metadata)),
                        );
                        active.push(Arc::new(pod));
                    }
                    Err(status) => failed = Some(status),
                }
            }
            if let Some(status) = failed {
                return self.not_created(set, status);
            }
        }
        Ok(())
    }

    fn not_created(&self, set: &ReplicaSet, status: Status) -> Result<(), (Failure, Status)> {
        if is_namespace_terminating(&status) {
            return Ok(());
        }
        let message = status.message().to_owned();
        self.events.warning(set, "FailedCreate", format!("Error creating: {message}"));
        Err((Failure { reason: "FailedCreate", message }, status))
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        victims: &[Arc<Pod>],
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), (Failure, Status)> {
        let failed = AtomicUsize::new(0);
        let outcomes = join_all(victims.iter().map(|pod| async {
            let name = owners::name(&pod.metadata);
            let options = DeleteOptions::of_uid(owners::uid(&pod.metadata));
            match self.client.delete::<Pod>(&key.namespace, name, &options).await {
                Ok(deleted) => {
                    self.own_pods.deleted(key, &deleted);
                    self.events.normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
                    Ok(())
                }
                // Gone, or another pod of the same name by now.
                Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
                Err(status) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    self.events.warning(
                        set,
                        "FailedDelete",
                        format!("Error deleting: {}", status.message()),
                    );
                    Err(status)
                }
            }
        }))
        .await;
        if failed.load(Ordering::Relaxed) == 0 {
            active.retain(|pod| {
                !victims.iter().any(|victim| victim.metadata.uid == pod.metadata.uid)
            });
        }
        match outcomes.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(status) => Err((
                Failure { reason: "FailedDelete", message: status.message().to_owned() },
                status,
            )),
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut set = set.clone();
        set.status = Some(status);
        match self.client.update_status(&set).await {
            Ok(set) => {
                self.own_sets.wrote(key, &set);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("writing the status of replica set {key}"))
            }
        }
    }
}

/// Whether something could not be created because its namespace goes away.
pub fn is_namespace_terminating(status: &Status) -> bool {
    status.details().is_some_and(|details| {
        details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    })
}

/// The pod that a ReplicaSet's template makes.
fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owners::name(&set.metadata))),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests;
