//! Role: what may be done in a namespace.

use super::check;
use super::rbac::{self, Paths};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Kind, NameRule, Scope, Strategy};
use crate::status::FieldError;

/// The kind.
pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "roles",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Role,
};

#[derive(Debug)]
struct Role;

impl Strategy for Role {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            rbac::rules(errors, &root.at("rules"), Paths::Forbidden);
        })
    }
}
