//! PodDisruptionBudgets: how many pods may be evicted now. The eviction itself counts one down; here
//! it is counted anew from what is there.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;

use super::events::EventRecorder;
use super::labels;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use plan::Scale;

/// Reconciles PodDisruptionBudgets.
pub struct Disruptions {
    client: Client,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    deployments: Arc<Informer<Deployment>>,
    replica_sets: Arc<Informer<ReplicaSet>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
    replication_controllers: Arc<Informer<ReplicationController>>,
    own: OwnWrites<ObjectKey, PodDisruptionBudget>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<Disruptions> {
    let informers = &context.informers;
    let budgets = informers.of::<PodDisruptionBudget>();
    let pods = informers.of::<Pod>();
    let reconciler = Disruptions {
        client: context.client_of("disruption-controller"),
        budgets: Arc::clone(&budgets),
        pods: Arc::clone(&pods),
        deployments: informers.of(),
        replica_sets: informers.of(),
        stateful_sets: informers.of(),
        replication_controllers: informers.of(),
        own: OwnWrites::new(Arc::clone(&budgets)),
        events: events.of("controllermanager"),
    };
    let all = Arc::clone(&budgets);
    Controller::new("disruption", context, begin, reconciler)
        .watch(&budgets, |budget| vec![ObjectKey::of(budget)])
        .watch(&pods, move |pod| {
            let budgets = all.list_in(owners::namespace(&pod.metadata)).into_iter();
            budgets.filter(|one| selects(one, pod)).map(|one| ObjectKey::of(&*one)).collect()
        })
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| labels::matches(selector, pod.metadata.labels.as_ref()))
}

#[async_trait]
impl Reconcile for Disruptions {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let all = self.pods.list_in(&key.namespace).into_iter();
        let selected: Vec<_> = all.filter(|pod| selects(&budget, pod)).collect();
        if selected.is_empty() {
            self.events.normal(&*budget, "NoPods", "No matching pods found");
        }
        let scales = self.scales(&budget, &selected);
        if let Err(why) = &scales {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            self.events.warning(&*budget, "CalculateExpectedPodCountFailed", message);
        }
        let plan = plan::plan(&budget, &selected, &scales, Timestamp::now());
        for pod in &plan.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.events.warning(&**pod, "NotDeleted", message);
        }
        let again = plan.again_after;
        self.write_status(key, &budget, plan.status).await?;
        Ok(again.into())
    }
}

impl Disruptions {
    /// What each of the pods belongs to. Where the budget is not a share, that need not be known.
    fn scales(
        &self,
        budget: &PodDisruptionBudget,
        selected: &[Arc<Pod>],
    ) -> Result<BTreeMap<String, Scale>, String> {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        let spec = budget.spec.clone().unwrap_or_default();
        if spec.max_unavailable.is_none()
            && matches!(spec.min_available, None | Some(IntOrString::Int(_)))
        {
            return Ok(BTreeMap::new());
        }
        let mut scales = BTreeMap::new();
        for pod in selected {
            // A pod that belongs to nothing is not expected.
            if owners::controller_of(&pod.metadata).is_some() {
                scales.insert(owners::uid(&pod.metadata).to_owned(), self.scale(pod)?);
            }
        }
        Ok(scales)
    }

    fn scale(&self, pod: &Pod) -> Result<Scale, String> {
        let meta = &pod.metadata;
        if let Some(set) = controller_in(&self.replica_sets, meta) {
            if let Some(deployment) = controller_in(&self.deployments, &set.metadata) {
                let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                return Ok(scale_of(&*deployment, replicas));
            }
            return Ok(scale_of(&*set, set.spec.as_ref().and_then(|spec| spec.replicas)));
        }
        if let Some(set) = controller_in(&self.stateful_sets, meta) {
            return Ok(scale_of(&*set, set.spec.as_ref().and_then(|spec| spec.replicas)));
        }
        if let Some(set) = controller_in(&self.replication_controllers, meta) {
            return Ok(scale_of(&*set, set.spec.as_ref().and_then(|spec| spec.replicas)));
        }
        let owner = owners::controller_of(meta).map_or("", |owner| owner.kind.as_str());
        let name = owners::name(meta);
        Err(format!("found no controllers for pod {name:?}: {owner} has no scale"))
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        status: k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let budget = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        // With its resourceVersion: an eviction that has counted down meanwhile is not undone.
        match self.client.update_status(&budget).await {
            Ok(written) => {
                self.own.wrote(key, &written);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("writing the status of disruption budget {key}"))
            }
        }
    }
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The object's controller, where it is there and the one meant.
fn controller_in<K: ApiType>(informer: &Informer<K>, meta: &Meta) -> Option<Arc<K>> {
    let key = owners::controller_key::<K>(meta)?;
    let found = informer.get(&key.namespace, &key.name)?;
    owners::is_controlled_by(meta, owners::uid(found.metadata())).then_some(found)
}

fn scale_of<K: ApiType>(object: &K, replicas: Option<i32>) -> Scale {
    (owners::uid(object.metadata()).to_owned(), replicas.unwrap_or(1))
}
