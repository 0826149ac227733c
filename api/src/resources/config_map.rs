//! ConfigMap: configuration that pods read.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "configmaps",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &ConfigMap,
};

/// The most bytes that the data of a ConfigMap or a Secret may have.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

static COLUMNS: [Column; 3] = [NAME, table::text("Data", "How many entries there are."), AGE];

#[derive(Debug)]
struct ConfigMap;

impl Strategy for ConfigMap {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let (data, binary) = (root.at("data"), root.at("binaryData"));
            let mut size = 0;
            for (key, value) in data.entries() {
                invalid_key(errors, &value, key);
                if binary.key(key).is_set() {
                    errors.invalid_value(&value, key, "duplicate of key present in binaryData");
                }
                size += value.len();
            }
            for (key, value) in binary.entries() {
                invalid_key(errors, &value, key);
                size += decoded_len(value.str());
            }
            if size > DATA_MAX_BYTES {
                errors.too_long(root, DATA_MAX_BYTES);
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            validate_frozen(errors, new, old, &["data", "binaryData"]);
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let entries =
            |pointer: &str| object.at(pointer).and_then(Value::as_object).map_or(0, Map::len);
        let count = entries("/data") + entries("/binaryData");
        vec![object.name().into(), count.into(), table::age(object, now)]
    }
}

/// A key that cannot be a file's name.
pub fn invalid_key(errors: &mut Errors, at: &At<'_>, key: &str) {
    for problem in names::config_key(key) {
        errors.invalid_value(at, key, problem);
    }
}

/// How many bytes a base64 text stands for.
pub fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// What was made immutable stays so, with its data.
pub fn validate_frozen(errors: &mut Errors, new: &At<'_>, old: &At<'_>, fields: &[&str]) {
    if !old.at("immutable").is_true() {
        return;
    }
    if !new.at("immutable").is_true() {
        errors.forbidden(&new.at("immutable"), FROZEN);
    }
    for field in fields {
        if !same(new.at(field).value(), old.at(field).value()) {
            errors.forbidden(&new.at(field), FROZEN);
        }
    }
}
