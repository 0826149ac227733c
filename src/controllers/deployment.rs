//! Deployments: rollouts from one ReplicaSet to the next, and their history.

pub mod bounds;
pub mod plan;
pub mod revision;
pub mod scaling;
pub mod status;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use kontiki_api::status::Status;
use serde_json::json;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::{self, is_namespace_terminating};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use plan::{Plan, Step, View};

/// Reconciles Deployments.
pub struct Deployments {
    client: Client,
    informer: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    own: OwnWrites<ObjectKey, Deployment>,
    own_sets: OwnWrites<ObjectKey, ReplicaSet>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<Deployments> {
    let deployments = context.informers.of::<Deployment>();
    let sets = context.informers.of::<ReplicaSet>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_controller(&pods);
    let reconciler = Deployments {
        client: context.client_of("deployment-controller"),
        informer: Arc::clone(&deployments),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        own: OwnWrites::new(Arc::clone(&deployments)),
        own_sets: OwnWrites::new(Arc::clone(&sets)),
        events: events.of("deployment-controller"),
    };
    let all_deployments = Arc::clone(&deployments);
    let all_sets = Arc::clone(&sets);
    Controller::new("deployment", context, begin, reconciler)
        .watch(&deployments, |deployment| vec![ObjectKey::of(deployment)])
        .watch_changes(&sets, move |seen| deployments_of(&all_deployments, &seen))
        .watch_changes(&pods, move |seen| recreated_by(&all_sets, &seen))
}

/// The Deployments that a change of a ReplicaSet concerns.
fn deployments_of(
    deployments: &Informer<Deployment>,
    seen: &Seen<'_, ReplicaSet>,
) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = [seen.old, seen.new]
        .into_iter()
        .flatten()
        .filter_map(|set| owners::controller_key::<Deployment>(&set.metadata))
        .collect();
    if let Some(orphan) = seen.new.filter(|set| owners::controller_of(&set.metadata).is_none()) {
        let adopters =
            deployments.list_in(owners::namespace(&orphan.metadata)).into_iter().filter(|one| {
                one.spec.as_ref().is_some_and(|spec| {
                    labels::matches(&spec.selector, orphan.metadata.labels.as_ref())
                })
            });
        keys.extend(adopters.map(|one| ObjectKey::of(&*one)));
    }
    keys
}

/// The Deployment that may wait for the end of this pod to recreate.
fn recreated_by(sets: &Informer<ReplicaSet>, seen: &Seen<'_, Pod>) -> Vec<ObjectKey> {
    let ended = seen.new.is_none_or(pods::is_terminal);
    let Some(pod) = seen.old.or(seen.new).filter(|_| ended) else { return Vec::new() };
    owners::controller_key::<ReplicaSet>(&pod.metadata)
        .and_then(|key| sets.get(&key.namespace, &key.name))
        .and_then(|set| owners::controller_key::<Deployment>(&set.metadata))
        .into_iter()
        .collect()
}

#[async_trait]
impl Reconcile for Deployments {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        self.own_sets.seen(key).await?;
        let Some(deployment) = self.informer.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let deployment = Deployment::clone(&deployment);
        let spec = deployment.spec.clone().unwrap_or_default();
        if labels::is_empty(&spec.selector) {
            self.events.warning(
                &deployment,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Next::OnChange);
        }
        let sets = self.claim(key, &deployment).await?;
        let running = self.running(&deployment, &sets);
        let before = deployment.status.clone();
        let view = View { deployment: deployment.clone(), sets, running };
        let plan = plan::plan(view, Timestamp::now());
        Box::pin(self.carry_out(key, deployment, before, plan)).await
    }
}

impl Deployments {
    /// The Deployment's ReplicaSets, after adopting those that match it and letting go those that
    /// no longer do.
    async fn claim(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
    ) -> Result<Vec<ReplicaSet>, ReconcileError> {
        let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
        let own = owners::uid(&deployment.metadata);
        let terminates = deployment.metadata.deletion_timestamp.is_some();
        let mut sets = Vec::new();
        for set in self.sets.list_in(&key.namespace) {
            let matches = labels::matches(&spec.selector, set.metadata.labels.as_ref());
            match owners::controller_of(&set.metadata) {
                Some(owner) if owner.uid != own => {}
                Some(_) if matches || terminates => sets.push(ReplicaSet::clone(&set)),
                Some(_) => {
                    let patch = json!([{ "$patch": "delete", "uid": own }]);
                    self.patch_owner(key, &set, patch).await?;
                }
                None if matches && !terminates && set.metadata.deletion_timestamp.is_none() => {
                    if !pod_control::is_still_there(&self.client, deployment).await? {
                        return Ok(sets);
                    }
                    let patch = json!([owners::controller_reference(deployment)]);
                    sets.extend(self.patch_owner(key, &set, patch).await?);
                }
                None => {}
            }
        }
        Ok(sets)
    }

