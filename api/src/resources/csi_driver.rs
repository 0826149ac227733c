//! CSIDriver: what a driver of volumes can do.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, fill, put};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "csidrivers",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &CsiDriver,
};

const NAME_MAX_BYTES: usize = 63;

const fn flag(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..table::text(name, description) }
}

static COLUMNS: [Column; 8] = [
    NAME,
    flag("AttachRequired", "Whether volumes are attached before they are mounted."),
    flag("PodInfoOnMount", "Whether it is told which pod mounts."),
    flag("StorageCapacity", "Whether it says how much it holds."),
    table::text("TokenRequests", "For whom it asks tokens of pods."),
    flag("RequiresRepublish", "Whether it is asked again and again."),
    table::text("Modes", "How its volumes live."),
    AGE,
];

#[derive(Debug)]
struct CsiDriver;

impl Strategy for CsiDriver {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "attachRequired", true);
        fill(spec, "podInfoOnMount", false);
        fill(spec, "storageCapacity", false);
        fill(spec, "requiresRepublish", false);
        fill(spec, "seLinuxMount", false);
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        let modes = spec.get("volumeLifecycleModes").and_then(Value::as_array);
        if modes.is_none_or(Vec::is_empty) {
            put(spec, "volumeLifecycleModes", vec!["Persistent"]);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let (metadata, spec) = (root.at("metadata"), root.at("spec"));
            let name = metadata.at("name");
            if name.len() > NAME_MAX_BYTES {
                errors.too_long(&name, NAME_MAX_BYTES);
            }
            let lower = name.str().to_lowercase();
            errors.invalid_each(&name, names::dns1123_subdomain(&lower));
            for mode in spec.at("volumeLifecycleModes").items() {
                errors.optional_one_of(&mode, &["Ephemeral", "Persistent"]);
            }
            let policy = spec.at("fsGroupPolicy");
            errors.optional_one_of(&policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            for field in ["attachRequired", "volumeLifecycleModes"] {
                errors.immutable(&new.at(field), &old.at(field));
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let flag = |field: &str| Value::from(object.bool_at(&format!("/spec/{field}")));
        let list =
            |pointer: &str| object.at(pointer).and_then(Value::as_array).into_iter().flatten();
        let audiences: Vec<&str> = list("/spec/tokenRequests")
            .filter_map(|token| token.get("audience")?.as_str())
            .collect();
        let modes: Vec<&str> =
            list("/spec/volumeLifecycleModes").filter_map(Value::as_str).collect();
        let audiences = audiences.join(",");
        vec![
            object.name().into(),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            if audiences.is_empty() { "<unset>".into() } else { audiences.into() },
            flag("requiresRepublish"),
            modes.join(",").into(),
            table::age(object, now),
        ]
    }
}
