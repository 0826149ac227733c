//! PersistentVolumeClaim: storage that a pod asks for.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, fill_empty, quantity_of, resource_list};
use super::persistent_volume::{access_modes, mode, phase, short_modes};
use super::pod_spec::defaults::claim_spec;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::errors::same;
use crate::validation::labels::label_selector;
use crate::validation::names;
use crate::validation::numbers::quantity;

/// The name by which claims said their class before there was a field for it.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "persistentvolumeclaims",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &PersistentVolumeClaim,
};

static COLUMNS: [Column; 9] = [
    NAME,
    table::text("Status", "Whether it has a volume."),
    table::text("Volume", "Its volume."),
    table::text("Capacity", "How much its volume holds."),
    table::text("Access Modes", "How its volume can be mounted."),
    table::text("StorageClass", "StorageClass of the pvc"),
    table::text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    table::wide("VolumeMode", "Whether it is a file system or a block device."),
];

#[derive(Debug)]
struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.set_default(&["status"], json!({}));
        let root = object.value_mut();
        if let Some(status) = child(root, "status") {
            fill_empty(status, "phase", "Pending");
            resource_list(child(status, "capacity"));
        }
        if let Some(spec) = child(root, "spec") {
            claim_spec(spec);
        }
    }

    fn initial_status(&self) -> Value {
        json!({"phase": "Pending"})
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let modes = spec.at("accessModes");
            access_modes(errors, &modes, "at least 1 access mode is required");
            let selector = spec.at("selector");
            if selector.is_set() {
                label_selector(errors, &selector);
            }
            let resources = spec.at("resources");
            let (requests, reported) = (resources.at("requests"), resources.key("storage"));
            let storage = requests.key("storage");
            if storage.is_set() {
                let reported = reported.with(storage.value());
                let amount = quantity(errors, &reported);
                if amount.is_some_and(|amount| amount.is_zero() || amount.is_negative()) {
                    errors.invalid(&reported, "must be greater than zero");
                }
            } else {
                errors.required(&reported, "");
            }
            errors.optional_form(&spec.at("storageClassName"), names::dns1123_subdomain);
            errors.optional_one_of(&spec.at("volumeMode"), &["Block", "Filesystem"]);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let bound = object.str_at("/status/phase") == "Bound";
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            let mut rest = new.value().clone();
            if old.at("volumeName").str().is_empty() {
                put_back(&mut rest, old.value(), "volumeName");
            }
            // Who said nothing of a class may be given the default one later on.
            if old.value()["storageClassName"].is_null() && object.annotation(BETA_CLASS).is_none()
            {
                put_back(&mut rest, old.value(), "storageClassName");
            }
            if bound {
                put_back(&mut rest, old.value(), "resources");
                put_back(&mut rest, old.value(), "volumeAttributesClassName");
            }
            if !same(&rest, old.value()) {
                errors.forbidden(
                    &new,
                    "spec is immutable after creation except resources.requests and \
                     volumeAttributesClassName for bound claims",
                );
            }
            let asked =
                |spec: &Value| spec.pointer("/resources/requests/storage").and_then(quantity_of);
            if asked(new.value()) < asked(old.value()) {
                let (resources, requests) = (new.at("resources"), "requests");
                let requests = resources.at(requests);
                let storage = requests.at("storage");
                errors.forbidden(&storage, "field can not be less than status.capacity");
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let volume = object.str_at("/spec/volumeName");
        let class = object.str_at("/spec/volumeAttributesClassName");
        let capacity =
            if volume.is_empty() { "" } else { object.str_at("/status/capacity/storage") };
        let modes = object.at("/status/accessModes").filter(|_| !volume.is_empty());
        vec![
            object.name().into(),
            phase(object).into(),
            volume.into(),
            capacity.into(),
            short_modes(modes).into(),
            object.str_at("/spec/storageClassName").into(),
            if class.is_empty() { "<unset>".into() } else { class.into() },
            table::age(object, now),
            mode(object).into(),
        ]
    }
}

fn put_back(spec: &mut Value, old: &Value, field: &str) {
    let Some(spec) = spec.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => spec.insert(field.to_owned(), value.clone()),
        None => spec.remove(field),
    };
}
