//! CSINode: which drivers of volumes a node has.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::labels::label_name;
use crate::validation::names;
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "csinodes",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &CsiNode,
};

const NODE_ID_MAX_BYTES: usize = 192;

static COLUMNS: [Column; 3] = [NAME, table::integer("Drivers", "How many drivers it has."), AGE];

#[derive(Debug)]
struct CsiNode;

impl Strategy for CsiNode {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let mut seen = BTreeSet::new();
            for driver in spec.at("drivers").items() {
                let (name, id) = (driver.at("name"), driver.at("nodeID"));
                errors.required_form(&name, |text| names::dns1123_subdomain(&text.to_lowercase()));
                if !seen.insert(name.str().to_owned()) {
                    errors.duplicate(&name);
                }
                if id.str().is_empty() {
                    errors.required(&id, "");
                } else if id.len() > NODE_ID_MAX_BYTES {
                    let sentence = format!("must be {NODE_ID_MAX_BYTES} characters or less");
                    errors.invalid(&id, sentence);
                }
                non_negative(errors, &driver.at("allocatable").at("count"));
                for key in driver.at("topologyKeys").items() {
                    label_name(errors, &key);
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let drivers = object.at("/spec/drivers").and_then(Value::as_array).map_or(0, Vec::len);
        vec![object.name().into(), drivers.into(), table::age(object, now)]
    }
}
