//! The node authorizer: a node's agent reads what its pods need and writes its own Node, Lease and
//! its pods' status. What it may write into them is the admission plugin's to say
//! ([`crate::admission::node_restriction`]).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::defaults;
use super::rbac::allows;
use super::{Attributes, ResourceAttributes};
use crate::authn::{NODES, User};
use crate::informer::{Informer, Informers};

mod references;

use references::References;

/// The index of pods by the node they are on.
pub(crate) const BY_NODE: &str = "node";
/// What a node's user name begins with.
const USER_PREFIX: &str = "system:node:";
/// Where nodes have their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is the agent of.
pub fn node_of(user: &User) -> Option<&str> {
    let node = user.name.strip_prefix(USER_PREFIX).filter(|node| !node.is_empty())?;
    user.is_in(NODES).then_some(node)
}

/// What is found of a node's pods.
pub(crate) fn index_by_node(pod: &Pod) -> Vec<String> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.filter(|node| !node.is_empty()).into_iter().collect()
}

/// Decides what nodes may do.
pub(super) struct NodeAuthorizer {
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    attachments: Arc<Informer<VolumeAttachment>>,
    /// What every node may do, whatever its pods.
    rules: Vec<PolicyRule>,
}

type Decision = Result<(), String>;

impl NodeAuthorizer {
    pub(super) fn new(informers: &Informers) -> Self {
        let pods = informers.of::<Pod>();
        pods.index_by(BY_NODE, index_by_node);
        Self {
            pods,
            claims: informers.of(),
            attachments: informers.of(),
            rules: defaults::rules_of("system:node"),
        }
    }

    /// Waits until everything up to `revision` counts. Callers bound the wait.
    pub(super) async fn reached(&self, revision: u64) {
        self.pods.reached(revision).await;
        self.claims.reached(revision).await;
        self.attachments.reached(revision).await;
    }

    pub(super) fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        let Some(node) = node_of(user) else { return Err(String::new()) };
        let Attributes::Resource(wanted) = attributes else { return Err(String::new()) };
        match (wanted.group.as_str(), wanted.resource.as_str()) {
            ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes")
            | ("storage.k8s.io", "volumeattachments") => self.read_of_pods(node, wanted),
            ("", "serviceaccounts") => self.service_account(node, wanted),
            ("", "nodes") => own_node(node, wanted),
            ("", "pods") => self.pods(node, wanted),
            ("coordination.k8s.io", "leases") => lease(node, wanted),
            ("storage.k8s.io", "csinodes") => csi_node(node, wanted),
            _ if self.rules.iter().any(|rule| allows(rule, attributes)) => Ok(()),
            _ => Err(String::new()),
        }
    }

    /// What the pods of the node refer to, one object at a time.
    fn read_of_pods(&self, node: &str, wanted: &ResourceAttributes) -> Decision {
        if !wanted.is_read_only() {
            return refuse("can only read resources of this type");
        }
        if !wanted.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if wanted.name.is_empty() {
            return refuse("No Object name found");
        }
        let is_needed = match wanted.resource.as_str() {
            "persistentvolumes" => self.needs_volume(node, &wanted.name),
            "volumeattachments" => {
                let found = self.attachments.get("", &wanted.name);
                found.is_some_and(|found| found.spec.node_name == node)
            }
            _ => self.needs(node, wanted),
        };
        if is_needed { Ok(()) } else { unrelated(node) }
    }

    fn needs(&self, node: &str, wanted: &ResourceAttributes) -> bool {
        let (namespace, name) = (wanted.namespace.as_str(), wanted.name.as_str());
        self.pods_in(node, namespace).any(|pod| {
            let references = References::of(&pod);
            match wanted.resource.as_str() {
                "secrets" => references.secrets.contains(name),
                "configmaps" => references.config_maps.contains(name),
                _ => references.claims.contains(name),
            }
        })
    }

    fn needs_volume(&self, node: &str, volume: &str) -> bool {
        self.pods.indexed(BY_NODE, node).iter().any(|pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            References::of(pod).claims.iter().any(|claim| {
                let claim = self.claims.get(namespace, claim);
                let bound = claim.as_ref().and_then(|claim| claim.spec.as_ref());
                bound.and_then(|spec| spec.volume_name.as_deref()) == Some(volume)
            })
        })
    }

    fn pods_in<'a>(
        &self,
        node: &str,
        namespace: &'a str,
    ) -> impl Iterator<Item = Arc<Pod>> + use<'a> {
        let pods = self.pods.indexed(BY_NODE, node).into_iter();
        pods.filter(move |pod| pod.metadata.namespace.as_deref() == Some(namespace))
    }

    /// The accounts of its pods: to read, and to ask for tokens of.
    fn service_account(&self, node: &str, wanted: &ResourceAttributes) -> Decision {
        let is_known = match (&*wanted.verb, wanted.subresource.as_str()) {
            ("create", "token") | ("get", "") => true,
            _ => return refuse("can only create tokens for individual service accounts"),
        };
        let is_used = is_known
            && self.pods_in(node, &wanted.namespace).any(|pod| {
                let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_ref());
                account.is_some_and(|account| *account == wanted.name)
            });
        if is_used { Ok(()) } else { unrelated(node) }
    }

    fn pods(&self, node: &str, wanted: &ResourceAttributes) -> Decision {
        match (&*wanted.verb, wanted.subresource.as_str()) {
            ("create" | "delete", "") | ("update" | "patch", "status") | ("create", "eviction") => {
                Ok(())
            }
            ("list" | "watch", "") if selects(wanted, "spec.nodeName", node) => Ok(()),
            ("get" | "list" | "watch", "" | "status") if !wanted.name.is_empty() => {
                let pod = self.pods.get(&wanted.namespace, &wanted.name);
                let is_own = pod.is_some_and(|pod| index_by_node(&pod).iter().any(|n| n == node));
                if is_own { Ok(()) } else { unrelated(node) }
            }
            ("list" | "watch", "") => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            _ => refuse("can only read its own pods, and write their status"),
        }
    }
}

fn own_node(node: &str, wanted: &ResourceAttributes) -> Decision {
    match (&*wanted.verb, wanted.subresource.as_str()) {
        // Which node is created stands in the body: admission looks at it.
        ("create", "") => Ok(()),
        ("get" | "list" | "watch", "") if wanted.name == node => Ok(()),
        ("get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", wanted.name))
        }
        ("update" | "patch", "" | "status") if wanted.name == node => Ok(()),
        _ => Err(format!("node '{node}' can only write its own Node object")),
    }
}

fn lease(node: &str, wanted: &ResourceAttributes) -> Decision {
    match &*wanted.verb {
        "get" | "create" | "update" | "patch" | "delete" if wanted.subresource.is_empty() => {}
        _ => return refuse("can only get, create, update, patch, or delete a node lease"),
    }
    if wanted.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if wanted.verb != "create" && wanted.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, wanted: &ResourceAttributes) -> Decision {
    match &*wanted.verb {
        "get" | "create" | "update" | "patch" | "delete" if wanted.subresource.is_empty() => {}
        _ => return refuse("can only get, create, update, patch, or delete a CSINode"),
    }
    if wanted.verb != "create" && wanted.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn selects(wanted: &ResourceAttributes, field: &str, value: &str) -> bool {
    wanted.selected.iter().any(|(own, selected)| own == field && selected == value)
}

fn refuse(why: &str) -> Decision {
    Err(why.to_owned())
}

fn unrelated(node: &str) -> Decision {
    Err(format!("no relationship found between node '{node}' and this object"))
}
