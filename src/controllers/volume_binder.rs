//! Brings claims and volumes together, and sees to what becomes of a volume when its claim is gone.
//!
//! ```text
//!   claim Pending ──bind──► Bound ──volume gone──► Lost
//!   volume Available ──bind──► Bound ──claim gone──► Released ──Delete──► removed
//! ```
//!
//! A binding is four writes: the volume names its claim, its phase, the claim names its volume, its
//! phase. Each is conditional on what was read; whoever finds them half done does the rest.

pub mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::DeleteOptions;

use self::plan::{ClaimStep, Note, VolumeStep};
use super::events::EventRecorder;
use super::local_path::{self, VolumeFolders};
use super::owners::{self, ObjectKey};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use super::volumes::{
    BETA_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, PROVISIONER,
    SELECTED_NODE, annotation, claim_phase, claim_ref, class_of_claim, default_class, is_default,
    lacks_class, volume_name, volume_phase,
};
use crate::leader_context::LeaderContext;

/// How soon a volume that could not be removed is tried again.
const REMOVE_RETRY: Duration = Duration::from_secs(15);

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

/// Binds.
pub struct Binder {
    client: Client,
    events: EventRecorder,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    nodes: Arc<Informer<Node>>,
    folders: Arc<dyn VolumeFolders>,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<Binder> {
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let volumes = context.informers.of::<PersistentVolume>();
    let classes = context.informers.of::<StorageClass>();
    let reconciler = Binder {
        client: context.client_of("persistent-volume-binder"),
        events: events.of("persistentvolume-controller"),
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        classes: Arc::clone(&classes),
        nodes: context.informers.of::<Node>(),
        folders: Arc::clone(&context.folders),
    };
    let (all, of_class) = (Arc::clone(&claims), Arc::clone(&claims));
    Controller::new("persistentvolume-binder", context, begin, reconciler)
        .watch(&claims, of_claim)
        .watch(&volumes, move |volume| of_volume(&all, volume))
        .watch(&classes, move |class| {
            let name = owners::name(&class.metadata).to_owned();
            let by_default = is_default(class);
            waiting(&of_class, |claim| {
                class_of_claim(claim) == name || (by_default && lacks_class(claim))
            })
        })
}

fn of_claim(claim: &PersistentVolumeClaim) -> Vec<Key> {
    let volume = Some(volume_name(claim)).filter(|name| !name.is_empty());
    let mut keys = vec![Key::Claim(ObjectKey::of(claim))];
    keys.extend(volume.map(|name| Key::Volume(name.to_owned())));
    keys
}

/// A volume concerns its claim; one that is free concerns all claims that wait.
fn of_volume(claims: &Informer<PersistentVolumeClaim>, volume: &PersistentVolume) -> Vec<Key> {
    let name = owners::name(&volume.metadata).to_owned();
    let mut keys = match claim_ref(volume) {
        Some(reference) => vec![Key::Claim(key_of(reference))],
        None => waiting(claims, |_| true),
    };
    keys.extend(waiting(claims, |claim| volume_name(claim) == name));
    keys.push(Key::Volume(name));
    keys
}

fn key_of(reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    )
}

/// The claims without a volume that `concerns` picks.
fn waiting(
    claims: &Informer<PersistentVolumeClaim>,
    concerns: impl Fn(&PersistentVolumeClaim) -> bool,
) -> Vec<Key> {
    let all = claims.list();
    let waiting = all.iter().filter(|claim| claim_phase(claim) != "Bound" && concerns(claim));
    waiting.map(|claim| Key::Claim(ObjectKey::of(&**claim))).collect()
}

#[async_trait]
impl Reconcile for Binder {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Next, ReconcileError> {
        match key {
            Key::Claim(key) => match self.claims.get(&key.namespace, &key.name) {
                Some(claim) => self.claim(&claim).await,
                None => Ok(Next::OnChange),
            },
            Key::Volume(name) => match self.volumes.get("", name) {
                Some(volume) => self.volume(&volume).await,
                None => Ok(Next::OnChange),
            },
        }
    }
}

impl Binder {
    async fn claim(&self, claim: &PersistentVolumeClaim) -> Result<Next, ReconcileError> {
        if lacks_class(claim)
            && volume_name(claim).is_empty()
            && let Some(name) = default_class(&self.classes.list())
        {
            // Its change comes back here.
            return self.give_class(claim, name).await;
        }
        let class = self.classes.get("", class_of_claim(claim));
        match plan::claim(claim, &self.volumes.list(), class.as_ref()) {
            ClaimStep::Wait(note) => {
                if claim_phase(claim) == "Lost" {
                    self.set_claim_phase(claim, "Pending").await?;
                }
                if let Some(note) = note {
                    self.tell(claim, note);
                }
            }
            ClaimStep::Bind(volume) => self.bind(claim, &volume).await?,
            ClaimStep::Provision(class) => self.provision(claim, &class).await?,
            ClaimStep::Lost(note) if claim_phase(claim) != "Lost" => {
                self.set_claim_phase(claim, "Lost").await?;
                self.tell(claim, note);
            }
            ClaimStep::Lost(_) => {}
        }
        Ok(Next::OnChange)
    }

