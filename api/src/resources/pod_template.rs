//! PodTemplate: a template of pods on its own.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use super::defaults::child;
use super::pod_spec::{defaults, validate};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, NAME};

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "podtemplates",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &PodTemplate,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Containers", "Names of each container in the template."),
    table::text("Images", "Images referenced by each container in the template."),
    table::text("Pod Labels", "The labels for the pod template."),
];

#[derive(Debug)]
struct PodTemplate;

impl Strategy for PodTemplate {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        if let Some(template) = child(object.value_mut(), "template") {
            defaults::template(template);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| validate::template(errors, &root.at("template")))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let [names, images] = table::containers(object.at("/template/spec/containers"));
        let labels = table::labels(object.at("/template/metadata/labels"));
        vec![object.name().into(), names, images, labels]
    }
}
