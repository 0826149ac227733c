//! [`ServiceAccountPlugin`]: every pod has an account that is there, its pull secrets, and in each
//! container the files by which it speaks to the API: a token bound to the pod, the cluster's
//! certificate, the namespace.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ServiceAccount;
use rand::RngExt as _;
use serde_json::{Value, json};

use super::{Admit, Operation, Plugin};
use crate::informer::Informer;
use crate::object::Object;
use crate::resources::service_account;
use crate::status::Status;

/// Where containers look for the files.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a token of a container is good; the agent renews it before.
const TOKEN_SECONDS: i64 = 3607;
/// What generated names are made of.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// A new namespace's account comes a moment after it: how often and when it is looked for again.
const TRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(100);

/// Gives pods their accounts.
pub struct ServiceAccountPlugin {
    accounts: Arc<Informer<ServiceAccount>>,
}

#[async_trait]
impl Plugin for ServiceAccountPlugin {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn mutate(&self, admit: &Admit<'_>, pod: &mut Object) -> Result<(), Status> {
        if !is_new_pod(admit) {
            return Ok(());
        }
        if pod.annotation(MIRROR).is_some() {
            return check_mirror(admit, pod);
        }
        if pod.str_at("/spec/serviceAccountName").is_empty() {
            pod.set(&["spec", "serviceAccountName"], "default");
            pod.set(&["spec", "serviceAccount"], "default");
        }
        let name = pod.str_at("/spec/serviceAccountName").to_owned();
        let account = self.account(admit, &name).await?;
        if wants_token(pod, &account) {
            mount_token(pod);
        }
        let secrets = account.image_pull_secrets.as_deref().unwrap_or_default();
        let has_own = pod.at("/spec/imagePullSecrets").and_then(Value::as_array);
        if has_own.is_none_or(Vec::is_empty) && !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], json!(secrets));
        }
        Ok(())
    }
}

impl ServiceAccountPlugin {
    /// Finds accounts by this informer first.
    pub fn new(accounts: Arc<Informer<ServiceAccount>>) -> Self {
        Self { accounts }
    }

    async fn account(&self, admit: &Admit<'_>, name: &str) -> Result<ServiceAccount, Status> {
        if let Some(found) = self.accounts.get(admit.namespace, name) {
            return Ok(ServiceAccount::clone(&found));
        }
        let kind = &service_account::KIND;
        let mut tries = 1;
        loop {
            let found = admit.registry.get(admit.ctx, kind, admit.namespace, name).await;
            match found {
                Ok(found) => return found.into_typed(),
                Err(status) if status.is_not_found() && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                Err(status) if status.is_not_found() => {
                    let why = format!(
                        "error looking up service account {}/{name}: serviceaccount {name:?} not \
                         found",
                        admit.namespace
                    );
                    return Err(Status::forbidden("", "pods", admit.name, why));
                }
                Err(status) => return Err(status),
            }
        }
    }
}

fn is_new_pod(admit: &Admit<'_>) -> bool {
    admit.operation == Operation::Create
        && admit.subresource.is_empty()
        && admit.kind.group.is_empty()
        && admit.kind.plural == "pods"
}

/// What a node shows of its own has no account and no secrets.
fn check_mirror(admit: &Admit<'_>, pod: &Object) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::forbidden("", "pods", admit.name, why));
    if !pod.str_at("/spec/serviceAccountName").is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    let volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        if volume.get("secret").is_some() {
            return refuse("a mirror pod may not reference secrets");
        }
    }
    Ok(())
}

/// The pod's word counts before its account's; without either the token is mounted.
fn wants_token(pod: &Object, account: &ServiceAccount) -> bool {
    let own = pod.at("/spec/automountServiceAccountToken").and_then(Value::as_bool);
    own.or(account.automount_service_account_token).unwrap_or(true)
}

fn mount_token(pod: &mut Object) {
    let name = volume_name(pod);
    let mount = json!({ "name": name, "readOnly": true, "mountPath": MOUNT_PATH });
    let mut is_used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.value_mut().pointer_mut(&format!("/spec/{list}"));
        let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            is_used |= mount_in(container, &mount);
        }
    }
    if is_used && !has_volume(pod, &name) {
        let volumes = pod.entry(&["spec", "volumes"]);
        match volumes.as_array_mut() {
            Some(volumes) => volumes.push(volume(&name)),
            None => *volumes = json!([volume(&name)]),
        }
    }
}

/// Mounts it, unless the container has something there itself.
fn mount_in(container: &mut Value, mount: &Value) -> bool {
    let Some(fields) = container.as_object_mut() else { return false };
    let mounts = fields.entry("volumeMounts").or_insert(Value::Null);
    if mounts.is_null() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|own| own["mountPath"] == MOUNT_PATH) {
        return false;
    }
    mounts.push(mount.clone());
    true
}

fn has_volume(pod: &Object, name: &str) -> bool {
    let mut volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.any(|volume| volume["name"] == name)
}

/// That of the volume which is there already, in a pod that was copied from another; else a new one.
fn volume_name(pod: &Object) -> String {
    let volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    if let Some(found) = names.find(|name| name.starts_with(VOLUME_PREFIX)) {
        return found.to_owned();
    }
    let mut random = rand::rng();
    let letter = |_| char::from(LETTERS[random.random_range(0..LETTERS.len())]);
    VOLUME_PREFIX.chars().chain((0..SUFFIX_LENGTH).map(letter)).collect()
}

fn volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": ROOT_CA, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}
