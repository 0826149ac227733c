//! Where objects live in the store: the layout that etcd has under Kubernetes.
//!
//! ```text
//! /registry/pods/default/web-0            namespaced kind
//! /registry/minions/node-1                cluster-scoped kind
//! /registry/services/specs/default/web    kinds that Kubernetes keeps together
//! ```

use super::strategy::Kind;

/// The folder of everything.
pub const ROOT: &str = "/registry/";

/// The folder of a kind, with its slash; in one namespace where that is not empty.
pub fn folder(kind: &Kind, namespace: &str) -> String {
    if kind.is_namespaced() && !namespace.is_empty() {
        format!("{ROOT}{}/{namespace}/", kind.storage)
    } else {
        format!("{ROOT}{}/", kind.storage)
    }
}

/// The key of an object.
pub fn object(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}{name}", folder(kind, namespace))
}

/// The namespace and the name that a key of this kind stands for.
pub fn parse<'a>(kind: &Kind, key: &'a [u8]) -> Option<(&'a str, &'a str)> {
    let key = std::str::from_utf8(key).ok()?;
    let rest = key.strip_prefix(ROOT)?.strip_prefix(kind.storage)?.strip_prefix('/')?;
    if kind.is_namespaced() { rest.split_once('/') } else { Some(("", rest)) }
}
