//! ReplicaSets: as many pods of a template as wanted. ReplicationControllers are the same in an
//! older form: they are reconciled as the ReplicaSets they amount to ([`Replicated`]).

pub mod plan;
pub mod replicated;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::status::Status;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::{self, PodControl};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use plan::{Failure, Scale};
use replicated::Replicated;

/// Reconciles ReplicaSets, or what amounts to them.
pub struct ReplicaSets<K> {
    client: Client,
    sets: Arc<Informer<K>>,
    pods: Arc<Informer<Pod>>,
    control: PodControl,
    own_sets: OwnWrites<ObjectKey, K>,
}

/// The controller of ReplicaSets (or of what amounts to them), ready to run.
pub fn controller<K: Replicated>(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<ReplicaSets<K>> {
    let sets = context.informers.of::<K>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_controller(&pods);
    let client = context.client_of(K::ACCOUNT);
    let reconciler = ReplicaSets {
        client: client.clone(),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        control: PodControl::new(client, &pods, events.of(K::ACCOUNT)),
        own_sets: OwnWrites::new(Arc::clone(&sets)),
    };
    let all_sets = Arc::clone(&sets);
    Controller::new(K::CONTROLLER, context, begin, reconciler)
        .watch(&sets, |set| vec![ObjectKey::of(set)])
        .watch_changes(&pods, move |seen| sets_of(&all_sets, &seen))
}

/// The ReplicaSets that a change of a pod concerns: its controller before and after, or, where it
/// has none, all that might adopt it.
fn sets_of<K: Replicated>(sets: &Informer<K>, seen: &Seen<'_, Pod>) -> Vec<ObjectKey> {
    owners::concerned::<K, Pod>(seen.old, seen.new, |orphan| {
        let meta = &orphan.metadata;
        let mut adopters = Vec::new();
        for set in sets.list_in(owners::namespace(meta)) {
            let set = set.as_set();
            if set.spec.iter().any(|spec| labels::matches(&spec.selector, meta.labels.as_ref())) {
                adopters.push(ObjectKey::of(&*set));
            }
        }
        adopters
    })
}

#[async_trait]
impl<K: Replicated> Reconcile for ReplicaSets<K> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own_sets.seen(key).await?;
        self.control.seen(key).await?;
        let Some(owner) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let set = owner.as_set();
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        let all = pods::claimable::<K>(&self.pods, key);
        let mut active = match selector {
            Some(selector) => {
                let active = all.iter().filter(|pod| pods::is_active(pod)).cloned();
                self.control.claim(key, &*owner, selector, active).await?
            }
            None => Vec::new(),
        };
        let mut outcome = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            // They matter only to who must go.
            let is_surplus = usize::try_from(plan::wanted(&set)).is_ok_and(|n| active.len() > n);
            let related = if is_surplus { self.related(&set) } else { Vec::new() };
            outcome = match plan::scale(&set, &active, &related, Timestamp::now()) {
                Scale::Keep => Ok(()),
                Scale::Create(count) => self.create(key, &*owner, count, &mut active).await,
                Scale::Delete(victims) => self.delete(key, &*owner, &victims, &mut active).await,
            };
        }
        let failure = outcome.as_ref().err().map(|(failure, _)| failure.clone());
        let now = Timestamp::now();
        let terminating = K::COUNTS_TERMINATING.then(|| plan::terminating(&set, &all));
        let status = plan::status(&set, &active, terminating, failure, now);
        self.write_status(key, &owner, &set, status).await?;
        outcome
            .map_err(|(failure, status)| ReconcileError::Api { act: failure.message, status })?;
        Ok(plan::next_available(&set, &active, now).into())
    }
}

impl<K: Replicated> ReplicaSets<K> {
    /// The pods of all ReplicaSets of the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let of = |set: &ObjectMeta| {
            let uid = owners::uid(set).to_owned();
            let all = pods::controlled_by::<K>(&self.pods, &ObjectKey::of_meta(set));
            all.into_iter().filter(move |pod| owners::is_controlled_by(&pod.metadata, &uid))
        };
        let Some(owner) = owners::controller_of(&set.metadata) else {
            return of(&set.metadata).collect();
        };
        let siblings = self.sets.list_in(owners::namespace(&set.metadata));
        let siblings =
            siblings.iter().filter(|one| owners::is_controlled_by(one.metadata(), &owner.uid));
        siblings.flat_map(|sibling| of(sibling.metadata())).collect()
    }

    async fn create(
        &self,
        key: &ObjectKey,
        owner: &K,
        count: usize,
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), (Failure, Status)> {
        let set = owner.as_set();
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
        let pod = pod_control::from_template(owner, &template.unwrap_or_default());
        let wanted = vec![pod; count];
        let created = self.control.create_all(key, owner, &wanted).await;
        active.extend(created.pods);
        created.refused.map_or(Ok(()), |status| Err(failure("FailedCreate", status)))
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        owner: &K,
        victims: &[Arc<Pod>],
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), (Failure, Status)> {
        self.control
            .delete_all(key, owner, victims)
            .await
            .map_err(|status| failure("FailedDelete", status))?;
        active.retain(|pod| !victims.iter().any(|victim| victim.metadata.uid == pod.metadata.uid));
        Ok(())
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        owner: &K,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.client.update_status(&owner.with_status(status)).await {
            Ok(set) => {
                self.own_sets.wrote(key, &set);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                let kind = K::CONTROLLER;
                Err(status).during(|| format!("writing the status of {kind} {key}"))
            }
        }
    }
}

fn failure(reason: &'static str, status: Status) -> (Failure, Status) {
    (Failure { reason, message: status.message().to_owned() }, status)
}

#[cfg(test)]
mod tests;
