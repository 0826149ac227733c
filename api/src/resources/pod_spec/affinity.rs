//! Affinities of pods, and how they spread.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::{labels, names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// All affinities of a pod.
pub fn affinity(errors: &mut Errors, at: &At<'_>) {
    let node = at.at("nodeAffinity");
    let required = node.at(REQUIRED);
    if required.is_set() {
        node_selector(errors, &required);
    }
    for term in node.at(PREFERRED).items() {
        weight(errors, &term);
        node_selector_term(errors, &term.at("preference"), Values::Any);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = at.at(name);
        for term in pods.at(REQUIRED).items() {
            pod_term(errors, &term);
        }
        for term in pods.at(PREFERRED).items() {
            weight(errors, &term);
            pod_term(errors, &term.at("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, term: &At<'_>) {
    let weight = term.at("weight");
    if !(1..=100).contains(&weight.int_or_zero()) {
        errors.invalid_value(&weight, weight.int_or_zero(), "must be in the range 1-100");
    }
}

/// Whether the values of a selector must have the form of a label's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Labels,
    Any,
}

/// A choice of nodes.
pub fn node_selector(errors: &mut Errors, at: &At<'_>) {
    let terms = at.at("nodeSelectorTerms");
    if terms.is_empty() {
        return errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(errors, &term, Values::Labels);
    }
}

fn node_selector_term(errors: &mut Errors, term: &At<'_>, form: Values) {
    for requirement in term.at("matchExpressions").items() {
        let (operator, values) = (requirement.at("operator"), requirement.at("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.len() != 1 => errors.required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        labels::label_name(errors, &requirement.at("key"));
        if form == Values::Labels {
            for value in values.items() {
                errors.invalid_each(&value, names::label_value(value.str()));
            }
        }
    }
    for requirement in term.at("matchFields").items() {
        field_requirement(errors, &requirement);
    }
}

fn field_requirement(errors: &mut Errors, at: &At<'_>) {
    let (key, operator, values) = (at.at("key"), at.at("operator"), at.at("values"));
    match operator.str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                errors.required(
                    &values,
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
        }
        other => errors.invalid_value(&operator, other, "not a valid selector operator"),
    }
    if key.str() == "metadata.name" {
        for value in values.items() {
            errors.invalid_each(&value, names::dns1123_subdomain(value.str()));
        }
    } else {
        errors.invalid_value(&key, key.str(), "not a valid field selector key");
    }
}

fn pod_term(errors: &mut Errors, at: &At<'_>) {
    let selector = at.at("labelSelector");
    labels::label_selector(errors, &selector);
    labels::label_selector(errors, &at.at("namespaceSelector"));
    for namespace in at.at("namespaces").strings() {
        for problem in names::dns1123_label(namespace) {
            errors.invalid_value(&at.at("namespace"), namespace, problem);
        }
    }
    let (matching, mismatching) = (at.at("matchLabelKeys"), at.at("mismatchLabelKeys"));
    for keys in [matching, mismatching] {
        label_keys(errors, &keys, &selector);
    }
    for key in matching.items() {
        if mismatching.strings().any(|other| other == key.str()) {
            errors.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
    let topology = at.at("topologyKey");
    if topology.str().is_empty() {
        errors.required(&topology, "can not be empty");
    }
    labels::label_name(errors, &topology);
}

fn label_keys(errors: &mut Errors, keys: &At<'_>, selector: &At<'_>) {
    if keys.is_empty() {
        return;
    }
    if !selector.is_set() {
        return errors.forbidden(keys, "must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        labels::label_name(errors, &key);
    }
}

/// How the pods spread over the nodes.
pub fn spread(errors: &mut Errors, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for constraint in at.items() {
        let skew = constraint.at("maxSkew");
        if skew.int_or_zero() <= 0 {
            errors.invalid_value(&skew, skew.int_or_zero(), "must be greater than zero");
        }
        let (topology, action) = (constraint.at("topologyKey"), constraint.at("whenUnsatisfiable"));
        if topology.str().is_empty() {
            errors.required(&topology, "can not be empty");
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.str()) {
            let said = Value::from(action.str());
            errors.not_supported(&action.with(&said), &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if !seen.insert((topology.str().to_owned(), action.str().to_owned())) {
            let said = Value::from(format!("{{{}, {}}}", topology.str(), action.str()));
            errors.duplicate(&constraint.at("{topologyKey, whenUnsatisfiable}").with(&said));
        }
        let domains = constraint.at("minDomains");
        if let Some(count) = domains.int() {
            if count <= 0 {
                errors.invalid(&domains, "must be greater than zero");
            }
            if action.str() != "DoNotSchedule" {
                errors.invalid(
                    &domains,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                        action.str()
                    ),
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.optional_one_of(&constraint.at(policy), &["Honor", "Ignore"]);
        }
        let selector = constraint.at("labelSelector");
        label_keys(errors, &constraint.at("matchLabelKeys"), &selector);
        labels::label_selector(errors, &selector);
    }
}
