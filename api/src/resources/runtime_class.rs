//! RuntimeClass: which runtime runs a pod.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, resource_list};
use super::pod_spec::tolerations;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::labels::labels;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "runtimeclasses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &RuntimeClass,
};

static COLUMNS: [Column; 3] = [NAME, table::text("Handler", "What the runtime calls it."), AGE];

#[derive(Debug)]
struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        if let Some(overhead) = child(object.value_mut(), "overhead") {
            resource_list(child(overhead, "podFixed"));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let handler = root.at("handler");
            errors.invalid_each(&handler, names::dns1123_label(handler.str()));
            let scheduling = root.at("scheduling");
            labels(errors, &scheduling.at("nodeSelector"));
            tolerations::validate(errors, &scheduling.at("tolerations"));
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            errors.immutable(&new.at("handler"), &old.at("handler"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.str_at("/handler").into(), table::age(object, now)]
    }
}
