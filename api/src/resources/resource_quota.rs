//! ResourceQuota: how much a namespace may use together.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, resource_list};
use super::pod_spec::requirements;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "resourcequotas",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &ResourceQuota,
};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// What Kubernetes itself counts; for what others count, scopes mean whatever they like.
const STANDARD: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What pods ask for.
const OF_PODS: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Request", "What is used and may be requested."),
    table::text("Limit", "What is used and may be a limit."),
    AGE,
];

#[derive(Debug)]
struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        if let Some(spec) = child(root, "spec") {
            resource_list(child(spec, "hard"));
        }
        if let Some(status) = child(root, "status") {
            resource_list(child(status, "hard"));
            resource_list(child(status, "used"));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            amounts(errors, &spec.at("hard"));
            let scopes = spec.at("scopes");
            let has = |scope: &str| scopes.strings().any(|other| other == scope);
            if scopes.strings().any(|scope| !SCOPES.contains(&scope)) {
                errors.invalid(&scopes, "unsupported scope");
            }
            let hard = spec.at("hard");
            let hard: Vec<&str> = hard.entries().map(|(name, _)| name).collect();
            let is_of_all = |scope: &str| hard.iter().all(|name| is_in_scope(scope, name));
            if !scopes.strings().all(is_of_all) {
                errors.invalid(&scopes, "unsupported scope applied to resource");
            }
            let conflict = (has("BestEffort") && has("NotBestEffort"))
                || (has("Terminating") && has("NotTerminating"));
            if conflict {
                errors.invalid(&scopes, "conflicting scopes");
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("scopes"), &old.at("scopes"));
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let status = root.at("status");
            amounts(errors, &status.at("hard"));
            amounts(errors, &status.at("used"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let hard = object.at("/status/hard").and_then(Value::as_object);
        for (name, most) in hard.into_iter().flatten() {
            let used = object.value()["status"]["used"].get(name).and_then(Value::as_str);
            let most = most.as_str().unwrap_or_default();
            let shown = format!("{name}: {}/{most}", used.unwrap_or("0"));
            if name.starts_with("limits") { limits.push(shown) } else { requests.push(shown) }
        }
        vec![
            object.name().into(),
            requests.join(", ").into(),
            limits.join(", ").into(),
            table::age(object, now),
        ]
    }
}

/// Whether a quota of this scope can bound a resource: of pods that ask for nothing only the number
/// can be.
fn is_in_scope(scope: &str, resource: &str) -> bool {
    if !STANDARD.contains(&resource) || !SCOPES.contains(&scope) {
        return true;
    }
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => resource == "pods" || OF_PODS.contains(&resource),
    }
}

fn amounts(errors: &mut Errors, list: &At<'_>) {
    for (name, amount) in list.entries() {
        for problem in names::qualified_name(name) {
            errors.invalid_value(&amount, name, problem);
        }
        requirements::amount(errors, &amount, name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scope_must_fit_what_is_bounded() {
        let refused = |scope: &str, resource: &str| {
            let quota = json!({"spec": {"hard": {resource: "1"}, "scopes": [scope]}});
            let quota = Object::new(quota).expect("an object");
            !KIND.strategy.validate(&quota).is_empty()
        };
        assert!(refused("BestEffort", "cpu"));
        assert!(refused("Terminating", "services"));
        assert!(refused("VolumeAttributesClass", "pods"));
        assert!(!refused("BestEffort", "pods"));
        assert!(!refused("NotTerminating", "limits.memory"));
        assert!(!refused("PriorityClass", "count/deployments.apps"));
    }
}
