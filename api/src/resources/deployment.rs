//! Deployment: like pods whose template can change while they serve.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, child_or_new, clear, fill, fill_empty, str_of};
use super::pod_spec::defaults as pod_defaults;
use super::workload::{self, SCALE};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{
    ALL_VERBS, Column, Kind, ScalePointers, Scope, Strategy, Subresource,
};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::numbers::{
    IntOrPercent, non_negative, non_negative_int_or_percent, not_more_than_all,
};

/// The kind.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "deployments",
    subresources: &[Subresource::SCALE, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Deployment,
};

const REVISION_HISTORY_LIMIT: i64 = 10;
const PROGRESS_DEADLINE_SECONDS: i64 = 600;
const QUARTER: &str = "25%";

static COLUMNS: [Column; 8] = [
    NAME,
    table::text("Ready", "Number of the pod with ready state"),
    table::integer("Up-to-date", "How many pods are of the newest template."),
    table::integer("Available", "How many pods have been ready for long enough."),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", "Which pods are its own."),
];

#[derive(Debug)]
struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
        fill(spec, "progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS);
        let strategy = child_or_new(spec, "strategy");
        fill_empty(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate" {
            let rolling = child_or_new(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", QUARTER);
            fill(rolling, "maxSurge", QUARTER);
        } else if strategy.get("rollingUpdate").is_some_and(Value::is_null) {
            clear(strategy, "rollingUpdate");
        }
        if let Some(template) = child(spec, "template") {
            pod_defaults::template(template);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            non_negative(errors, &spec.at("replicas"));
            workload::selector_and_template(errors, &spec, "deployment");
            strategy(errors, &spec.at("strategy"));
            non_negative(errors, &spec.at("minReadySeconds"));
            non_negative(errors, &spec.at("revisionHistoryLimit"));
            let deadline = spec.at("progressDeadlineSeconds");
            non_negative(errors, &deadline);
            if deadline.int().is_some_and(|d| d <= spec.at("minReadySeconds").int_or_zero()) {
                errors.invalid(&deadline, "must be greater than minReadySeconds");
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("selector"), &old.at("selector"));
        })
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("status"), old.at("status"));
            status(errors, &new);
            let (count, before) = (new.at("collisionCount"), old.at("collisionCount"));
            if before.int().is_some() && count.int_or_zero() < before.int_or_zero() {
                errors.invalid_value(&count, count.int_or_zero(), "cannot be decremented");
            }
        })
    }

    fn scale(&self) -> Option<ScalePointers> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let wanted = object.i64_at("/spec/replicas").unwrap_or(0);
        let ready = object.i64_at("/status/readyReplicas").unwrap_or(0);
        let mut cells = vec![
            object.name().into(),
            format!("{ready}/{wanted}").into(),
            table::count(object, "/status/updatedReplicas"),
            table::count(object, "/status/availableReplicas"),
            table::age(object, now),
        ];
        cells.extend(workload::wide_cells(object));
        cells
    }
}

fn strategy(errors: &mut Errors, at: &At<'_>) {
    let rolling = at.at("rollingUpdate");
    match at.at("type").str() {
        "Recreate" if rolling.is_set() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(errors, &rolling),
        _ => {
            let kind = at.at("type");
            let said = json!(kind.str());
            errors.not_supported(&kind.with(&said), &["Recreate", "RollingUpdate"]);
        }
    }
}

fn rolling_update(errors: &mut Errors, at: &At<'_>) {
    let (unavailable, surge) = (at.at("maxUnavailable"), at.at("maxSurge"));
    non_negative_int_or_percent(errors, &unavailable);
    non_negative_int_or_percent(errors, &surge);
    let is_zero = |at: &At<'_>| IntOrPercent::parse(at.value()).is_some_and(IntOrPercent::is_zero);
    if is_zero(&unavailable) && is_zero(&surge) {
        errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    not_more_than_all(errors, &unavailable);
}

fn status(errors: &mut Errors, at: &At<'_>) {
    workload::counts(
        errors,
        at,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ],
    );
    for count in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        workload::not_above(
            errors,
            at,
            count,
            "replicas",
            "cannot be greater than status.replicas",
        );
    }
    workload::not_above(
        errors,
        at,
        "availableReplicas",
        "readyReplicas",
        "cannot be greater than readyReplicas",
    );
}
