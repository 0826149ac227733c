//! [`PodControl`]: how a controller takes over, creates and deletes pods, and tells of it.

use std::sync::Arc;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use kontiki_api::status::Status;
use serde_json::{Value, json};

use super::claims::{self, Claim};
use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::runtime::{During, ReconcileError};

/// The pods of one controller's objects.
pub struct PodControl {
    client: Client,
    own: OwnWrites<ObjectKey, Pod>,
    events: EventRecorder,
}

/// What came of creating several pods.
#[derive(Debug, Default)]
pub struct Created {
    /// Those that were created.
    pub pods: Vec<Arc<Pod>>,
    /// Why the others were not, where some were not.
    pub refused: Option<Status>,
}

impl PodControl {
    /// Writes through `client` and records with `events`.
    pub fn new(client: Client, pods: &Arc<Informer<Pod>>, events: EventRecorder) -> Self {
        Self { client, own: OwnWrites::new(Arc::clone(pods)), events }
    }

    /// Waits until the informer has seen what was written for `key`.
    pub async fn seen(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        self.own.seen(key).await
    }

    /// The owner's pods among `pods`, after adopting those that match it and letting go those that
    /// no longer do.
    pub async fn claim<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        selector: &LabelSelector,
        pods: impl IntoIterator<Item = Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let Claim { mut own, adopt, release } = claims::claim(owner.metadata(), selector, pods);
        if !adopt.is_empty() && is_still_there(&self.client, owner).await? {
            let references = json!([owners::controller_reference(owner)]);
            for pod in &adopt {
                own.extend(self.set_owners(key, pod, &references).await?);
            }
        }
        let references = json!([{ "$patch": "delete", "uid": owner.metadata().uid }]);
        for pod in &release {
            self.set_owners(key, pod, &references).await?;
        }
        Ok(own)
    }

    async fn set_owners(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        references: &Value,
    ) -> Result<Option<Arc<Pod>>, ReconcileError> {
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid, "ownerReferences": references }
        });
        let name = owners::name(&pod.metadata);
        self.patch(key, pod, patch)
            .await
            .during(|| format!("changing the owner of pod {}/{name}", key.namespace))
    }

    /// Patches a pod; `None` where it is gone, or another of its name by now. `patch` should name
    /// the pod's uid.
    pub async fn patch(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        patch: Value,
    ) -> Result<Option<Arc<Pod>>, Status> {
        let name = owners::name(&pod.metadata);
        let patch = Patch::Strategic(patch);
        match self.client.patch::<Pod>(&key.namespace, name, Part::Main, &patch).await {
            Ok(pod) => {
                self.own.wrote(key, &pod);
                Ok(Some(Arc::new(pod)))
            }
            Err(status) if status.is_not_found() || status.is_invalid() || status.is_conflict() => {
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }

    /// Creates a pod of `owner`; `None` where its namespace goes away, which is no failure.
    pub async fn create<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        pod: &Pod,
    ) -> Result<Option<Arc<Pod>>, Status> {
        match self.create_silently(key, pod).await {
            Ok(None) => Ok(None),
            Ok(Some(pod)) => {
                let message = format!("Created pod: {}", owners::name(&pod.metadata));
                self.events.normal(owner, "SuccessfulCreate", message);
                Ok(Some(pod))
            }
            Err(status) => {
                let message = format!("Error creating: {}", status.message());
                self.events.warning(owner, "FailedCreate", message);
                Err(status)
            }
        }
    }

    /// The same without an event.
    pub async fn create_silently(
        &self,
        key: &ObjectKey,
        pod: &Pod,
    ) -> Result<Option<Arc<Pod>>, Status> {
        match self.client.create(pod).await {
            Ok(pod) => {
                self.own.wrote(key, &pod);
                Ok(Some(Arc::new(pod)))
            }
            Err(status) if is_namespace_terminating(&status) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Creates pods in growing batches; the first batch with a failure is the last.
    pub async fn create_all<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        pods: &[Pod],
    ) -> Created {
        let mut created = Created::default();
        let mut left = pods;
        for size in slow_start(pods.len()) {
            let (batch, rest) = left.split_at(size);
            left = rest;
            let mut gone = false;
            for outcome in join_all(batch.iter().map(|pod| self.create(key, owner, pod))).await {
                match outcome {
                    Ok(Some(pod)) => created.pods.push(pod),
                    Ok(None) => gone = true,
                    Err(status) => created.refused = Some(status),
                }
            }
            if gone || created.refused.is_some() {
                break;
            }
        }
        created
    }

    /// Deletes a pod of `owner`, unless it is gone already or another of its name by now.
    pub async fn delete<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        pod: &Pod,
    ) -> Result<(), Status> {
        let name = owners::name(&pod.metadata);
        let options = DeleteOptions::of_uid(owners::uid(&pod.metadata));
        match self.client.delete::<Pod>(&key.namespace, name, &options).await {
            Ok(deleted) => {
                self.own.deleted(key, &deleted);
                self.events.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => {
                let message = format!("Error deleting: {}", status.message());
                self.events.warning(owner, "FailedDelete", message);
                Err(status)
            }
        }
    }

    /// The same without an event.
    pub async fn delete_silently(&self, key: &ObjectKey, pod: &Pod) -> Result<(), Status> {
        let options = DeleteOptions::of_uid(owners::uid(&pod.metadata));
        match self.client.delete::<Pod>(&key.namespace, owners::name(&pod.metadata), &options).await
        {
            Ok(deleted) => {
                self.own.deleted(key, &deleted);
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Deletes pods at the same time; the first refusal, where there is one.
    pub async fn delete_all<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        pods: &[Arc<Pod>],
    ) -> Result<(), Status> {
        let outcomes = join_all(pods.iter().map(|pod| self.delete(key, owner, pod))).await;
        outcomes.into_iter().collect()
    }
}

/// The pod that a template makes for `owner`. The API gives it a name that begins with the owner's.
pub fn from_template<K: ApiType>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owners::name(owner.metadata()))),
            namespace: owner.metadata().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether the owner is still there and not being deleted. Looks at the store itself: a cache that
/// is late must not make a deleted owner adopt.
pub async fn is_still_there<K: ApiType>(
    client: &Client,
    owner: &K,
) -> Result<bool, ReconcileError> {
    let meta = owner.metadata();
    let (namespace, name) = (owners::namespace(meta), owners::name(meta));
    match client.get::<K>(namespace, name).await {
        Ok(fresh) => {
            Ok(fresh.metadata().uid == meta.uid && fresh.metadata().deletion_timestamp.is_none())
        }
        Err(status) if status.is_not_found() => Ok(false),
        Err(status) => {
            Err(status).during(|| format!("reading {} {namespace}/{name}", K::KIND.to_lowercase()))
        }
    }
}

/// Whether something could not be created because its namespace goes away.
pub fn is_namespace_terminating(status: &Status) -> bool {
    status.details().is_some_and(|details| {
        details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    })
}

/// The sizes of the batches in which `count` pods are created: 1, 2, 4, … so that a quota or an
/// admission that refuses them all is asked few times only.
pub fn slow_start(count: usize) -> impl Iterator<Item = usize> {
    let mut left = count;
    let mut size = 1;
    std::iter::from_fn(move || {
        let batch = size.min(left);
        left -= batch;
        size *= 2;
        (batch > 0).then_some(batch)
    })
}
