//! VolumeAttachment: a volume that is or shall be at a node.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "volumeattachments",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &VolumeAttachment,
};

static COLUMNS: [Column; 6] = [
    NAME,
    table::text("Attacher", "Which driver attaches it."),
    table::text("PV", "Which volume."),
    table::text("Node", "Which node."),
    Column { kind: "boolean", ..table::text("Attached", "Whether it is there.") },
    AGE,
];

#[derive(Debug)]
struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.set_default(&["status"], serde_json::json!({"attached": false}));
    }

    fn initial_status(&self) -> Value {
        serde_json::json!({"attached": false})
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            errors.required_form(&spec.at("attacher"), |text| {
                names::dns1123_subdomain(&text.to_lowercase())
            });
            errors.required_form(&spec.at("nodeName"), names::dns1123_subdomain);
            let source = spec.at("source");
            let (volume, inline) =
                (source.at("persistentVolumeName"), source.at("inlineVolumeSpec"));
            match (volume.is_set(), inline.is_set()) {
                (true, true) => errors.forbidden(
                    &inline,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ),
                (false, false) => errors.required(
                    &source,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ),
                (true, false) if volume.str().is_empty() => {
                    errors.required(&volume, "must specify non empty persistentVolumeName");
                }
                _ => {}
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            errors.immutable(&new.at("spec"), &old.at("spec"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at("/spec/attacher").into(),
            object.str_at("/spec/source/persistentVolumeName").into(),
            object.str_at("/spec/nodeName").into(),
            object.bool_at("/status/attached").into(),
            table::age(object, now),
        ]
    }
}
