//! [`NodeRestriction`]: what a node's agent may write into what the node authorizer lets it write.
//! Its own Node, without making it more than it is; its own pods; its own Lease; tokens for its
//! pods.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::Value;

use super::{Admit, Operation, Plugin};
use crate::authz::node::node_of;
use crate::object::Object;
use crate::resources::pod;
use crate::status::Status;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Labels of Kubernetes' own that a node may give itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// And all in these domains.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Checks what nodes write.
#[derive(Debug)]
pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let user = admit.ctx.user();
        if !user.is_in(crate::authn::NODES) {
            return Ok(());
        }
        let Some(node) = node_of(user) else {
            let why = format!("could not determine node from user {:?}", user.name);
            return Err(forbidden(admit, why));
        };
        let checked = match (admit.kind.group, admit.kind.plural, admit.subresource) {
            ("", "pods", "") => pods(node, admit, object),
            ("", "pods", "status") => pod_status(node, admit, object),
            ("", "nodes", _) => own_node(node, admit, object),
            ("coordination.k8s.io", "leases", _) => own_lease(node, admit, object),
            ("storage.k8s.io", "csinodes", _) => csi_node(node, admit, object),
            ("", "serviceaccounts", "token") => return token(node, admit, object).await,
            _ => Ok(()),
        };
        checked.map_err(|why| forbidden(admit, why))
    }
}

type Checked = Result<(), String>;

fn forbidden(admit: &Admit<'_>, why: impl std::fmt::Display) -> Status {
    Status::forbidden(admit.kind.group, admit.kind.plural, admit.name, why)
}

fn is_on(pod: &Object, node: &str) -> bool {
    pod.str_at("/spec/nodeName") == node
}

fn pods(node: &str, admit: &Admit<'_>, object: Option<&Object>) -> Checked {
    match (admit.operation, object, admit.old) {
        (Operation::Create, Some(pod), _) => mirror_pod(node, pod),
        (Operation::Delete, _, Some(old)) if is_on(old, node) => Ok(()),
        (Operation::Delete, _, _) if is_eviction(admit) => {
            Err(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        (Operation::Delete, _, _) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        _ => Err(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
    }
}

fn is_eviction(admit: &Admit<'_>) -> bool {
    let attributes = admit.ctx.attributes();
    matches!(attributes, crate::authz::Attributes::Resource(a) if a.subresource == "eviction")
}

/// A pod that only shows what the node runs by itself can refer to nothing in the cluster: else the
/// node could read by it what it will.
fn mirror_pod(node: &str, pod: &Object) -> Checked {
    if pod.annotation(MIRROR).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !is_on(pod, node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.owner_refs();
    let is_own = |kind: &str, name: &str| kind == "Node" && name == node;
    if owners.len() != 1 || !owners.iter().all(|owner| is_own(&owner.kind, &owner.name)) {
        return Err(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if !pod.str_at("/spec/serviceAccountName").is_empty() {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    let volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let sources = ["secret", "configMap", "persistentVolumeClaim", "projected", "ephemeral", "csi"];
    for volume in volumes {
        if let Some(source) = sources.iter().find(|source| volume.get(**source).is_some()) {
            return Err(format!("node {node:?} can not create pods that reference {source}s"));
        }
    }
    let text = pod.at("/spec").map(Value::to_string).unwrap_or_default();
    let names = ["\"secretKeyRef\"", "\"configMapKeyRef\"", "\"secretRef\"", "\"configMapRef\""];
    if names.iter().any(|name| text.contains(name)) {
        return Err(format!(
            "node {node:?} can not create pods that reference secrets or configmaps"
        ));
    }
    Ok(())
}

fn pod_status(node: &str, admit: &Admit<'_>, object: Option<&Object>) -> Checked {
    let (Some(old), Some(new)) = (admit.old, object) else { return Ok(()) };
    if !is_on(old, node) {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if old.labels() != new.labels() {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn own_node(node: &str, admit: &Admit<'_>, object: Option<&Object>) -> Checked {
    let name = object.map_or(admit.name, Object::name);
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    let bad = forbidden_labels(&changed_labels(admit.old, new));
    let Some(old) = admit.old else {
        if bad.is_empty() {
            return Ok(());
        }
        return Err(format!("node {node:?} is not allowed to set the following labels: {bad}"));
    };
    if new.at("/spec/taints") != old.at("/spec/taints") {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if new.at("/metadata/ownerReferences") != old.at("/metadata/ownerReferences") {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    if !bad.is_empty() {
        return Err(format!("is not allowed to modify labels: {bad}"));
    }
    Ok(())
}

fn changed_labels<'a>(old: Option<&'a Object>, new: &'a Object) -> BTreeSet<&'a str> {
    let before = old.map(Object::labels).unwrap_or_default();
    let after = new.labels();
    let keys = before.keys().chain(after.keys()).copied();
    keys.filter(|key| before.get(key) != after.get(key)).collect()
}

/// Those among the labels that would tell the scheduler, or others, what an administrator alone
/// may say of a node.
fn forbidden_labels(labels: &BTreeSet<&str>) -> String {
    let is_in = |domain: &str, of: &str| {
        domain == of || domain.strip_suffix(of).is_some_and(|front| front.ends_with('.'))
    };
    let bad = labels.iter().filter(|label| {
        let Some((domain, _)) = label.split_once('/') else { return false };
        let is_kubernetes = is_in(domain, "kubernetes.io") || is_in(domain, "k8s.io");
        let is_own = OWN_LABELS.contains(label) || OWN_DOMAINS.iter().any(|own| is_in(domain, own));
        is_in(domain, RESTRICTED) || (is_kubernetes && !is_own)
    });
    bad.copied().collect::<Vec<_>>().join(", ")
}

fn own_lease(node: &str, admit: &Admit<'_>, object: Option<&Object>) -> Checked {
    if object.map_or(admit.name, Object::name) == node {
        return Ok(());
    }
    Err("can only access node lease with the same name as the requesting node".into())
}

fn csi_node(node: &str, admit: &Admit<'_>, object: Option<&Object>) -> Checked {
    if object.map_or(admit.name, Object::name) == node {
        return Ok(());
    }
    Err("can only access CSINode with the same name as the requesting node".into())
}

/// A token only for an account of one of its pods, and bound to that pod.
async fn token(node: &str, admit: &Admit<'_>, request: Option<&Object>) -> Result<(), Status> {
    let Some(request) = request else { return Ok(()) };
    let bound = |field: &str| request.str_at(&format!("/spec/boundObjectRef/{field}")).to_owned();
    if bound("kind") != "Pod" || bound("name").is_empty() {
        return Err(forbidden(admit, "node requested token not bound to a pod"));
    }
    let (name, uid) = (bound("name"), bound("uid"));
    if uid.is_empty() {
        return Err(forbidden(admit, "node requested token with a pod binding without a uid"));
    }
    let pod = admit.registry.get(admit.ctx, &pod::KIND, admit.namespace, &name).await?;
    if pod.uid() != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", "pods", &name, why));
    }
    if !is_on(&pod, node) {
        return Err(forbidden(
            admit,
            "node requested token bound to a pod scheduled on a different node",
        ));
    }
    Ok(())
}
