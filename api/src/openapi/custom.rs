//! The schemas of custom kinds: as their definitions have them, with what every resource has.

use serde_json::{Map, Value, json};

use super::Style;
use super::schemas::{group_version_kind, meta_name};
use crate::crd::version::Version;
use crate::registry::strategy::Kind;
use crate::schema::Gvk;

/// The OpenAPI name of a custom kind: `com.example.v1.Widget`.
pub(super) fn name(kind: &Kind, of: &str) -> String {
    let group: Vec<&str> = kind.group.split('.').rev().collect();
    format!("{}.{}.{of}", group.join("."), kind.version)
}

/// The schemas of a kind's objects and of their lists, each with its name. `typed` describes
/// `apiVersion` and `kind`.
pub(super) fn schemas(
    kind: &Kind,
    version: &Version,
    typed: &Map<String, Value>,
    style: Style,
) -> [(String, Value); 2] {
    let mut object = version.source.clone();
    resource(&mut object, typed, style);
    let own = name(kind, kind.kind);
    mark(&mut object, kind, kind.kind);
    let mut list = json!({
        "description": format!("{} is a list of {}", version.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "metadata": described(
                style,
                "ListMeta",
                "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/\
                 sig-architecture/api-conventions.md#types-kinds",
            ),
            "items": {
                "description": format!("List of {}.", kind.plural),
                "type": "array",
                "items": style.reference(&own),
            },
        },
    });
    if let Some(properties) = list["properties"].as_object_mut() {
        properties.extend(typed.clone());
    }
    mark(&mut list, kind, &version.list_kind);
    [(own, object), (name(kind, &version.list_kind), list)]
}

fn mark(schema: &mut Value, kind: &Kind, name: &str) {
    let gvk = group_version_kind(Gvk::new(kind.group, kind.version, name));
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
}

/// A reference to a type of meta/v1 with a description beside it.
fn described(style: Style, name: &str, description: &str) -> Value {
    let reference = style.reference(&meta_name(name));
    match style {
        Style::V2 => json!({ "description": description, "$ref": reference["$ref"] }),
        Style::V3 => json!({ "description": description, "allOf": [reference] }),
    }
}

/// A schema of objects that have a type and metadata without saying so.
fn resource(schema: &mut Value, typed: &Map<String, Value>, style: Style) {
    node(schema, typed, style);
    let Some(map) = schema.as_object_mut() else { return };
    let is_shown = style == Style::V3 || map.contains_key("properties") || map.contains_key("type");
    if !is_shown {
        return;
    }
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    let Some(properties) = properties.as_object_mut() else { return };
    properties.extend(typed.clone());
    let about = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/\
                 devel/sig-architecture/api-conventions.md#metadata";
    properties.insert("metadata".to_owned(), described(style, "ObjectMeta", about));
}

fn node(schema: &mut Value, typed: &Map<String, Value>, style: Style) {
    if style == Style::V2 {
        simplify(schema);
    }
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|field| below(field, typed, style));
    }
    for field in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(field).filter(|schema| schema.is_object()) {
            below(schema, typed, style);
        }
    }
}

fn below(schema: &mut Value, typed: &Map<String, Value>, style: Style) {
    if schema["x-kubernetes-embedded-resource"] == true {
        resource(schema, typed, style);
    } else {
        node(schema, typed, style);
    }
}

/// Clients of the old form check what they send by it, and do not know what it cannot say: of such
/// values they are told nothing.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for unknown in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.remove(unknown);
    }
    let is_nullable = map.remove("nullable") == Some(Value::Bool(true));
    let is = |field: &str| map.get(field) == Some(&Value::Bool(true));
    let preserves = is("x-kubernetes-preserve-unknown-fields");
    if is_nullable || is("x-kubernetes-int-or-string") || preserves {
        for told in ["type", "items", "properties", "additionalProperties", "required"] {
            map.remove(told);
        }
    }
}
