//! Keeps claims that pods use, and volumes that claims have, from going away under them: a finalizer
//! holds what is being deleted until nobody needs it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::admission::storage_in_use::{CLAIM_FINALIZER, VOLUME_FINALIZER};
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::ListOptions;

use super::owners::{self, ObjectKey};
use super::pods;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use super::volumes::{claims_of, volume_phase};
use crate::leader_context::LeaderContext;

/// The index of pods by the claims they use.
const BY_CLAIM: &str = "claim";

/// A claim or a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A claim.
    Claim(ObjectKey),
    /// A volume, by its name.
    Volume(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// What to do about a finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is as it shall be.
    Keep,
    /// It is missing.
    Add,
    /// It has held long enough.
    Remove,
}

/// Decides about the finalizer of an object.
pub fn plan(meta: &ObjectMeta, finalizer: &str, is_used: impl FnOnce() -> bool) -> Step {
    let has = meta.finalizers.iter().flatten().any(|own| own == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (false, false) => Step::Add,
        (true, true) if !is_used() => Step::Remove,
        _ => Step::Keep,
    }
}

/// Whether the pod keeps the claim. One that no node has seen does not: it will not be started.
fn uses(pod: &Pod, claim: &str) -> bool {
    pods::node_name(pod).is_some() && claims_of(pod).iter().any(|used| used == claim)
}

/// Holds and lets go.
pub struct Protection {
    client: Client,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    pods: Arc<Informer<Pod>>,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Protection> {
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let volumes = context.informers.of::<PersistentVolume>();
    let pods = context.informers.of::<Pod>();
    pods.index_by(BY_CLAIM, index_by_claim);
    let reconciler = Protection {
        client: context.client.clone(),
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        pods: Arc::clone(&pods),
    };
    Controller::new("volume-protection", context, begin, reconciler)
        .watch(&claims, |claim| vec![Key::Claim(ObjectKey::of(claim))])
        .watch(&volumes, |volume| vec![Key::Volume(owners::name(&volume.metadata).to_owned())])
        .watch_changes(&pods, |seen| {
            // Only a pod that leaves sets a claim free.
            let gone = seen.old.filter(|_| seen.new.is_none());
            gone.map(freed).unwrap_or_default()
        })
}

fn index_by_claim(pod: &Pod) -> Vec<String> {
    let namespace = owners::namespace(&pod.metadata);
    let names: BTreeSet<String> = claims_of(pod).into_iter().collect();
    names.into_iter().map(|claim| format!("{namespace}/{claim}")).collect()
}

fn freed(pod: &Pod) -> Vec<Key> {
    let namespace = owners::namespace(&pod.metadata);
    claims_of(pod).into_iter().map(|claim| Key::Claim(ObjectKey::new(namespace, claim))).collect()
}

#[async_trait]
impl Reconcile for Protection {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Next, ReconcileError> {
        match key {
            Key::Claim(key) => self.claim(key).await?,
            Key::Volume(name) => {
                if let Some(volume) = self.volumes.get("", name) {
                    let is_used = || volume_phase(&volume) == "Bound";
                    let step = plan(&volume.metadata, VOLUME_FINALIZER, is_used);
                    self.act(&*volume, VOLUME_FINALIZER, step).await?;
                }
            }
        }
        Ok(Next::OnChange)
    }
}

impl Protection {
    async fn claim(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(()) };
        let known = self.pods.indexed(BY_CLAIM, &key.to_string());
        let is_used = || known.iter().any(|pod| uses(pod, &key.name));
        let mut step = plan(&claim.metadata, CLAIM_FINALIZER, is_used);
        // News of a pod may be late, and what is let go is gone: the store is asked itself.
        if step == Step::Remove {
            let all = self.client.list::<Pod>(&key.namespace, &ListOptions::default()).await;
            let all = all.during(|| format!("listing the pods that may use claim {key}"))?;
            if all.iter().any(|pod| uses(pod, &key.name)) {
                step = Step::Keep;
            }
        }
        self.act(&*claim, CLAIM_FINALIZER, step).await
    }

    async fn act<K: ApiType>(
        &self,
        object: &K,
        finalizer: &str,
        step: Step,
    ) -> Result<(), ReconcileError> {
        let mut changed = object.clone();
        let list = changed.metadata_mut().finalizers.get_or_insert_default();
        match step {
            Step::Keep => return Ok(()),
            Step::Add => list.push(finalizer.to_owned()),
            Step::Remove => list.retain(|own| own != finalizer),
        }
        let name = owners::name(object.metadata());
        match self.client.update(&changed).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("writing the finalizer of {} {name}", K::KIND))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_finalizer_goes_when_the_object_does_and_nobody_uses_it() {
        let meta = |value: Value| -> ObjectMeta { serde_json::from_value(value).unwrap() };
        let (at, own) = ("2026-01-01T00:00:00Z", json!([CLAIM_FINALIZER]));
        let bare = meta(json!({}));
        let kept = meta(json!({ "finalizers": own }));
        let going = meta(json!({ "finalizers": own, "deletionTimestamp": at }));
        let late = meta(json!({ "deletionTimestamp": at }));
        for (meta, is_used, expected) in [
            (&bare, false, Step::Add),
            (&kept, false, Step::Keep),
            (&going, true, Step::Keep),
            (&going, false, Step::Remove),
            (&late, false, Step::Keep),
        ] {
            assert_eq!(plan(meta, CLAIM_FINALIZER, || is_used), expected);
        }
    }

    #[test]
    fn only_a_pod_on_a_node_keeps_its_claims() {
        let pod = |node: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "default" },
                "spec": { "nodeName": node, "containers": [], "volumes": [
                    { "name": "a", "persistentVolumeClaim": { "claimName": "data" } },
                    { "name": "b", "ephemeral": {} },
                ]},
            }))
            .unwrap()
        };
        assert!(uses(&pod("n1"), "data") && uses(&pod("n1"), "p-b"));
        assert!(!uses(&pod(""), "data") && !uses(&pod("n1"), "other"));
    }
}
