//! What every cluster has from its first moment on.

use serde_json::json;

use crate::client::Client;
use crate::object::Object;
use crate::status::Status;

/// The namespaces that are always there.
pub(crate) const NAMESPACES: [&str; 4] =
    ["default", "kube-system", "kube-node-lease", "kube-public"];

/// Creates what is missing.
pub(crate) async fn run(client: &Client) -> Result<(), Status> {
    let Some(kind) = client.kinds().iter().find(|kind| kind.plural == "namespaces") else {
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
    Ok(())
}
