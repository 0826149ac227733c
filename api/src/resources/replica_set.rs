//! ReplicaSet: a number of pods that are all alike.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, fill};
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
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "replicasets",
    subresources: &[Subresource::SCALE, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &ReplicaSet,
};

/// The columns of kinds that keep a number of like pods.
pub static COLUMNS: [Column; 8] = [
    NAME,
    table::integer("Desired", "How many pods are wanted."),
    table::integer("Current", "How many pods there are."),
    table::integer("Ready", "How many pods are ready."),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", "Which pods are its own."),
];

#[derive(Debug)]
struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn initial_status(&self) -> Value {
        serde_json::json!({"replicas": 0})
    }

    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        if let Some(spec) = child(root, "spec") {
            fill(spec, "replicas", 1);
            if let Some(template) = child(spec, "template") {
                pod_defaults::template(template);
            }
        }
        labels_from_template(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            non_negative(errors, &spec.at("replicas"));
            non_negative(errors, &spec.at("minReadySeconds"));
            workload::selector_and_template(errors, &spec, "replicaset");
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("selector"), &old.at("selector"));
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| status(errors, &root.at("status")))
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field(&self, object: &Object, path: &str) -> String {
        match path {
            "status.replicas" => object.i64_at("/status/replicas").unwrap_or(0).to_string(),
            _ => String::new(),
        }
    }

    fn scale(&self) -> Option<ScalePointers> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

/// The row of a kind that keeps a number of like pods.
pub fn row(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        object.name().into(),
        table::count(object, "/spec/replicas"),
        table::count(object, "/status/replicas"),
        table::count(object, "/status/readyReplicas"),
        table::age(object, now),
    ];
    cells.extend(workload::wide_cells(object));
    cells
}

/// A set without labels is labelled as its pods are.
pub fn labels_from_template(object: &mut Object) {
    if object.labels().is_empty() {
        let template = object.at("/spec/template").cloned().unwrap_or_default();
        let labels = pod_defaults::template_labels(&template);
        if !labels.is_empty() {
            object.set_meta("labels", labels);
        }
    }
}

/// The counts of the status, and how they bound each other.
pub fn status(errors: &mut Errors, at: &At<'_>) {
    workload::counts(
        errors,
        at,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
    );
    for count in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
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
