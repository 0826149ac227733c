//! Label and field selectors: their text, and what they select.

mod fields;
mod labels;

pub use fields::FieldSelector;
pub use labels::{LabelSelector, Operator, Requirement};

use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::status::Status;

/// What a list or a watch selects among the objects of a kind.
#[derive(Debug, Clone)]
pub struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads both selectors; a wrong one is a bad request.
    pub fn parse(kind: &'static Kind, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels).map_err(|error| {
            Status::bad_request(format!("unable to parse requirement: {error}"))
        })?;
        let fields = FieldSelector::parse(fields).map_err(Status::bad_request)?;
        for path in fields.paths() {
            let known = path == "metadata.name"
                || (path == "metadata.namespace" && kind.is_namespaced())
                || kind.strategy.selectable().contains(&path);
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {path}")));
            }
        }
        Ok(Self { kind, labels, fields })
    }

    /// The kind of the objects.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that is selected, where the field selector says so.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.required("metadata.name").filter(|name| !name.is_empty())
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches(|key| object.label(key))
            && self.fields.matches(|path| match path {
                "metadata.name" => object.name().to_owned(),
                "metadata.namespace" => object.namespace().to_owned(),
                _ => self.kind.strategy.field(object, path),
            })
    }
}
