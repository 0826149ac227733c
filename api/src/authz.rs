//! Who may do what.

use crate::authn::{MASTERS, NODES, UNAUTHENTICATED, User};
use crate::request_info::Verb;
use crate::status::Status;

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// With a resource.
    Resource {
        /// What is done.
        verb: Verb,
        /// The group of the resource.
        group: String,
        /// Its version.
        version: String,
        /// The resource, in the plural.
        resource: String,
        /// The part of it, or empty.
        subresource: String,
        /// The namespace, or empty.
        namespace: String,
        /// The object, or empty.
        name: String,
    },
    /// With a path that is not a resource.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// Decides who may do what.
pub trait Authorizer: Send + Sync {
    /// `Ok` where it is allowed, otherwise why not (may be empty).
    fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), String>;
}

/// The refusal as Kubernetes words it.
pub fn refusal(user: &User, attributes: &Attributes, why: &str) -> Status {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    match attributes {
        Attributes::Path { verb, path } => Status::forbidden(
            "",
            "",
            "",
            format!("User {:?} cannot {verb} path {path:?}{why}", user.name),
        ),
        Attributes::Resource { verb, group, resource, subresource, namespace, name, .. } => {
            let part = if subresource.is_empty() {
                resource.clone()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            Status::forbidden(
                group,
                resource,
                name,
                format!(
                    "User {:?} cannot {verb} resource {part:?} in API group {group:?} {place}{why}",
                    user.name
                ),
            )
        }
    }
}

/// The authorizer of a cluster without rules of its own: masters may do everything, the cluster's
/// own components and nodes what they need, strangers see health and version.
#[derive(Debug, Default)]
pub struct BuiltIn;

impl Authorizer for BuiltIn {
    fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), String> {
        if user.is_in(MASTERS) || is_own_component(user) {
            return Ok(());
        }
        match attributes {
            Attributes::Path { verb, path } if verb == "get" && is_open(path, user) => Ok(()),
            // Who enrolls has no certificate yet; the token is checked behind it.
            Attributes::Path { verb, path }
                if verb == "post" && path.starts_with("/kontiki/v1/enroll/") =>
            {
                Ok(())
            }
            Attributes::Resource { .. } if user.is_in(NODES) => node_may(user, attributes),
            _ => Err(String::new()),
        }
    }
}

/// The controllers and the scheduler, which run in this process under these names.
fn is_own_component(user: &User) -> bool {
    user.name.starts_with("system:kontiki:")
        || user.name == "system:kube-scheduler"
        || user.name.starts_with("system:serviceaccount:kube-system:")
}

/// Paths that show nothing of the cluster's content: some for everybody, discovery for who is
/// authenticated.
fn is_open(path: &str, user: &User) -> bool {
    let for_all = ["/healthz", "/livez", "/readyz", "/version"];
    let within =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|p| p.starts_with('/'));
    if for_all.iter().any(|root| within(root)) {
        return true;
    }
    !user.is_in(UNAUTHENTICATED) && ["/api", "/apis", "/openapi"].iter().any(|root| within(root))
}

fn node_may(user: &User, attributes: &Attributes) -> Result<(), String> {
    let Attributes::Resource { verb, resource, subresource, namespace, name, .. } = attributes
    else {
        return Err(String::new());
    };
    let node = user.name.strip_prefix("system:node:").unwrap_or_default();
    let allowed = match (resource.as_str(), subresource.as_str()) {
        (
            "pods" | "services" | "endpoints" | "endpointslices" | "configmaps" | "secrets"
            | "serviceaccounts" | "namespaces" | "nodes",
            "",
        ) if verb.is_read_only() => true,
        ("nodes", "") if *verb == Verb::Create => name.is_empty() || name == node,
        ("nodes", "" | "status") => name == node,
        ("pods", "") => matches!(verb, Verb::Create | Verb::Delete),
        ("pods", "status") => true,
        ("leases", "") => namespace == "kube-node-lease" && (name.is_empty() || name == node),
        ("events", "") => !verb.is_read_only(),
        _ => false,
    };
    if allowed { Ok(()) } else { Err("nodes may only do what they need".into()) }
}
