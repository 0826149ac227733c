//! VolumeAttributesClass and CSIStorageCapacity: what drivers of volumes offer.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change, defaults};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::errors::same;
use crate::validation::labels::label_selector;
use crate::validation::names;
use crate::validation::numbers::non_negative_quantity;

/// The kind of the attributes that a volume can change to.
pub static ATTRIBUTES_CLASS: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "volumeattributesclasses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &AttributesClass,
};

/// The kind of what a driver has left.
pub static CAPACITY: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "csistoragecapacities",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Capacity,
};

static CLASS_COLUMNS: [Column; 3] =
    [NAME, table::text("DriverName", "Whose attributes they are."), AGE];
static CAPACITY_COLUMNS: [Column; 4] = [
    NAME,
    table::text("StorageClassName", "Of which class."),
    table::text("Capacity", "How much is left."),
    AGE,
];

#[derive(Debug)]
struct AttributesClass;

impl Strategy for AttributesClass {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let driver = root.at("driverName");
            errors.required_form(&driver, |name| names::dns1123_subdomain(&name.to_lowercase()));
            if root.at("parameters").is_empty() {
                errors.required(&root.at("parameters"), "must contain at least one key/value pair");
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            for (field, why) in [
                ("driverName", "updates to driverName are forbidden."),
                ("parameters", "updates to parameters are forbidden."),
            ] {
                if !same(new.at(field).value(), old.at(field).value()) {
                    errors.forbidden(&new.at(field), why);
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &CLASS_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.str_at("/driverName").into(), table::age(object, now)]
    }
}

#[derive(Debug)]
struct Capacity;

impl Strategy for Capacity {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        for field in ["capacity", "maximumVolumeSize"] {
            defaults::quantity(object.value_mut(), field);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            errors.required_form(&root.at("storageClassName"), names::dns1123_subdomain);
            label_selector(errors, &root.at("nodeTopology"));
            for field in ["capacity", "maximumVolumeSize"] {
                let amount = root.at(field);
                if amount.is_set() {
                    non_negative_quantity(errors, &amount);
                }
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            for field in ["nodeTopology", "storageClassName"] {
                errors.immutable(&new.at(field), &old.at(field));
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &CAPACITY_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at("/storageClassName").into(),
            object.str_at("/capacity").into(),
            table::age(object, now),
        ]
    }
}
