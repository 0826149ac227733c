//! What tokens are bound to: whether it is there, and is the one it was.
//!
//! The informers answer first. What they say is missing or another is looked up in the store: a pod
//! may have been created through another server a moment ago.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use serde_json::Value;

use super::TokenError;
use super::claims::{Claims, Reference};
use crate::authn::User;
use crate::client::{ApiType, Client};
use crate::informer::{Informer, Informers};
use crate::status::Status;

/// How long a token outlives the end that its pod was given.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Other objects than its account that a token ends with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BoundTo {
    pub(crate) pod: Option<Reference>,
    pub(crate) secret: Option<Reference>,
    pub(crate) node: Option<Reference>,
}

/// Looks up what tokens are bound to.
pub(super) struct Bound {
    client: Client,
    accounts: Arc<Informer<ServiceAccount>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
}

impl Bound {
    pub(super) fn new(client: Client, informers: &Informers) -> Self {
        Self { client, accounts: informers.of(), pods: informers.of(), nodes: informers.of() }
    }

    /// Who a token is, if all that it is bound to is there.
    pub(super) async fn check(&self, claims: &Claims) -> Result<User, TokenError> {
        let bound = &claims.kubernetes;
        let (namespace, account) = (bound.namespace.as_str(), &bound.serviceaccount);
        let mut user = User::service_account(namespace, &account.name);
        if user.name != claims.sub {
            return Err(TokenError::Invalid);
        }
        self.find(Some(&self.accounts), namespace, account).await?;
        let mut extra = BTreeMap::new();
        let mut say = |key: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        if let Some(pod) = &bound.pod {
            self.find(Some(&self.pods), namespace, pod).await?;
            say("pod-name", pod.name.clone());
            say("pod-uid", pod.uid.clone());
        }
        if let Some(secret) = &bound.secret {
            self.find::<Secret>(None, namespace, secret).await?;
        }
        if let Some(node) = &bound.node {
            // The node of a pod is told, not checked: the token ends with the pod.
            if bound.pod.is_none() {
                self.find(Some(&self.nodes), "", node).await?;
            }
            say("node-name", node.name.clone());
            say("node-uid", node.uid.clone());
        }
        say("credential-id", format!("JTI={}", claims.jti));
        user.uid.clone_from(&account.uid);
        user.extra = extra;
        Ok(user)
    }

    /// The object, if it is the one meant and has not come to its end.
    async fn find<K: ApiType>(
        &self,
        informer: Option<&Arc<Informer<K>>>,
        namespace: &str,
        wanted: &Reference,
    ) -> Result<(), TokenError> {
        let is_it = |found: &K| {
            let meta = found.metadata();
            let end = meta.deletion_timestamp.as_ref().map(|end| end.0 + LEEWAY);
            meta.uid.as_ref() == Some(&wanted.uid) && end.is_none_or(|end| Timestamp::now() < end)
        };
        let known = informer.and_then(|informer| informer.get(namespace, &wanted.name));
        if known.is_some_and(|known| is_it(&known)) {
            return Ok(());
        }
        let gone = || {
            let kind = K::KIND.to_ascii_lowercase();
            TokenError::Invalidated(format!("{kind} {namespace}/{} is gone", wanted.name))
        };
        match self.client.get::<K>(namespace, &wanted.name).await {
            Ok(found) if is_it(&found) => Ok(()),
            Ok(_) => Err(gone()),
            Err(status) if status.is_not_found() => Err(gone()),
            Err(status) => Err(TokenError::Unavailable(status)),
        }
    }

    /// What a request for a token wants it bound to.
    pub(super) async fn bind(
        &self,
        account: &ServiceAccount,
        reference: Option<&Value>,
    ) -> Result<BoundTo, Status> {
        let Some(reference) = reference.filter(|reference| !reference.is_null()) else {
            return Ok(BoundTo::default());
        };
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        match (text("apiVersion"), text("kind")) {
            ("v1", "Pod") => self.bind_pod(account, name, uid).await,
            ("v1", "Secret") => {
                let secret: Secret = self.client.get(namespace, name).await?;
                let secret = Some(checked("secrets", &secret, uid)?);
                Ok(BoundTo { secret, ..BoundTo::default() })
            }
            ("v1", "Node") => {
                let node: Node = self.client.get("", name).await?;
                let node = Some(checked("nodes", &node, uid)?);
                Ok(BoundTo { node, ..BoundTo::default() })
            }
            (version, kind) => {
                let what = format!("{version}, Kind={kind}").replacen("v1", "/v1", 1);
                Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to object of type {what}",
                    account.metadata.name.as_deref().unwrap_or_default()
                )))
            }
        }
    }

    async fn bind_pod(
        &self,
        account: &ServiceAccount,
        name: &str,
        uid: &str,
    ) -> Result<BoundTo, Status> {
        let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
        let account = account.metadata.name.as_deref().unwrap_or_default();
        let pod: Pod = self.client.get(namespace, name).await?;
        let reference = checked("pods", &pod, uid)?;
        let spec = pod.spec.unwrap_or_default();
        if spec.service_account_name.as_deref() != Some(account) {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different \
                 serviceaccount name."
            )));
        }
        let node = match spec.node_name.filter(|node| !node.is_empty()) {
            Some(node) => {
                let uid = self.nodes.get("", &node).and_then(|node| node.metadata.uid.clone());
                uid.map(|uid| Reference { name: node, uid })
            }
            None => None,
        };
        Ok(BoundTo { pod: Some(reference), node, secret: None })
    }
}

fn checked<K: ApiType>(plural: &str, object: &K, wanted: &str) -> Result<Reference, Status> {
    let meta = object.metadata();
    let name = meta.name.clone().unwrap_or_default();
    let uid = meta.uid.clone().unwrap_or_default();
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, &name, why));
    }
    Ok(Reference { name, uid })
}
