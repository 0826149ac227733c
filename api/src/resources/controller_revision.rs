//! ControllerRevision: what a controller's template was at one time.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE};
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "controllerrevisions",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &ControllerRevision,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Controller", "Controller of the object"),
    table::integer("Revision", "Which of its controller's revisions it is."),
    AGE,
];

#[derive(Debug)]
struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let data = root.at("data");
            if !data.is_set() {
                errors.required(&data, "data is mandatory");
            }
            non_negative(errors, &root.at("revision"));
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            errors.immutable(&new.at("data"), &old.at("data"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let controller = object.controller_ref().map_or(NONE.to_owned(), |owner| {
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        vec![
            object.name().into(),
            controller.into(),
            table::count(object, "/revision"),
            table::age(object, now),
        ]
    }
}