    async fn patch_owner(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        references: serde_json::Value,
    ) -> Result<Option<ReplicaSet>, ReconcileError> {
        let name = owners::name(&set.metadata);
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": set.metadata.uid, "ownerReferences": references }
        }));
        match self.client.patch::<ReplicaSet>(&key.namespace, name, Part::Main, &patch).await {
            Ok(set) => {
                self.own_sets.wrote(key, &set);
                Ok(Some(set))
            }
            Err(status) if status.is_not_found() || status.is_conflict() || status.is_invalid() => {
                Ok(None)
            }
            Err(status) => Err(status)
                .during(|| format!("changing the owner of replica set {}/{name}", key.namespace)),
        }
    }

    /// The uids of those ReplicaSets that have pods which have not come to their end. Only who
    /// recreates waits for them.
    fn running(&self, deployment: &Deployment, sets: &[ReplicaSet]) -> Vec<String> {
        let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate") {
            return Vec::new();
        }
        let runs = |uid: &str, pod: &Pod| {
            !pods::is_terminal(pod) && owners::is_controlled_by(&pod.metadata, uid)
        };
        let has_running = |set: &&ReplicaSet| {
            let uid = owners::uid(&set.metadata);
            let own = pods::controlled_by::<ReplicaSet>(&self.pods, &ObjectKey::of(*set));
            own.iter().any(|pod| runs(uid, pod))
        };
        sets.iter().filter(has_running).map(|set| owners::uid(&set.metadata).to_owned()).collect()
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        mut deployment: Deployment,
        before: Option<DeploymentStatus>,
        plan: Plan,
    ) -> Result<Next, ReconcileError> {
        for step in plan.steps {
            match step {
                Step::Create(set) => {
                    if !self.create(key, &deployment, &plan.status, *set).await? {
                        return Ok(Next::OnChange);
                    }
                }
                Step::Update(set) => self.update(key, &set).await?,
                Step::Scale { set, from } => self.scale(key, &deployment, &set, from).await?,
                Step::Delete(name) => self.delete(key, &name).await?,
                Step::SetRevision(number) => {
                    deployment = self.set_revision(key, &deployment, number).await?;
                }
            }
        }
        if before.as_ref() != Some(&plan.status) {
            self.write_status(key, &deployment, plan.status).await?;
        }
        Ok(plan.again_after.into())
    }

    /// Creates the new ReplicaSet; `false` where the rest of the plan must wait.
    async fn create(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: &DeploymentStatus,
        set: ReplicaSet,
    ) -> Result<bool, ReconcileError> {
        let name = owners::name(&set.metadata).to_owned();
        match self.client.create(&set).await {
            Ok(created) => {
                self.own_sets.wrote(key, &created);
                let size = scaling::size(&created);
                if size > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {size}");
                    self.events.normal(deployment, "ScalingReplicaSet", message);
                }
                Ok(true)
            }
            Err(refused) if refused.is_already_exists() => {
                self.resolve_collision(key, deployment, &name).await.map(|()| false)
            }
            Err(refused) if is_namespace_terminating(&refused) => Ok(false),
            Err(refused) => {
                self.note_failed_creation(key, deployment, status, &name, &refused).await?;
                Err(refused).during(|| format!("creating replica set {}/{name}", key.namespace))
            }
        }
    }

    /// The name is taken: by the very ReplicaSet, which the cache will show, or by another template
    /// of the same hash, which the collision count tells apart from now on.
    async fn resolve_collision(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        name: &str,
    ) -> Result<(), ReconcileError> {
        let existing = self
            .client
            .get::<ReplicaSet>(&key.namespace, name)
            .await
            .during(|| format!("reading replica set {}/{name}", key.namespace))?;
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let own_template = existing.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let is_it = owners::is_controlled_by(&existing.metadata, owners::uid(&deployment.metadata))
            && template.zip(own_template).is_some_and(|(a, b)| revision::same_template(a, b));
        if is_it {
            self.own_sets.wrote(key, &existing);
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        tracing::info!(deployment = %key, name, count = status.collision_count, "the name of a new replica set is taken");
        self.write_status(key, deployment, status).await
    }

    async fn note_failed_creation(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: &DeploymentStatus,
        name: &str,
        refused: &Status,
    ) -> Result<(), ReconcileError> {
        let message = format!("Failed to create new replica set \"{name}\": {}", refused.message());
        self.events.warning(deployment, "ReplicaSetCreateError", message.clone());
        if status::deadline_seconds(deployment).is_none() {
            return Ok(());
        }
        let mut status = status.clone();
        let failed = status::condition(
            status::PROGRESSING,
            "False",
            "ReplicaSetCreateError",
            message,
            Timestamp::now(),
        );
        status::set_condition(&mut status, failed);
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.write_status(key, deployment, status).await
    }

    async fn update(&self, key: &ObjectKey, set: &ReplicaSet) -> Result<(), ReconcileError> {
        let name = owners::name(&set.metadata);
        let set = self
            .client
            .update(set)
            .await
            .during(|| format!("updating replica set {}/{name}", key.namespace))?;
        self.own_sets.wrote(key, &set);
        Ok(())
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
        from: i32,
    ) -> Result<(), ReconcileError> {
        self.update(key, set).await?;
        let to = scaling::size(set);
        let direction = if to > from { "up" } else { "down" };
        let name = owners::name(&set.metadata);
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.events.normal(deployment, "ScalingReplicaSet", message);
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, name: &str) -> Result<(), ReconcileError> {
        let options = DeleteOptions::default().propagate(Propagation::Background);
        match self.client.delete::<ReplicaSet>(&key.namespace, name, &options).await {
            Ok(deleted) => {
                self.own_sets.deleted(key, &deleted);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("deleting replica set {}/{name}", key.namespace))
            }
        }
    }

    async fn set_revision(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        number: i64,
    ) -> Result<Deployment, ReconcileError> {
        let patch = Patch::Merge(json!({
            "metadata": {
                "resourceVersion": deployment.metadata.resource_version,
                "annotations": { revision::REVISION: number.to_string() },
            }
        }));
        let written = self
            .client
            .patch::<Deployment>(&key.namespace, &key.name, Part::Main, &patch)
            .await
            .during(|| format!("writing the revision of deployment {key}"))?;
        self.own.wrote(key, &written);
        Ok(written)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        let mut deployment = deployment.clone();
        deployment.status = Some(status);
        match self.client.update_status(&deployment).await {
            Ok(deployment) => {
                self.own.wrote(key, &deployment);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("writing the status of deployment {key}")),
        }
    }
}

#[cfg(test)]
mod tests;