    /// Gives a claim the class that became the default after the claim was made.
    async fn give_class(
        &self,
        claim: &PersistentVolumeClaim,
        class: &str,
    ) -> Result<Next, ReconcileError> {
        let mut claim = claim.clone();
        claim.spec.get_or_insert_default().storage_class_name = Some(class.to_owned());
        let written = self.client.update(&claim).await;
        written
            .map(|_| Next::OnChange)
            .during(|| format!("giving claim {} the class {class}", ObjectKey::of(&claim)))
    }

    fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        if note.is_warning {
            self.events.warning(claim, note.reason, note.message);
        } else {
            self.events.normal(claim, note.reason, note.message);
        }
    }

    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(claim);
        let name = owners::name(&volume.metadata).to_owned();
        let act = |what: &str| format!("binding claim {key} to volume {name}: {what}");
        let mut volume = volume.clone();
        if let Some(reserved) = reserve(&volume, claim) {
            volume = self.client.update(&reserved).await.during(|| act("its claim"))?;
        }
        if volume_phase(&volume) != "Bound" {
            volume = with_phase(volume, "Bound", None);
            volume = self.client.update_status(&volume).await.during(|| act("its phase"))?;
        }
        let mut claim = claim.clone();
        if let Some(taken) = take(&claim, &name) {
            claim = self.client.update(&taken).await.during(|| act("the claim's volume"))?;
        }
        let told = claim_status(&volume);
        let phase = claim.status.clone().unwrap_or_default();
        if phase.phase != told.phase || phase.capacity.is_none() {
            let status = PersistentVolumeClaimStatus {
                phase: told.phase,
                access_modes: told.access_modes,
                capacity: told.capacity,
                ..phase
            };
            claim.status = Some(status);
            self.client.update_status(&claim).await.during(|| act("the claim's phase"))?;
        }
        Ok(())
    }

    async fn set_claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
    ) -> Result<(), ReconcileError> {
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            ..PersistentVolumeClaimStatus::default()
        };
        let claim = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        let written = self.client.update_status(&claim).await;
        written.map(drop).during(|| format!("setting claim {} {phase}", ObjectKey::of(&claim)))
    }

    /// Makes a volume, or says who shall.
    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(claim);
        let mut asked = claim.clone();
        for name in [PROVISIONER, BETA_PROVISIONER] {
            annotate(&mut asked, name, &class.provisioner);
        }
        if asked != *claim {
            let written = self.client.update(&asked).await;
            asked = written.during(|| format!("saying who makes the volume of claim {key}"))?;
        }
        if class.provisioner != local_path::PROVISIONER {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or \
                 manually by the system administrator. If volume creation is delayed, please \
                 verify that the provisioner is running and correctly registered.",
                class.provisioner
            );
            self.events.normal(claim, "ExternalProvisioning", message);
            return Ok(());
        }
        let node = annotation(claim, SELECTED_NODE).and_then(|node| self.nodes.get("", node));
        let volume = match local_path::volume(&asked, class, node.as_deref()) {
            Ok(volume) => volume,
            Err(why) => {
                let message = format!(
                    "failed to provision volume with StorageClass {:?}: {why}",
                    owners::name(&class.metadata)
                );
                self.events.warning(claim, "ProvisioningFailed", message);
                return Ok(());
            }
        };
        let name = owners::name(&volume.metadata).to_owned();
        match self.client.create(&volume).await {
            Err(status) if status.is_already_exists() => Ok(()),
            outcome => {
                outcome.during(|| format!("creating volume {name} for claim {key}"))?;
                let message = format!("Successfully provisioned volume {name}");
                self.events.normal(claim, "ProvisioningSucceeded", message);
                Ok(())
            }
        }
    }

    async fn volume(&self, volume: &PersistentVolume) -> Result<Next, ReconcileError> {
        let claim = self.claim_behind(volume).await?;
        match plan::volume(volume, claim.as_deref()) {
            VolumeStep::Available => self.set_phase(volume, "Available").await?,
            VolumeStep::Bound => self.set_phase(volume, "Bound").await?,
            VolumeStep::AwaitClaim => {}
            VolumeStep::Unbind => {
                let unbound = plan::unbound(volume);
                if unbound != *volume {
                    let written = self.client.update(&unbound).await;
                    let name = owners::name(&volume.metadata);
                    written.during(|| format!("taking volume {name} from its claim"))?;
                }
            }
            VolumeStep::Release => return self.release(volume).await,
        }
        Ok(Next::OnChange)
    }

    /// The claim that a volume refers to. Who is not in memory is asked for: a volume must not be
    /// removed because news of its claim is late.
    async fn claim_behind(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, ReconcileError> {
        let Some(reference) = claim_ref(volume) else { return Ok(None) };
        let key = key_of(reference);
        let known = self.claims.get(&key.namespace, &key.name);
        if let Some(known) = known.filter(|claim| reference.uid == claim.metadata.uid) {
            return Ok(Some(known));
        }
        let found = self.client.get::<PersistentVolumeClaim>(&key.namespace, &key.name).await;
        match found {
            Err(status) if status.is_not_found() => Ok(None),
            found => {
                found.map(|claim| Some(Arc::new(claim))).during(|| format!("reading claim {key}"))
            }
        }
    }

    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
    ) -> Result<(), ReconcileError> {
        if volume_phase(volume) == phase {
            return Ok(());
        }
        self.write_phase(volume, phase, None).await.map(drop)
    }

    async fn write_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<String>,
    ) -> Result<PersistentVolume, ReconcileError> {
        let name = owners::name(&volume.metadata).to_owned();
        let written = self.client.update_status(&with_phase(volume.clone(), phase, message)).await;
        written.during(|| format!("setting volume {name} {phase}"))
    }

    async fn release(&self, volume: &PersistentVolume) -> Result<Next, ReconcileError> {
        let mut volume = volume.clone();
        if !matches!(volume_phase(&volume), "Released" | "Failed") {
            volume = self.write_phase(&volume, "Released", None).await?;
        }
        match plan::policy(&volume) {
            // Also where the volume itself goes already: its folder would be left behind.
            "Delete" => self.remove(&volume).await,
            "Recycle" => {
                self.fail(
                    &volume,
                    "VolumeFailedRecycle",
                    "No recycler plugin found for the volume!",
                )
                .await?;
                Ok(Next::OnChange)
            }
            _ => Ok(Next::OnChange),
        }
    }

    /// Removes what the volume holds, then the volume.
    async fn remove(&self, volume: &PersistentVolume) -> Result<Next, ReconcileError> {
        let name = owners::name(&volume.metadata);
        match annotation(volume, PROVISIONED_BY) {
            Some(local_path::PROVISIONER) => {
                let node = local_path::node_of(volume).and_then(|node| self.nodes.get("", node));
                // With a node that is no more, its disk is gone for the cluster, too.
                if let Some(node) = node
                    && let Err(status) = self.folders.remove(&node, volume).await
                {
                    self.fail(volume, "VolumeFailedDelete", status.message()).await?;
                    return Ok(Next::After(REMOVE_RETRY));
                }
            }
            Some(_) => return Ok(Next::OnChange),
            None => {
                let why = format!(
                    "error getting deleter volume plugin for volume {name:?}: \
                     no deletable volume plugin matched"
                );
                self.fail(volume, "VolumeFailedDelete", &why).await?;
                return Ok(Next::OnChange);
            }
        }
        let options = DeleteOptions::of_uid(owners::uid(&volume.metadata));
        match self.client.delete::<PersistentVolume>("", name, &options).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("deleting volume {name}, whose claim is gone"))
            }
            _ => Ok(Next::OnChange),
        }
    }

    async fn fail(
        &self,
        volume: &PersistentVolume,
        reason: &'static str,
        why: &str,
    ) -> Result<(), ReconcileError> {
        let said = volume.status.as_ref().and_then(|status| status.message.as_deref());
        if volume_phase(volume) != "Failed" || said != Some(why) {
            self.write_phase(volume, "Failed", Some(why.to_owned())).await?;
            self.events.warning(volume, reason, why.to_owned());
        }
        Ok(())
    }
}

