//! ComponentStatus: how the parts of the control plane are. Looked at when asked, not stored.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::{Column, Kind, Scope, Strategy};
use crate::request_info::Verb;
use crate::table::{self, NAME};

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "",
    subresources: &[],
    verbs: &[Verb::Get, Verb::List],
    strategy: &ComponentStatus,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Status", "Whether the component is healthy."),
    table::text("Message", "What it says."),
    table::text("Error", "What is wrong with it."),
];

#[derive(Debug)]
struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        vec!["v1 ComponentStatus is deprecated in v1.19+".to_owned()]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let text = |field: &str| object.str_at(&format!("/conditions/0/{field}")).to_owned();
        let status = match text("status").as_str() {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        let name = object.name().into();
        vec![name, status.into(), text("message").into(), text("error").into()]
    }
}
