//! Binding: sends a pod to a node. Carried out when it is created, not stored.

use crate::registry::strategy::{Kind, Scope, Strategy};
use crate::request_info::Verb;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "",
    subresources: &[],
    verbs: &[Verb::Create],
    strategy: &Binding,
};

#[derive(Debug)]
struct Binding;

impl Strategy for Binding {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }
}
