//! StorageClass: where volumes come from when they are asked for.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::errors::same;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "storageclasses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &StorageClass,
};

const DEFAULT_MARK: &str = "storageclass.kubernetes.io/is-default-class";
const FROZEN: &str = "updates to parameters are forbidden.";

static COLUMNS: [Column; 6] = [
    NAME,
    table::text("Provisioner", "What makes its volumes."),
    table::text("ReclaimPolicy", "What becomes of its volumes."),
    table::text("VolumeBindingMode", "When its volumes are made."),
    Column {
        kind: "boolean",
        ..table::text("AllowVolumeExpansion", "Whether its volumes can grow.")
    },
    AGE,
];

#[derive(Debug)]
struct StorageClass;

impl Strategy for StorageClass {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.set_default(&["reclaimPolicy"], "Delete");
        object.set_default(&["volumeBindingMode"], "Immediate");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            errors.required_form(&root.at("provisioner"), |name| {
                names::qualified_name(&name.to_lowercase())
            });
            errors.optional_one_of(&root.at("reclaimPolicy"), &["Delete", "Retain"]);
            let mode = root.at("volumeBindingMode");
            errors.one_of(&mode, &["Immediate", "WaitForFirstConsumer"]);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let changed = |field: &str| !same(new.at(field).value(), old.at(field).value());
            if changed("parameters") {
                errors.forbidden(&new.at("parameters"), FROZEN);
            }
            if changed("provisioner") {
                errors.forbidden(&new.at("provisioner"), "updates to provisioner are forbidden.");
            }
            if changed("reclaimPolicy") {
                let sentence = "updates to reclaimPolicy are forbidden.";
                errors.forbidden(&new.at("reclaimPolicy"), sentence);
            }
            errors.immutable(&new.at("volumeBindingMode"), &old.at("volumeBindingMode"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let is_default = object.annotation(DEFAULT_MARK) == Some("true");
        let name = object.name();
        let name = if is_default { format!("{name} (default)") } else { name.to_owned() };
        vec![
            name.into(),
            object.str_at("/provisioner").into(),
            object.str_at("/reclaimPolicy").into(),
            object.str_at("/volumeBindingMode").into(),
            object.bool_at("/allowVolumeExpansion").into(),
            table::age(object, now),
        ]
    }
}
