//! FlowSchema and PriorityLevelConfiguration: whose requests shall wait for whose
//! ([`crate::fairness`] goes by them).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, child_or_new, fill};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// The kind of what sorts requests.
pub static FLOW_SCHEMA: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "flowschemas",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &FlowSchema,
};

/// The kind of what requests wait in.
pub static PRIORITY_LEVEL: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "prioritylevelconfigurations",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &PriorityLevel,
};

const PRECEDENCE_MAX: i64 = 10_000;

static SCHEMA_COLUMNS: [Column; 6] = [
    NAME,
    table::text("PriorityLevel", "Where its requests wait."),
    table::integer("MatchingPrecedence", "Which of several counts: the lowest."),
    table::text("DistinguisherMethod", "What tells its flows apart."),
    AGE,
    table::text("MissingPL", "Whether its level is missing."),
];

static LEVEL_COLUMNS: [Column; 7] = [
    NAME,
    table::text("Type", "Whether it is bounded."),
    table::integer("NominalConcurrencyShares", "Its part of what is handled at once."),
    table::integer("Queues", "How many queues it has."),
    table::integer("HandSize", "How many of them one flow may use."),
    table::integer("QueueLengthLimit", "How many may wait in one."),
    AGE,
];

#[derive(Debug)]
struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "matchingPrecedence", 1000);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let level = spec.at("priorityLevelConfiguration");
            let name = level.at("name");
            if name.str().is_empty() {
                errors.required(&name, "must reference a priority level");
            }
            let precedence = spec.at("matchingPrecedence");
            if precedence.int().is_some_and(|value| !(1..=PRECEDENCE_MAX).contains(&value)) {
                let why = if precedence.int_or_zero() < 1 {
                    "must be a positive value"
                } else {
                    "must not be greater than 10000"
                };
                errors.invalid(&precedence, why);
            }
            let method = spec.at("distinguisherMethod");
            if method.is_set() {
                errors.one_of(&method.at("type"), &["ByNamespace", "ByUser"]);
            }
            for rule in spec.at("rules").items() {
                check_rule(errors, &rule);
            }
            check_conditions(errors, root);
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, check_conditions)
    }

    fn columns(&self) -> &'static [Column] {
        &SCHEMA_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let conditions = object.at("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let dangling = conditions.find(|one| one["type"] == "Dangling");
        let dangling = dangling.and_then(|one| one["status"].as_str()).unwrap_or("?");
        vec![
            object.name().into(),
            object.str_at("/spec/priorityLevelConfiguration/name").into(),
            table::count(object, "/spec/matchingPrecedence"),
            table::or_none(object.str_at("/spec/distinguisherMethod/type")),
            table::age(object, now),
            dangling.into(),
        ]
    }
}

fn check_rule(errors: &mut Errors, rule: &At<'_>) {
    let subjects = rule.at("subjects");
    if subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        let kind = subject.at("kind");
        let holder = match kind.str() {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            _ => {
                errors.one_of(&kind, &["Group", "ServiceAccount", "User"]);
                continue;
            }
        };
        let holder = subject.at(holder);
        if !holder.is_set() {
            let why = format!("{} is required when subject kind is '{}'", holder, kind.str());
            errors.required(&holder, why);
        } else if holder.at("name").str().is_empty() {
            errors.required(&holder.at("name"), "");
        }
    }
    let (resources, paths) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        errors.required(
            rule,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for (rules, needed) in [
        (&resources, &["verbs", "apiGroups", "resources"][..]),
        (&paths, &["verbs", "nonResourceURLs"][..]),
    ] {
        for one in rules.items() {
            for field in needed.iter().filter(|field| one.at(field).is_empty()) {
                errors.required(&one.at(field), format!("{field} must contain at least one value"));
            }
        }
    }
    for one in resources.items() {
        if one.at("namespaces").is_empty() && !one.at("clusterScope").is_true() {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            errors.required(&one.at("namespaces"), why);
        }
    }
}

fn check_conditions(errors: &mut Errors, root: &At<'_>) {
    let status = root.at("status");
    let mut seen = BTreeSet::new();
    for condition in status.at("conditions").items() {
        let kind = condition.at("type");
        if kind.str().is_empty() {
            errors.required(&kind, "");
        } else if !seen.insert(kind.str().to_owned()) {
            errors.duplicate(&kind);
        }
    }
}

#[derive(Debug)]
struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        match spec["type"].as_str() {
            Some("Exempt") => {
                let exempt = child_or_new(spec, "exempt");
                fill(exempt, "nominalConcurrencyShares", 0);
                fill(exempt, "lendablePercent", 0);
            }
            Some("Limited") => {
                let Some(limited) = child(spec, "limited") else { return };
                fill(limited, "nominalConcurrencyShares", 30);
                fill(limited, "lendablePercent", 0);
                let response = child(limited, "limitResponse");
                if let Some(queuing) = response.and_then(|response| child(response, "queuing")) {
                    for (field, value) in
                        [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)]
                    {
                        fill(queuing, field, value);
                    }
                }
            }
            _ => {}
        }
    }

    fn initial_status(&self) -> Value {
        json!({})
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let (kind, limited) = (spec.at("type"), spec.at("limited"));
            errors.one_of(&kind, &["Exempt", "Limited"]);
            match kind.str() {
                "Limited" if !limited.is_set() => {
                    errors.required(&limited, "must not be empty when type is Limited");
                }
                "Limited" => check_limited(errors, &limited),
                "Exempt" if limited.is_set() => {
                    errors.forbidden(&limited, "must be nil if the type is not Limited");
                }
                _ => {}
            }
            check_conditions(errors, root);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |_, _, _| {})
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, check_conditions)
    }

    fn columns(&self) -> &'static [Column] {
        &LEVEL_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let limited = |field: &str| -> Value {
            let value = object.i64_at(&format!("/spec/limited/{field}"));
            value.map_or_else(|| table::NONE.into(), Into::into)
        };
        vec![
            object.name().into(),
            object.str_at("/spec/type").into(),
            limited("nominalConcurrencyShares"),
            limited("limitResponse/queuing/queues"),
            limited("limitResponse/queuing/handSize"),
            limited("limitResponse/queuing/queueLengthLimit"),
            table::age(object, now),
        ]
    }
}

fn check_limited(errors: &mut Errors, limited: &At<'_>) {
    let shares = limited.at("nominalConcurrencyShares");
    if shares.int().is_some_and(|shares| shares < 0) {
        errors.invalid(&shares, "must be a non-negative integer");
    }
    let lendable = limited.at("lendablePercent");
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
    let response = limited.at("limitResponse");
    let (kind, queuing) = (response.at("type"), response.at("queuing"));
    errors.one_of(&kind, &["Queue", "Reject"]);
    match kind.str() {
        "Reject" if queuing.is_set() => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if !queuing.is_set() => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        _ => {}
    }
    for field in ["queues", "handSize", "queueLengthLimit"] {
        let value = queuing.at(field);
        if value.int().is_some_and(|value| value <= 0) {
            errors.invalid(&value, "must be positive");
        }
    }
    let (queues, hand) = (queuing.at("queues"), queuing.at("handSize"));
    if hand.int_or_zero() > queues.int().unwrap_or(i64::MAX) {
        let why = format!("should not be greater than queues ({})", queues.int_or_zero());
        errors.invalid(&hand, why);
    }
}
