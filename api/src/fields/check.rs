//! Is a configuration of its type? The answers are those of the library that Kubernetes applies
//! with.

use serde_json::Value;

use super::apply::ApplyError;
use super::element::Element;
use super::place::{Atom, Place};
use crate::crd::structural::{Structural, Type};
use crate::object::Object;
use crate::schema::Shape;

/// Refuses a configuration that cannot be applied.
pub fn check(config: &Object, place: Place, api_version: &str) -> Result<(), ApplyError> {
    if config.api_version() != api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: \
             {api_version}",
            config.api_version()
        )));
    }
    if config.at("/metadata/managedFields").is_some_and(|value| !value.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let why = match mistakes(config.value(), place).as_slice() {
        [] => return Ok(()),
        [only] => only.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let (namespace, name) = (config.namespace(), config.name());
    let (group, version) = crate::registry::scheme::split_api_version(config.api_version());
    let kind = config.kind();
    Err(ApplyError::Untyped(format!(
        "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {why}"
    )))
}

/// What of a configuration is not of its type, each with its place.
pub(super) fn mistakes(config: &Value, place: Place) -> Vec<String> {
    let mut walk = Walk { path: String::new(), errors: Vec::new() };
    walk.value(config, place);
    walk.errors
}

/// Most errors that are listed.
const ERRORS_MAX: usize = 20;

struct Walk {
    path: String,
    errors: Vec<String>,
}

impl Walk {
    fn error(&mut self, why: &str) {
        if self.errors.len() < ERRORS_MAX {
            let path = &self.path;
            self.errors.push(if path.is_empty() {
                why.to_owned()
            } else {
                format!("{path}: {why}")
            });
        }
    }

    fn below(&mut self, element: &Element, act: impl FnOnce(&mut Self)) {
        let end = self.path.len();
        self.path += &element.to_string();
        act(self);
        self.path.truncate(end);
    }

    fn value(&mut self, value: &Value, place: Place) {
        match (place.atom(value), value, place) {
            (_, Value::Null, _) => {}
            (Atom::Map, Value::Object(map), _) => {
                for (key, value) in map {
                    self.below(&Element::field(key), |walk| match place.known(key) {
                        Some(child) => walk.value(value, child.place),
                        None => walk.error("field not declared in schema"),
                    });
                }
            }
            (Atom::List, Value::Array(list), _) => self.list(list, place),
            (_, other, Place::Struct(_) | Place::Map(_)) => {
                self.error(&format!("expected map, got {}", unstructured(other)));
            }
            (_, other, Place::Custom(node)) => self.custom(other, node),
            (_, other, Place::List(..)) => {
                self.error(&format!("expected list, got {}", unstructured(other)));
            }
            (_, other, Place::Whole(Some(shape))) => self.whole(other, shape),
            _ => {}
        }
    }

    fn list(&mut self, list: &[Value], place: Place) {
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in (0..).zip(list) {
            match place.identify(item) {
                Err(why) => self.error(&format!("element {index}: {why}")),
                Ok(element) if !seen.insert(element.clone()) => {
                    self.error(&format!("duplicate entries for key {element}"));
                }
                Ok(element) => self.below(&element, |walk| walk.value(item, place.element())),
            }
        }
    }

    /// A value that a schema takes as a map or a list, and that is neither taken apart.
    fn custom(&mut self, value: &Value, node: &Structural) {
        match node.kind {
            Type::Object if !value.is_object() => {
                self.error(&format!("expected map, got {}", unstructured(value)));
            }
            Type::Array if !value.is_array() => {
                self.error(&format!("expected list, got {}", unstructured(value)));
            }
            _ => {}
        }
    }

    /// A value that is owned as a whole, of the shape it must have.
    fn whole(&mut self, value: &Value, shape: &'static Shape) {
        let is_scalar = !value.is_object() && !value.is_array();
        let why = match shape {
            Shape::Int32 | Shape::Int64 | Shape::Double if !value.is_number() => {
                format!("expected numeric (int or float), got {}", go_type(value))
            }
            Shape::Bool if !value.is_boolean() => {
                format!("expected boolean, got {}", unstructured(value))
            }
            Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime if !value.is_string() => {
                format!("expected string, got {}", unstructured(value))
            }
            Shape::Quantity | Shape::IntOrString if !is_scalar => {
                format!("expected any scalar, got {value}")
            }
            Shape::List(_) | Shape::Wrapped if !value.is_array() => {
                format!("expected list, got {}", unstructured(value))
            }
            Shape::Message(_) | Shape::Map(_) if !value.is_object() => {
                format!("expected map, got {}", unstructured(value))
            }
            Shape::Message(id) => return self.value(value, Place::Struct(id.get())),
            Shape::List(inner) => {
                for (index, item) in (0..).zip(value.as_array().into_iter().flatten()) {
                    let place = place_of(inner);
                    self.below(&Element::Index(index), |walk| walk.value(item, place));
                }
                return;
            }
            _ => return,
        };
        self.error(&why);
    }
}

/// The place of an element of a list that is owned as a whole.
fn place_of(shape: &'static Shape) -> Place {
    match shape {
        Shape::Message(id) => Place::Struct(id.get()),
        other => Place::Whole(Some(other)),
    }
}

/// How Go prints a value that a schema does not take.
fn unstructured(value: &Value) -> String {
    match value {
        Value::String(text) => format!("&value.valueUnstructured{{Value:{text:?}}}"),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    }
}

/// The Go type of a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
