//! JSON objects to messages, by the table: the way back of `read`. What has the wrong type is left
//! out: objects come from the registry, where each was conformed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{put_bytes, put_double, put_varint};
use crate::codec::scalar;
use crate::schema::{Shape, Type};

/// Appends the fields of an object.
pub(super) fn message(map: &Map<String, Value>, schema: &'static Type, out: &mut Vec<u8>) {
    for field in schema.own_fields() {
        if let Some(value) = map.get(field.name) {
            put(field.tag, &field.shape, value, out);
        }
    }
    for (tag, inlined) in &schema.inlined {
        let mut inner = Vec::new();
        message(map, inlined.get(), &mut inner);
        put_bytes(*tag, &inner, out);
    }
}

fn put(tag: u32, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::List(inner), Value::Array(list)) => {
            for value in list {
                put(tag, inner, value, out);
            }
        }
        (Shape::Map(inner), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(1, key.as_bytes(), &mut entry);
                put(2, inner, value, &mut entry);
                put_bytes(tag, &entry, out);
            }
        }
        (Shape::Int32 | Shape::Int64, Value::Number(number)) => {
            put_varint(tag, number.as_i64().unwrap_or_default(), out);
        }
        (Shape::Bool, Value::Bool(value)) => put_varint(tag, i64::from(*value), out),
        (Shape::Double, Value::Number(number)) => {
            put_double(tag, number.as_f64().unwrap_or_default(), out);
        }
        (Shape::String, Value::String(text)) => put_bytes(tag, text.as_bytes(), out),
        (Shape::Bytes, Value::String(text)) => {
            put_bytes(tag, &STANDARD.decode(text).unwrap_or_default(), out);
        }
        (_, Value::Null) => {}
        (shape, value) => {
            let mut inner = Vec::new();
            put_message(shape, value, &mut inner);
            put_bytes(tag, &inner, out);
        }
    }
}

fn put_message(shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::Message(id), Value::Object(map)) => message(map, id.get(), out),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => time(text, out),
        (Shape::Quantity, Value::String(text)) => put_bytes(1, text.as_bytes(), out),
        (Shape::IntOrString, Value::String(text)) => {
            put_varint(1, 1, out);
            put_varint(2, 0, out);
            put_bytes(3, text.as_bytes(), out);
        }
        (Shape::IntOrString, Value::Number(number)) => {
            put_varint(1, 0, out);
            put_varint(2, number.as_i64().unwrap_or_default(), out);
            put_bytes(3, b"", out);
        }
        (Shape::Raw | Shape::FieldsV1, value) => put_bytes(1, value.to_string().as_bytes(), out),
        (Shape::Wrapped, Value::Array(_)) => {
            put(1, &Shape::List(Box::new(Shape::String)), value, out);
        }
        (Shape::SchemaOrBool, Value::Bool(allows)) => put_varint(1, i64::from(*allows), out),
        (Shape::SchemaOrBool, Value::Object(_)) => {
            put_varint(1, 1, out);
            put(2, &scalar::json_schema(), value, out);
        }
        (Shape::SchemaOrArray | Shape::SchemaOrStrings, Value::Object(_)) => {
            put(1, &scalar::json_schema(), value, out);
        }
        (Shape::SchemaOrArray, Value::Array(_)) => {
            put(2, &Shape::List(Box::new(scalar::json_schema())), value, out);
        }
        (Shape::SchemaOrStrings, Value::Array(_)) => {
            put(2, &Shape::List(Box::new(Shape::String)), value, out);
        }
        _ => {}
    }
}

fn time(text: &str, out: &mut Vec<u8>) {
    if let Ok(time) = text.parse::<Timestamp>() {
        // Go wants nanoseconds that count forward, also before 1970.
        let nanos = time.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        put_varint(1, i64::try_from(seconds).unwrap_or_default(), out);
        put_varint(2, i64::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(), out);
    }
}
