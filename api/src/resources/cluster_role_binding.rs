//! ClusterRoleBinding: who has a role in the whole cluster.

use jiff::Timestamp;
use serde_json::Value;

use super::rbac;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, NameRule, Scope, Strategy};
use crate::status::FieldError;

/// The kind.
pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "clusterrolebindings",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &ClusterRoleBinding,
};

#[derive(Debug)]
struct ClusterRoleBinding;

impl Strategy for ClusterRoleBinding {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, object: &mut Object) {
        rbac::default_binding(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| rbac::binding(errors, root, &["ClusterRole"], false))
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, rbac::same_role)
    }

    fn columns(&self) -> &'static [Column] {
        &rbac::BINDING_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        rbac::binding_row(object, now)
    }
}
