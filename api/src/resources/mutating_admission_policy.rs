//! MutatingAdmissionPolicy: what is done to writes, in CEL. What comes of it is in
//! [`crate::admission`].

use jiff::Timestamp;
use serde_json::Value;

use super::admission_rules::{fill_match, match_conditions, match_resources, mutable_operations};
use super::validating_admission_policy::{check_param_kind, check_variables, variables};
use super::{check, defaults};
use crate::cel::{Expression, Yields};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// The kind.
pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1beta1",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "mutatingadmissionpolicies",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &MutatingAdmissionPolicy,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::integer(
        "Mutations",
        "Mutation indicates the number of mutations rules defined in this configuration",
    ),
    table::text(
        "ParamKind",
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    AGE,
];

#[derive(Debug)]
struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn has_status(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = defaults::child(object.value_mut(), "spec") else { return };
        defaults::fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = defaults::child(spec, "matchConstraints") {
            fill_match(constraints);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| check_spec(errors, &root.at("spec")))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mutations = object.at("/spec/mutations").and_then(Value::as_array);
        let version = object.str_at("/spec/paramKind/apiVersion");
        let params = match object.str_at("/spec/paramKind/kind") {
            "" => "<unset>".to_owned(),
            kind => format!("{version}/{kind}"),
        };
        vec![
            object.name().into(),
            mutations.map_or(0, Vec::len).into(),
            params.into(),
            table::age(object, now),
        ]
    }
}

fn check_spec(errors: &mut Errors, spec: &At<'_>) {
    errors.optional_one_of(&spec.at("failurePolicy"), &["Fail", "Ignore"]);
    let params = spec.at("paramKind");
    check_param_kind(errors, &params);
    let constraints = spec.at("matchConstraints");
    if !constraints.is_set() {
        errors.required(&constraints, "");
    } else if constraints.at("resourceRules").is_empty() {
        errors.required(&constraints.at("resourceRules"), "");
    }
    match_resources(errors, &constraints);
    mutable_operations(errors, &constraints);
    let names = variables(params.is_set());
    // Conditions come before the variables are.
    let early: Vec<&str> = names.iter().copied().filter(|name| *name != "variables").collect();
    match_conditions(errors, &spec.at("matchConditions"), &early);
    check_variables(errors, &spec.at("variables"), &names);
    let mutations = spec.at("mutations");
    if mutations.is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        check_mutation(errors, &mutation, &names);
    }
    errors.one_of(&spec.at("reinvocationPolicy"), &["IfNeeded", "Never"]);
}

/// The types of patches, each with its field and what its expression must come to.
const PATCHES: [(&str, &str, Yields); 2] = [
    ("ApplyConfiguration", "applyConfiguration", Yields::Object),
    ("JSONPatch", "jsonPatch", Yields::Patch),
];

fn check_mutation(errors: &mut Errors, mutation: &At<'_>, names: &[&str]) {
    let of = mutation.at("patchType");
    errors.one_of(&of, &["ApplyConfiguration", "JSONPatch"]);
    for (name, field, yields) in PATCHES {
        let patch = mutation.at(field);
        if of.str() == name {
            if patch.is_set() {
                check_expression(errors, &patch.at("expression"), names, yields);
            } else {
                errors.required(&patch, format!("must be specified when patchType is {name}"));
            }
        } else if patch.is_set() && PATCHES.iter().any(|(other, ..)| *other == of.str()) {
            let why = format!("must not be specified when patchType is {}", of.str());
            errors.invalid_value(&patch, format!("{{{field}}}"), why);
        }
    }
}

fn check_expression(errors: &mut Errors, at: &At<'_>, names: &[&str], yields: Yields) {
    if at.str().trim().is_empty() {
        errors.required(at, "");
    } else if let Err(why) = Expression::making(at.str(), names, yields) {
        errors.invalid(at, why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{line, problems};
    use super::*;

    fn policy(changes: &Value) -> Value {
        let mut spec = json!({
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["pods"] }] },
            "reinvocationPolicy": "Never",
            "mutations": [{ "patchType": "ApplyConfiguration",
                "applyConfiguration": { "expression": "Object{}" } }],
        });
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({ "metadata": { "name": "p" }, "spec": spec })
    }

    fn mutation(patch_type: &str, field: &str, expression: &str) -> Value {
        json!({ "mutations": [{ "patchType": patch_type, field: { "expression": expression } }] })
    }

    #[test]
    fn a_policy_says_about_what_and_how_it_patches() {
        assert!(problems(&KIND, policy(&json!({}))).is_empty());
        let empty = json!({ "metadata": { "name": "p" }, "spec": {} });
        assert_eq!(
            problems(&KIND, empty),
            [
                "spec.matchConstraints: Required value",
                "spec.mutations: Required value: mutations must contain at least one item",
                "spec.reinvocationPolicy: Required value",
            ]
        );
        let deletes = json!({ "matchConstraints": { "resourceRules": [{ "apiGroups": [""],
            "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"] }] } });
        assert_eq!(
            problems(&KIND, policy(&deletes)),
            ["spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": \
              supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""]
        );
    }

    #[test]
    fn a_mutation_has_the_patch_of_its_type_and_no_other() {
        assert_eq!(
            problems(&KIND, policy(&mutation("JSONPatch", "applyConfiguration", "Object{}"))),
            [
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": \
                 must not be specified when patchType is JSONPatch",
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is \
                 JSONPatch",
            ]
        );
        for (patch_type, field, expression, why) in [
            ("Other", "jsonPatch", "[]", "patchType: Unsupported value: \"Other\""),
            ("JSONPatch", "jsonPatch", "  ", "jsonPatch.expression: Required value"),
            ("JSONPatch", "jsonPatch", "[1]", "must evaluate to list(JSONPatch) but got list(int)"),
            ("JSONPatch", "jsonPatch", "[JSONPatch{ops: 'a'}]", "undefined field 'ops'"),
            ("ApplyConfiguration", "applyConfiguration", "'a'", "must evaluate to Object but got"),
            ("ApplyConfiguration", "applyConfiguration", "Pod{}", "undeclared reference to 'Pod'"),
            ("ApplyConfiguration", "applyConfiguration", "Object.spec{}", "but got Object.spec"),
        ] {
            let found = problems(&KIND, policy(&mutation(patch_type, field, expression)));
            assert!(found.iter().any(|one| one.contains(why)), "{expression}: {found:?}");
        }
    }

    #[test]
    fn a_row_counts_the_mutations() {
        let mut one = policy(&json!({ "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" } }));
        one["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(line(&KIND, one, "2026-01-01T00:01:00Z"), "p | 1 | v1/ConfigMap | 60s");
    }
}
