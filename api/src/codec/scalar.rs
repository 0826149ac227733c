//! Single values: checked, and put into their canonical form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::kind::go_value;
use crate::quantity::Quantity;
use crate::schema::{Shape, Type};

/// Why a value is none of its shape.
#[derive(Debug)]
pub(super) enum Mismatch {
    /// It is of another type: how Go names what was found.
    Type(String),
    /// It is wrong in itself; the whole text.
    Other(String),
}

/// Checks a value that is not null.
pub(super) fn conform(value: Value, shape: &Shape) -> Result<Value, Mismatch> {
    match (shape, &value) {
        (Shape::String, Value::String(_))
        | (Shape::Bool | Shape::SchemaOrBool, Value::Bool(_))
        | (Shape::Double, Value::Number(_))
        | (Shape::Raw, _)
        | (Shape::FieldsV1, Value::Object(_)) => Ok(value),
        (Shape::Int32, Value::Number(number)) => match number.as_i64().map(i32::try_from) {
            Some(Ok(_)) => Ok(value),
            _ => Err(Mismatch::Type(format!("number {number}"))),
        },
        (Shape::Int64, Value::Number(number)) => match number.as_i64() {
            Some(_) => Ok(value),
            None => Err(Mismatch::Type(format!("number {number}"))),
        },
        (Shape::Bytes, Value::String(text)) => bytes(text),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => time(text, shape),
        (Shape::Quantity, Value::String(text)) => quantity(text),
        (Shape::Quantity, Value::Number(number)) => quantity(&number.to_string()),
        (Shape::IntOrString, _) => int_or_string(value),
        (Shape::Wrapped | Shape::SchemaOrStrings, Value::Array(list)) => {
            match list.iter().find(|v| !v.is_string()) {
                None => Ok(value),
                Some(other) => Err(Mismatch::Type(go_value(other))),
            }
        }
        (Shape::Time | Shape::MicroTime, _) => Err(Mismatch::Other(format!(
            "json: cannot unmarshal {} into Go value of type string",
            go_value(&value)
        ))),
        _ => Err(Mismatch::Type(go_value(&value))),
    }
}

/// What Go has where JSON has null within a list or a map.
pub(super) fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Quantity => Value::from("0"),
        Shape::Message(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) | Shape::Wrapped => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

/// The shape of a JSON schema within a custom resource definition.
pub(super) fn json_schema() -> Shape {
    let name = "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    Shape::Message(Type::id_of(name).expect("the table must have JSON schemas"))
}

fn bytes(text: &str) -> Result<Value, Mismatch> {
    // Go's decoder skips line breaks.
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&plain) {
        Ok(_) => Ok(Value::String(plain)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => at,
                _ => plain.len(),
            };
            Err(Mismatch::Other(format!("illegal base64 data at input byte {at}")))
        }
    }
}

fn time(text: &str, shape: &Shape) -> Result<Value, Mismatch> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time_text(time, shape)),
        Err(_) => Err(Mismatch::Other(format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \
             \"2006\""
        ))),
    }
}

/// A time in the form of its shape: whole seconds, or microseconds.
pub(super) fn time_text(time: Timestamp, shape: &Shape) -> Value {
    let form = match shape {
        Shape::MicroTime => "%Y-%m-%dT%H:%M:%S.%6fZ",
        _ => "%Y-%m-%dT%H:%M:%SZ",
    };
    Value::String(time.strftime(form).to_string())
}

fn quantity(text: &str) -> Result<Value, Mismatch> {
    match text.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::String(quantity.to_string())),
        Err(error) => Err(Mismatch::Other(error.to_string())),
    }
}

fn int_or_string(value: Value) -> Result<Value, Mismatch> {
    let found = match &value {
        Value::String(_) => return Ok(value),
        Value::Number(number) => match number.as_i64().map(i32::try_from) {
            Some(Ok(_)) => return Ok(value),
            _ => format!("number {number}"),
        },
        other => go_value(other),
    };
    Err(Mismatch::Other(format!("json: cannot unmarshal {found} into Go value of type int32")))
}
