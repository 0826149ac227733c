//! ClusterRole: what may be done in the whole cluster.

use super::check;
use super::rbac::{self, Paths};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Kind, NameRule, Scope, Strategy};
use crate::status::FieldError;

/// The kind.
pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "clusterroles",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &ClusterRole,
};

#[derive(Debug)]
struct ClusterRole;

impl Strategy for ClusterRole {
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
            rbac::rules(errors, &root.at("rules"), Paths::Allowed);
            rbac::aggregation(errors, &root.at("aggregationRule"));
        })
    }
}
