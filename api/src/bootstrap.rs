//! What every cluster has from its first moment on.

use serde_json::json;

use crate::allocate::API_SERVICE_ADDRESS;
use crate::client::Client;
use crate::object::Object;
use crate::resources;
use crate::status::Status;

/// The namespaces that are always there.
pub(crate) const NAMESPACES: [&str; 4] =
    ["default", "kube-system", "kube-node-lease", "kube-public"];

/// The port at which servers usually listen.
const API_PORT: u16 = 6443;

/// Creates what is missing.
pub(crate) async fn run(client: &Client) -> Result<(), Status> {
    let Some(kind) = client.kinds().into_iter().find(|kind| kind.plural == "namespaces") else {
        return Err(Status::internal("namespaces are not among the served kinds"));
    };
    for name in NAMESPACES {
        if client.get_object(kind, "", name).await.is_ok() {
            continue;
        }
        let mut namespace = Object::empty("v1", "Namespace");
        namespace.set_meta("name", name);
        namespace.set_meta("labels", json!({ "kubernetes.io/metadata.name": name }));
        match client.create_object(kind, namespace).await {
            Err(refusal) if !refusal.is_already_exists() => return Err(refusal),
            _ => {}
        }
    }
    for namespace in NAMESPACES {
        default_account(client, namespace).await?;
    }
    api_service(client).await
}

/// The account of pods that name none. A controller keeps it in every namespace; here it is there
/// before the first pod can ask for it.
async fn default_account(client: &Client, namespace: &str) -> Result<(), Status> {
    let kind = &resources::service_account::KIND;
    if client.get_object(kind, namespace, "default").await.is_ok() {
        return Ok(());
    }
    let mut account = Object::empty("v1", "ServiceAccount");
    account.set_meta("name", "default");
    account.set_meta("namespace", namespace);
    match client.create_object(kind, account).await {
        Err(refusal) if !refusal.is_already_exists() => Err(refusal),
        _ => Ok(()),
    }
}

/// The name and the address by which pods find the API. Whoever knows the servers' addresses writes
/// its endpoints.
async fn api_service(client: &Client) -> Result<(), Status> {
    let kind = &resources::service::KIND;
    if client.get_object(kind, "default", "kubernetes").await.is_ok() {
        return Ok(());
    }
    let mut service = Object::empty("v1", "Service");
    service.set_meta("name", "kubernetes");
    service.set_meta("namespace", "default");
    service.set_meta("labels", json!({ "component": "apiserver", "provider": "kubernetes" }));
    service.set(
        &["spec"],
        json!({
            "clusterIP": API_SERVICE_ADDRESS.to_string(),
            "ports": [{ "name": "https", "port": 443, "targetPort": API_PORT }],
        }),
    );
    match client.create_object(kind, service).await {
        Err(refusal) if !refusal.is_already_exists() => Err(refusal),
        _ => Ok(()),
    }
}
