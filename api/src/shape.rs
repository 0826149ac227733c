//! Objects as a Table for `kubectl get`, or as their metadata alone.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::negotiate::Shape;
use crate::object::Object;
use crate::query::Query;
use crate::registry::options::ObjectList;
use crate::registry::strategy::Kind;
use crate::status::Status;

/// What a row of a Table carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// How the objects of one answer are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shaper {
    kind: &'static Kind,
    shape: Shape,
    include: Include,
    now: Timestamp,
}

impl Shaper {
    /// The shaper of a request.
    pub(crate) fn new(
        kind: &'static Kind,
        shape: Shape,
        query: &Query,
        now: Timestamp,
    ) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: {other:?}"
                )));
            }
        };
        Ok(Self { kind, shape, include, now })
    }

    /// The same at another time: ages in a watch go on.
    #[must_use]
    pub(crate) fn at(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// One object.
    pub(crate) fn object(&self, object: Object) -> Value {
        match self.shape {
            Shape::Object => object.into_value(),
            Shape::Metadata(version) | Shape::MetadataList(version) => partial(&object, version),
            Shape::Table(version) => {
                let metadata = json!({ "resourceVersion": object.resource_version() });
                let rows = vec![self.row(object, version)];
                self.table(version, &metadata, &rows, true)
            }
        }
    }

    /// One object of a watch; a Table has its headings only in the first.
    pub(crate) fn watched(&self, object: Object, is_first: bool) -> Value {
        match self.shape {
            Shape::Table(version) => {
                let metadata = json!({ "resourceVersion": object.resource_version() });
                let rows = vec![self.row(object, version)];
                self.table(version, &metadata, &rows, is_first)
            }
            _ => self.object(object),
        }
    }

    /// A bookmark's object: nothing but a revision.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial: bool, is_first: bool) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if ends_initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        match self.shape {
            Shape::Table(version) => self.table(version, &metadata, &[], is_first),
            Shape::Metadata(version) | Shape::MetadataList(version) => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
            }),
            Shape::Object => json!({
                "kind": self.kind.kind,
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
            }),
        }
    }

    /// A page of objects.
    pub(crate) fn list(&self, list: ObjectList) -> Value {
        let metadata = list_metadata(&list);
        match self.shape {
            Shape::Table(version) => {
                let rows: Vec<Value> =
                    list.items.into_iter().map(|object| self.row(object, version)).collect();
                self.table(version, &metadata, &rows, true)
            }
            Shape::Metadata(version) | Shape::MetadataList(version) => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "items": list.items.iter().map(|o| partial(o, version)).collect::<Vec<_>>(),
            }),
            Shape::Object => json!({
                "kind": format!("{}List", self.kind.kind),
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
                "items": self.items(list.items),
            }),
        }
    }

    /// The items of a list do not repeat their kind, but for those of custom kinds.
    fn items(&self, items: Vec<Object>) -> Vec<Value> {
        let is_custom = self.kind.strategy.definition().is_some();
        let item = if is_custom { Object::into_value } else { without_type };
        items.into_iter().map(item).collect()
    }

    fn table(&self, version: &str, metadata: &Value, rows: &[Value], has_headings: bool) -> Value {
        let columns: Vec<Value> = if has_headings {
            self.kind
                .strategy
                .columns()
                .iter()
                .map(|column| {
                    json!({
                        "name": column.name,
                        "type": column.kind,
                        "format": column.format,
                        "description": column.description,
                        "priority": column.priority,
                    })
                })
                .collect()
        } else {
            Vec::new()
        };
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }

    fn row(&self, object: Object, version: &str) -> Value {
        let cells = self.kind.strategy.row(&object, self.now);
        match self.include {
            Include::None => json!({ "cells": cells }),
            Include::Metadata => json!({ "cells": cells, "object": partial(&object, version) }),
            Include::Object => json!({ "cells": cells, "object": object.into_value() }),
        }
    }
}

/// What is said of a page.
pub(crate) fn list_metadata(list: &ObjectList) -> Value {
    let mut metadata = json!({ "resourceVersion": list.resource_version.to_string() });
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn partial(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.at("/metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

fn without_type(mut object: Object) -> Value {
    object.remove(&["kind"]);
    object.remove(&["apiVersion"]);
    object.into_value()
}
