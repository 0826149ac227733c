//! MutatingAdmissionPolicyBinding: where a policy counts, and with which parameters.

use jiff::Timestamp;
use serde_json::Value;

use super::admission_rules::{fill_match, match_resources, mutable_operations};
use super::validating_admission_policy_binding::{check_params, params_in_a_word};
use super::{check, defaults};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1beta1",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "mutatingadmissionpolicybindings",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &MutatingAdmissionPolicyBinding,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::text(
        "PolicyName",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    table::text(
        "ParamRef",
        "ParamRef indicates the param resource which sets the configration param",
    ),
    AGE,
];

#[derive(Debug)]
struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
    fn has_status(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = defaults::child(object.value_mut(), "spec") else { return };
        if let Some(resources) = defaults::child(spec, "matchResources") {
            fill_match(resources);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| check_spec(errors, &root.at("spec")))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at("/spec/policyName").into(),
            params_in_a_word(object).into(),
            table::age(object, now),
        ]
    }
}

fn check_spec(errors: &mut Errors, spec: &At<'_>) {
    errors.required_form(&spec.at("policyName"), names::dns1123_subdomain);
    check_params(errors, &spec.at("paramRef"));
    let resources = spec.at("matchResources");
    match_resources(errors, &resources);
    mutable_operations(errors, &resources);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{line, problems};
    use super::*;

    #[test]
    fn a_binding_names_a_policy_and_what_can_be_changed() {
        let binding = |spec: Value| json!({ "metadata": { "name": "b" }, "spec": spec });
        assert!(problems(&KIND, binding(json!({ "policyName": "p" }))).is_empty());
        let wrong = json!({ "matchResources": { "resourceRules": [{ "apiGroups": [""],
            "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"] }] } });
        assert_eq!(
            problems(&KIND, binding(wrong)),
            [
                "spec.policyName: Required value",
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": \
                 supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ]
        );
        let mut one = binding(json!({ "policyName": "p", "paramRef": { "name": "c",
            "namespace": "n", "parameterNotFoundAction": "Deny" } }));
        one["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(line(&KIND, one, "2026-01-01T00:01:00Z"), "b | p | n/c | 60s");
    }
}
