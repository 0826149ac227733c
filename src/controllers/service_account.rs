//! What every namespace has: the service account `default`, and the cluster's certificate in
//! `kube-root-ca.crt`. Both come back when they are deleted or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;
use kontiki_api::resources::config_map;
use kontiki_api::status::Status;

use super::owners;
use super::pod_control::is_namespace_terminating;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";

/// Furnishes namespaces.
pub struct Furnishings {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    root_ca_pem: String,
}

/// The controller, ready to run. Its keys are names of namespaces.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Furnishings> {
    let namespaces = context.informers.of::<Namespace>();
    let accounts = context.informers.of::<ServiceAccount>();
    // Of those only the names: what they hold may be large, and nobody else keeps it.
    let config_maps = context.informers.partial(&config_map::KIND);
    let reconciler = Furnishings {
        client: context.client_of("service-account-controller"),
        namespaces: Arc::clone(&namespaces),
        accounts: Arc::clone(&accounts),
        root_ca_pem: context.settings.root_ca_pem.clone(),
    };
    Controller::new("service-account", context, begin, reconciler)
        .watch(&namespaces, |namespace| vec![owners::name(&namespace.metadata).to_owned()])
        .watch(&accounts, |account| named(&account.metadata, DEFAULT))
        .watch(&config_maps, |map| {
            let is_it = &*map.name == ROOT_CA;
            is_it.then(|| map.namespace.to_string()).into_iter().collect()
        })
}

fn named(meta: &ObjectMeta, name: &str) -> Vec<String> {
    let is_it = owners::name(meta) == name;
    is_it.then(|| owners::namespace(meta).to_owned()).into_iter().collect()
}

#[async_trait]
impl Reconcile for Furnishings {
    type Key = String;

    async fn reconcile(&self, namespace: &String) -> Result<Next, ReconcileError> {
        let Some(found) = self.namespaces.get("", namespace) else { return Ok(Next::OnChange) };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        if self.accounts.get(namespace, DEFAULT).is_none() {
            let account =
                ServiceAccount { metadata: meta(namespace, DEFAULT), ..ServiceAccount::default() };
            self.create(&account).await?;
        }
        if !self.root_ca_pem.is_empty() {
            self.publish_root_ca(namespace).await?;
        }
        Ok(Next::OnChange)
    }
}

impl Furnishings {
    async fn publish_root_ca(&self, namespace: &str) -> Result<(), ReconcileError> {
        let data = Some(BTreeMap::from([(ROOT_CA_KEY.to_owned(), self.root_ca_pem.clone())]));
        match self.client.get::<ConfigMap>(namespace, ROOT_CA).await {
            Err(status) if status.is_not_found() => {
                let map =
                    ConfigMap { metadata: meta(namespace, ROOT_CA), data, ..ConfigMap::default() };
                self.create(&map).await
            }
            Err(status) => {
                Err(status).during(|| format!("reading config map {namespace}/{ROOT_CA}"))
            }
            Ok(map) if map.data != data => {
                let map = ConfigMap { data, ..map };
                let written = self.client.update(&map).await;
                written.map(drop).during(|| format!("updating config map {namespace}/{ROOT_CA}"))
            }
            Ok(_) => Ok(()),
        }
    }

    async fn create<K: ApiType>(&self, object: &K) -> Result<(), ReconcileError> {
        match self.client.create(object).await {
            Err(status) if !is_in_order(&status) => Err(status).during(|| {
                let meta = object.metadata();
                format!("creating {} {}/{}", K::KIND, owners::namespace(meta), owners::name(meta))
            }),
            _ => Ok(()),
        }
    }
}

/// It is there already, or its namespace goes.
fn is_in_order(status: &Status) -> bool {
    status.is_already_exists() || status.is_not_found() || is_namespace_terminating(status)
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