fn annotate<K: Metadata<Ty = ObjectMeta>>(object: &mut K, name: &str, value: &str) {
    let all = object.metadata_mut().annotations.get_or_insert_with(BTreeMap::new);
    all.insert(name.to_owned(), value.to_owned());
}

/// The volume with its claim, where it does not name it yet.
fn reserve(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let known = claim_ref(volume);
    if known.is_some_and(|reference| reference.uid == claim.metadata.uid) {
        return None;
    }
    let mut reserved = volume.clone();
    if known.is_none() {
        annotate(&mut reserved, BOUND_BY_CONTROLLER, "yes");
    }
    if let Some(spec) = &mut reserved.spec {
        spec.claim_ref = Some(super::events::reference(claim));
    }
    Some(reserved)
}

/// The claim with its volume, where it does not name it for good yet.
fn take(claim: &PersistentVolumeClaim, volume: &str) -> Option<PersistentVolumeClaim> {
    let mut taken = claim.clone();
    if volume_name(claim).is_empty() {
        annotate(&mut taken, BOUND_BY_CONTROLLER, "yes");
    }
    if let Some(spec) = &mut taken.spec {
        spec.volume_name = Some(volume.to_owned());
    }
    annotate(&mut taken, BIND_COMPLETED, "yes");
    (taken != *claim).then_some(taken)
}

fn with_phase(
    mut volume: PersistentVolume,
    phase: &str,
    message: Option<String>,
) -> PersistentVolume {
    let status = volume.status.take().unwrap_or_default();
    let changed = status.phase.as_deref() != Some(phase);
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
    volume.status = Some(PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        message,
        reason: None,
        last_phase_transition_time: if changed {
            Some(now)
        } else {
            status.last_phase_transition_time
        },
    });
    volume
}

/// What a claim says of the volume it has.
fn claim_status(volume: &PersistentVolume) -> PersistentVolumeClaimStatus {
    let spec = volume.spec.clone().unwrap_or_default();
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity: spec.capacity,
        ..PersistentVolumeClaimStatus::default()
    }
}
