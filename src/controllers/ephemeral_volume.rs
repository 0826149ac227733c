//! Makes the claims of generic ephemeral volumes: each lives as long as its pod.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;

use super::events::EventRecorder;
use super::owners::{self, ObjectKey};
use super::pods;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use super::volumes::claim_of;
use crate::leader_context::LeaderContext;

/// Makes claims.
pub struct EphemeralVolumes {
    client: Client,
    events: EventRecorder,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
}

/// The controller, ready to run. Its keys are pods.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<EphemeralVolumes> {
    let pods = context.informers.of::<Pod>();
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let reconciler = EphemeralVolumes {
        client: context.client_of("ephemeral-volume-controller"),
        events: events.of("ephemeral_volume"),
        pods: Arc::clone(&pods),
        claims: Arc::clone(&claims),
    };
    Controller::new("ephemeral-volume", context, begin, reconciler)
        .watch(&pods, |pod| {
            let has = ephemeral(pod).next().is_some();
            has.then(|| ObjectKey::of(pod)).into_iter().collect()
        })
        .watch(&claims, |claim| {
            owners::controller_key::<Pod>(&claim.metadata).into_iter().collect()
        })
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.ephemeral.is_some())
}

#[async_trait]
impl Reconcile for EphemeralVolumes {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if pods::is_terminating(&pod) {
            return Ok(Next::OnChange);
        }
        for volume in ephemeral(&pod) {
            let Some(claim) = claim(&pod, volume) else { continue };
            let name = owners::name(&claim.metadata);
            if let Some(known) = self.claims.get(&key.namespace, name) {
                if !owners::is_controlled_by(&known.metadata, owners::uid(&pod.metadata)) {
                    let why = format!(
                        "PVC {key_ns}/{name} was not created for pod {key} (pod is not owner)",
                        key_ns = key.namespace
                    );
                    self.events.warning(&*pod, "EphemeralVolumeFailed", why);
                }
                continue;
            }
            match self.client.create(&claim).await {
                Err(status) if !status.is_already_exists() => {
                    let why = format!("ephemeral volume {:?}: {status}", volume.name);
                    self.events.warning(&*pod, "EphemeralVolumeFailed", why);
                    return Err(status).during(|| format!("creating claim {name} of pod {key}"));
                }
                _ => {}
            }
        }
        Ok(Next::OnChange)
    }
}

/// The claim of an ephemeral volume, as its template says.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let said = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: claim_of(pod, volume),
            namespace: pod.metadata.namespace.clone(),
            labels: said.labels,
            annotations: said.annotations,
            owner_references: Some(vec![owners::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_claim_is_the_pods_and_named_after_both() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u1" },
            "spec": { "containers": [], "volumes": [
                { "name": "plain", "emptyDir": {} },
                { "name": "scratch", "ephemeral": { "volumeClaimTemplate": {
                    "metadata": { "labels": { "a": "b" } },
                    "spec": { "accessModes": ["ReadWriteOnce"] },
                }}},
            ]},
        }))
        .unwrap();
        let all: Vec<_> = ephemeral(&pod).filter_map(|volume| claim(&pod, volume)).collect();
        let [claim] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(claim.metadata.name.as_deref(), Some("web-scratch"));
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["a"], "b");
        assert!(owners::is_controlled_by(&claim.metadata, "u1"));
        let modes = claim.spec.as_ref().unwrap().access_modes.clone();
        assert_eq!(modes, Some(vec!["ReadWriteOnce".to_owned()]));
    }
}
