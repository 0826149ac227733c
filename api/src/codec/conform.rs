//! Walks a tree along its type: unknown fields go, values must have their type, nulls are dropped.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::kind::go_value;
use super::scalar;
use crate::schema::{Shape, Type};

/// What is left of an object, and the paths of the fields that its type does not know.
#[derive(Debug)]
pub(super) struct Conformed {
    pub(super) map: Map<String, Value>,
    pub(super) unknown: Vec<String>,
}

/// Most unknown fields that are reported.
const UNKNOWN_MAX: usize = 100;

/// Conforms an object to its type; the error is the first mismatch, in Go's words.
pub(super) fn conform(map: Map<String, Value>, schema: &'static Type) -> Result<Conformed, String> {
    let mut walk = Walk { path: String::new(), fields: Vec::new(), unknown: Vec::new() };
    let map = walk.object(map, schema)?;
    Ok(Conformed { map, unknown: walk.unknown })
}

struct Walk {
    /// Where we are, with indexes and keys: how unknown fields are named.
    path: String,
    /// The fields on the way: how Go names a mismatch.
    fields: Vec<&'static str>,
    unknown: Vec<String>,
}

impl Walk {
    fn object(
        &mut self,
        map: Map<String, Value>,
        schema: &'static Type,
    ) -> Result<Map<String, Value>, String> {
        let mut out = Map::new();
        for (key, value) in map {
            let end = self.path.len();
            if end > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if let Some(field) = schema.field(&key) {
                self.fields.push(field.name);
                if let Some(value) = self.value(value, &field.shape, schema)? {
                    out.insert(key, value);
                }
                self.fields.pop();
            } else if schema.kind.is_some() && (key == "apiVersion" || key == "kind") {
                self.type_meta(&key, &value, schema)?;
                out.insert(key, value);
            } else if self.unknown.len() < UNKNOWN_MAX {
                self.unknown.push(self.path.clone());
            }
            self.path.truncate(end);
        }
        Ok(out)
    }

    /// Objects within lists (`items`) name their kind too.
    fn type_meta(&self, key: &str, value: &Value, schema: &Type) -> Result<(), String> {
        if value.is_string() || value.is_null() {
            return Ok(());
        }
        let mut fields = self.fields.join(".");
        if !fields.is_empty() {
            fields.push('.');
        }
        Err(format!(
            "json: cannot unmarshal {} into Go struct field {}.{fields}{key} of type string",
            go_value(value),
            schema.go_name(),
        ))
    }

    /// A value of a shape; nothing for null.
    fn value(
        &mut self,
        value: Value,
        shape: &Shape,
        owner: &'static Type,
    ) -> Result<Option<Value>, String> {
        match (shape, value) {
            (_, Value::Null) => Ok(None),
            (Shape::Message(id), Value::Object(map)) => {
                self.object(map, id.get()).map(|map| Some(Value::Object(map)))
            }
            (Shape::List(inner), Value::Array(list)) => self.list(list, inner, owner).map(Some),
            (Shape::Map(inner), Value::Object(map)) => self.map(map, inner, owner).map(Some),
            (Shape::SchemaOrArray, Value::Array(list)) => {
                self.list(list, &scalar::json_schema(), owner).map(Some)
            }
            (
                Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings,
                value @ Value::Object(_),
            ) => self.value(value, &scalar::json_schema(), owner),
            (shape, value) => match scalar::conform(value, shape) {
                Ok(value) => Ok(Some(value)),
                Err(scalar::Mismatch::Type(found)) => Err(format!(
                    "json: cannot unmarshal {found} into Go struct field {}.{} of type {}",
                    owner.go_name(),
                    self.fields.join("."),
                    shape.go_type()
                )),
                Err(scalar::Mismatch::Other(why)) => Err(why),
            },
        }
    }

    fn list(
        &mut self,
        list: Vec<Value>,
        inner: &Shape,
        owner: &'static Type,
    ) -> Result<Value, String> {
        let mut out = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let end = self.path.len();
            write!(self.path, "[{index}]").expect("a string takes all");
            out.push(self.value(value, inner, owner)?.unwrap_or_else(|| scalar::zero(inner)));
            self.path.truncate(end);
        }
        Ok(Value::Array(out))
    }

    fn map(
        &mut self,
        map: Map<String, Value>,
        inner: &Shape,
        owner: &'static Type,
    ) -> Result<Value, String> {
        let mut out = Map::new();
        for (key, value) in map {
            let end = self.path.len();
            self.path.push('.');
            self.path.push_str(&key);
            let value = self.value(value, inner, owner)?.unwrap_or_else(|| scalar::zero(inner));
            out.insert(key, value);
            self.path.truncate(end);
        }
        Ok(Value::Object(out))
    }
}
