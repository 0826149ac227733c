//! DaemonSet: a pod on every node.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, child_or_new, fill, fill_empty, str_of};
use super::pod_spec::defaults as pod_defaults;
use super::workload;
use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
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
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "daemonsets",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &DaemonSet,
};

const REVISION_HISTORY_LIMIT: i64 = 10;
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const COUNTS: [&str; 7] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

static COLUMNS: [Column; 11] = [
    NAME,
    table::integer("Desired", "How many nodes should run its pod."),
    table::integer("Current", "How many nodes run its pod."),
    table::integer("Ready", "How many of its pods are ready."),
    table::integer("Up-to-date", "How many of its pods are of the newest template."),
    table::integer("Available", "How many of its pods have been ready for long enough."),
    table::text("Node Selector", "Which nodes it chooses."),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", "Which pods are its own."),
];

#[derive(Debug)]
struct DaemonSet;

impl Strategy for DaemonSet {
    fn initial_status(&self) -> Value {
        serde_json::json!({
            "currentNumberScheduled": 0,
            "desiredNumberScheduled": 0,
            "numberMisscheduled": 0,
            "numberReady": 0,
        })
    }

    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        let Some(spec) = child(root, "spec") else { return };
        let strategy = child_or_new(spec, "updateStrategy");
        fill_empty(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate" {
            let rolling = child_or_new(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
        fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
        if let Some(template) = child(spec, "template") {
            pod_defaults::template(template);
        }
        super::replica_set::labels_from_template(object);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        self.prepare_update_default(object, old);
        let template = |object: &Object| object.at("/spec/template").cloned();
        let changed = template(object) != template(old);
        set_template_generation(object, template_generation(old).max(1) + i64::from(changed));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            workload::selector_and_template(errors, &spec, "daemonset");
            non_negative(errors, &spec.at("minReadySeconds"));
            non_negative(errors, &spec.at("revisionHistoryLimit"));
            strategy(errors, &spec.at("updateStrategy"));
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("selector"), &old.at("selector"));
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| workload::counts(errors, &root.at("status"), &COUNTS))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![
            object.name().into(),
            table::count(object, "/status/desiredNumberScheduled"),
            table::count(object, "/status/currentNumberScheduled"),
            table::count(object, "/status/numberReady"),
            table::count(object, "/status/updatedNumberScheduled"),
            table::count(object, "/status/numberAvailable"),
            table::labels(object.at("/spec/template/spec/nodeSelector")),
            table::age(object, now),
        ];
        cells.extend(workload::wide_cells(object));
        cells
    }
}

/// The number of the template; it is written where older clients look for it.
fn template_generation(object: &Object) -> i64 {
    object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Object, generation: i64) {
    object.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

fn strategy(errors: &mut Errors, at: &At<'_>) {
    let kind = at.at("type");
    match kind.str() {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(errors, &at.at("rollingUpdate")),
        _ => errors.not_supported(&kind, &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_update(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return errors.required(at, "");
    }
    let (unavailable, surge) = (at.at("maxUnavailable"), at.at("maxSurge"));
    for part in [&unavailable, &surge] {
        non_negative_int_or_percent(errors, part);
        not_more_than_all(errors, part);
    }
    let is_zero = |at: &At<'_>| IntOrPercent::parse(at.value()).is_none_or(IntOrPercent::is_zero);
    match (is_zero(&unavailable), is_zero(&surge)) {
        (true, true) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        (false, false) => {
            errors.invalid(&surge, "may not be set when maxUnavailable is non-zero");
        }
        _ => {}
    }
}
