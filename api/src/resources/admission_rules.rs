//! What webhook configurations and admission policies say alike: rules, match conditions, names.

use std::collections::BTreeSet;

use serde_json::Value;

use super::defaults::{each, fill};
use crate::cel::Expression;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;
use crate::validation::names;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

/// Rules are about every scope unless they say which.
pub(super) fn fill_rules(holder: &mut Value, field: &str) {
    for rule in each(holder, field) {
        fill(rule, "scope", "*");
    }
}

/// The defaults of `matchConstraints` and `matchResources`.
pub(super) fn fill_match(resources: &mut Value) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", serde_json::json!({}));
    fill(resources, "objectSelector", serde_json::json!({}));
    fill_rules(resources, "resourceRules");
    fill_rules(resources, "excludeResourceRules");
}

/// What is wrong with `matchConstraints` or `matchResources`.
pub(super) fn match_resources(errors: &mut Errors, resources: &At<'_>) {
    errors.optional_one_of(&resources.at("matchPolicy"), &["Equivalent", "Exact"]);
    label_selector(errors, &resources.at("namespaceSelector"));
    label_selector(errors, &resources.at("objectSelector"));
    for field in ["resourceRules", "excludeResourceRules"] {
        for one in resources.at(field).items() {
            rule(errors, &one);
        }
    }
}

/// What is wrong where only what is made or changed can be meant: nothing is changed of what goes.
pub(super) fn mutable_operations(errors: &mut Errors, resources: &At<'_>) {
    for field in ["resourceRules", "excludeResourceRules"] {
        let rules = resources.at(field);
        for rule in rules.items() {
            for operation in rule.at("operations").items() {
                if !MUTABLE.contains(&operation.str()) && OPERATIONS.contains(&operation.str()) {
                    errors.not_supported(&rules.at("operations").with(operation.value()), &MUTABLE);
                }
            }
        }
    }
}

/// What is wrong with a rule.
pub(super) fn rule(errors: &mut Errors, rule: &At<'_>) {
    let operations = rule.at("operations");
    wildcards(errors, &operations, "");
    for operation in operations.items() {
        errors.optional_one_of(&operation, &OPERATIONS);
    }
    wildcards(errors, &rule.at("apiGroups"), "");
    let versions = rule.at("apiVersions");
    wildcards(errors, &versions, "");
    for version in versions.items().filter(|version| version.str().is_empty()) {
        errors.required(&version, "");
    }
    let resources = rule.at("resources");
    if resources.is_empty() {
        errors.required(&resources, "");
    }
    for resource in resources.items() {
        let is_all = matches!(resource.str(), "*" | "*/*");
        if resource.str().is_empty() {
            errors.required(&resource, "");
        } else if is_all && resources.len() > 1 {
            let why = "if '*/*' is present, must not specify other resources";
            errors.invalid(
                &resource,
                if resource.str() == "*/*" {
                    why
                } else {
                    "if '*' is present, must not specify other resources without subresources"
                },
            );
        }
    }
    errors.optional_one_of(&rule.at("scope"), &SCOPES);
}

fn wildcards(errors: &mut Errors, list: &At<'_>, detail: &str) {
    if list.is_empty() {
        errors.required(list, detail);
    } else if list.len() > 1 && list.strings().any(|one| one == "*") {
        errors.invalid(list, "if '*' is present, must not specify other values");
    }
}

/// The name of a webhook: a domain of three labels or more.
pub(super) fn named_domain(errors: &mut Errors, name: &At<'_>) {
    if name.str().is_empty() {
        errors.required(name, "");
        return;
    }
    errors.invalid_each(name, names::dns1123_subdomain(name.str()));
    if name.str().split('.').count() < 3 {
        errors.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

/// What is wrong with match conditions that may name these variables.
pub(super) fn match_conditions(errors: &mut Errors, conditions: &At<'_>, variables: &[&str]) {
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(conditions, CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let name = condition.at("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.invalid_each(&name, names::qualified_name(name.str()));
            if !seen.insert(name.str().to_owned()) {
                errors.duplicate(&name);
            }
        }
        expression(errors, &condition.at("expression"), variables);
    }
}

/// An expression that must be there, and must compile.
pub(super) fn expression(errors: &mut Errors, at: &At<'_>, variables: &[&str]) {
    if at.str().trim().is_empty() {
        errors.required(at, "");
    } else if let Err(why) = Expression::compile(at.str(), variables) {
        errors.invalid(at, why);
    }
}
