//! The Swagger 2.0 document as protobuf: the messages of gnostic's `openapi.v2`, which kubectl reads
//! `/openapi/v2` in. Written from the JSON document, so both forms say the same.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// A message being written. Fields that are not there are left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, tag: u32, inner: &Self) {
        self.bytes(tag, &inner.0);
    }

    fn text(&mut self, tag: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten() {
            self.text(tag, text);
        }
    }

    fn flag(&mut self, tag: u32, value: &Value) {
        if value == &Value::Bool(true) {
            encode_key(tag, WireType::Varint, &mut self.0);
            encode_varint(1, &mut self.0);
        }
    }

    /// A `NamedX { name, value }`.
    fn named(&mut self, tag: u32, name: &str, value: &Self) {
        let mut named = Self::default();
        named.bytes(1, name.as_bytes());
        named.message(2, value);
        self.message(tag, &named);
    }

    /// Each `x-…` as a `NamedAny { name, value: Any { 2: yaml } }`. JSON is YAML.
    fn extensions(&mut self, tag: u32, of: &Value) {
        for (name, value) in entries(of).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            any.bytes(2, format!("{value}\n").as_bytes());
            self.named(tag, name, &any);
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The whole document.
pub(super) fn document(value: &Value) -> Vec<u8> {
    let mut document = Message::default();
    document.text(1, &value["swagger"]);
    let mut info = Message::default();
    info.text(1, &value["info"]["title"]);
    info.text(2, &value["info"]["version"]);
    document.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in entries(&value["paths"]) {
        paths.named(2, path, &path_item(item));
    }
    document.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in entries(&value["definitions"]) {
        definitions.named(1, name, &schema(definition));
    }
    document.message(9, &definitions);
    document.0
}

fn path_item(value: &Value) -> Message {
    let mut item = Message::default();
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(found) = value.get(method) {
            item.message(tag, &operation(found));
        }
    }
    parameters(&mut item, 9, value);
    item.extensions(10, value);
    item
}

fn operation(value: &Value) -> Message {
    let mut operation = Message::default();
    operation.texts(1, &value["tags"]);
    operation.text(3, &value["description"]);
    operation.text(5, &value["operationId"]);
    operation.texts(6, &value["produces"]);
    operation.texts(7, &value["consumes"]);
    parameters(&mut operation, 8, value);
    let mut responses = Message::default();
    for (code, found) in entries(&value["responses"]) {
        let mut wrapped = Message::default();
        wrapped.message(1, &response(found));
        responses.named(1, code, &wrapped);
    }
    operation.message(9, &responses);
    operation.extensions(13, value);
    operation
}

fn response(value: &Value) -> Message {
    let mut response = Message::default();
    response.text(1, &value["description"]);
    if let Some(found) = value.get("schema") {
        let mut item = Message::default();
        item.message(1, &schema(found));
        response.message(2, &item);
    }
    response
}

/// `ParametersItem { 1: Parameter { 1: body | 2: NonBodyParameter { 3: query | 4: path } } }`
fn parameters(into: &mut Message, tag: u32, of: &Value) {
    for value in of["parameters"].as_array().into_iter().flatten() {
        let mut parameter = Message::default();
        if value["in"] == "body" {
            parameter.message(1, &body_parameter(value));
        } else {
            let is_path = value["in"] == "path";
            let mut other = Message::default();
            other.message(if is_path { 4 } else { 3 }, &plain_parameter(value, is_path));
            parameter.message(2, &other);
        }
        let mut item = Message::default();
        item.message(1, &parameter);
        into.message(tag, &item);
    }
}

fn body_parameter(value: &Value) -> Message {
    let mut body = Message::default();
    body.text(1, &value["description"]);
    body.text(2, &value["name"]);
    body.text(3, &value["in"]);
    body.flag(4, &value["required"]);
    body.message(5, &schema(&value["schema"]));
    body
}

fn plain_parameter(value: &Value, is_path: bool) -> Message {
    let mut parameter = Message::default();
    parameter.flag(1, &value["required"]);
    parameter.text(2, &value["in"]);
    parameter.text(3, &value["description"]);
    parameter.text(4, &value["name"]);
    parameter.text(if is_path { 5 } else { 6 }, &value["type"]);
    parameter
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    out.texts(19, &value["required"]);
    if let Some(found) = value.get("additionalProperties") {
        let mut item = Message::default();
        match found {
            Value::Bool(_) => item.flag(2, found),
            _ => item.message(1, &schema(found)),
        }
        out.message(21, &item);
    }
    if value["type"].is_string() {
        let mut item = Message::default();
        item.text(1, &value["type"]);
        out.message(22, &item);
    }
    if let Some(found) = value.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(found));
        out.message(23, &item);
    }
    if let Some(found) = value.get("properties") {
        let mut properties = Message::default();
        for (name, property) in entries(found) {
            properties.named(1, name, &schema(property));
        }
        out.message(25, &properties);
    }
    out.extensions(31, value);
    out
}
