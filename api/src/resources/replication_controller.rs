//! ReplicationController: what a ReplicaSet was before there were selectors.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use super::defaults::{child, fill, put};
use super::pod_spec::defaults as pod_defaults;
use super::replica_set::{self, COLUMNS, labels_from_template};
use super::workload::{self, SCALE};
use crate::object::Object;
use crate::registry::strategy::{
    ALL_VERBS, Column, Kind, ScalePointers, Scope, Strategy, Subresource,
};
use crate::status::FieldError;
use crate::validation::numbers::non_negative;

/// The kind. Its folder is called as in etcd.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "controllers",
    subresources: &[Subresource::SCALE, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &ReplicationController,
};

#[derive(Debug)]
struct ReplicationController;

impl Strategy for ReplicationController {
    fn initial_status(&self) -> Value {
        serde_json::json!({"replicas": 0})
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "replicas", 1);
        let mut labels = serde_json::Map::new();
        if let Some(template) = child(spec, "template") {
            pod_defaults::template(template);
            labels = pod_defaults::template_labels(template);
        }
        let is_open =
            spec.get("selector").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
        if is_open && !labels.is_empty() {
            put(spec, "selector", labels);
        }
        labels_from_template(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            non_negative(errors, &spec.at("minReadySeconds"));
            let selector = spec.at("selector");
            if selector.is_empty() {
                errors.required(&selector, "");
            }
            non_negative(errors, &spec.at("replicas"));
            // The selector is a plain map: the rules of templates take the structured form.
            let structured = serde_json::json!({"matchLabels": selector.value()});
            let template = spec.at("template");
            if template.is_set() {
                let selector = selector.with(&structured);
                workload::template_matches(errors, &selector, &template);
            }
            super::pod_spec::validate::template(errors, &template);
            let pod = template.at("spec");
            let policy = pod.at("restartPolicy");
            if !["", "Always"].contains(&policy.str()) {
                errors.not_supported(&policy, &["Always"]);
            }
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| replica_set::status(errors, &root.at("status")))
    }

    fn orphans_by_default(&self) -> bool {
        true
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
        replica_set::row(object, now)
    }
}
