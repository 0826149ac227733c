//! Messages to JSON objects, by the table.
//!
//! Go writes every field that is not a pointer, also when it is zero, and leaves such zeros out of
//! JSON. So does this: an optional scalar that is zero and no pointer is nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{self, Wire, WireError};
use crate::codec::scalar;
use crate::schema::{Field, Gvk, Shape, Type};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 100;

/// Adds the fields of a message to an object.
pub(super) fn message(
    bytes: &[u8],
    schema: &'static Type,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::Depth);
    }
    for record in wire::records(bytes) {
        let (tag, value) = record?;
        if let Some(field) = schema.own_fields().iter().find(|f| f.tag == tag) {
            add(field, value, into, depth)?;
        } else if let Some((_, inlined)) = schema.inlined.iter().find(|(t, _)| *t == tag)
            && let Wire::Bytes(bytes) = value
        {
            message(bytes, inlined.get(), into, depth + 1)?;
        }
    }
    Ok(())
}

fn add(
    field: &'static Field,
    value: Wire<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    match (&field.shape, value) {
        (Shape::List(inner), value) => {
            let slot = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = slot else { return Err(WireError::WrongType(field.name)) };
            element(field, inner, value, list, depth)
        }
        (Shape::Map(inner), Wire::Bytes(entry)) => {
            let slot = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = slot else { return Err(WireError::WrongType(field.name)) };
            map_entry(field, inner, entry, map, depth)
        }
        (Shape::Message(id), Wire::Bytes(bytes)) => {
            let slot = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = slot else { return Err(WireError::WrongType(field.name)) };
            message(bytes, id.get(), map, depth + 1)
        }
        (shape, value) => {
            let read = single(field, shape, value, depth)?;
            let nothing = read.is_null()
                || (!field.required && !field.pointer && is_zero(&read))
                || (matches!(shape, Shape::Quantity) && read == "");
            if nothing {
                into.remove(field.name);
            } else {
                into.insert(field.name.to_owned(), read);
            }
            Ok(())
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn element(
    field: &'static Field,
    inner: &Shape,
    value: Wire<'_>,
    list: &mut Vec<Value>,
    depth: usize,
) -> Result<(), WireError> {
    match (inner, value) {
        // Packed integers.
        (Shape::Int32 | Shape::Int64, Wire::Bytes(mut packed)) => {
            while !packed.is_empty() {
                let number = prost::encoding::decode_varint(&mut packed)?;
                list.push(Value::from(number.cast_signed()));
            }
        }
        (inner, value) => list.push(single(field, inner, value, depth)?),
    }
    Ok(())
}

fn map_entry(
    field: &'static Field,
    inner: &Shape,
    entry: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    let (mut key, mut value) = (String::new(), None);
    for record in wire::records(entry) {
        match record? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, found) => value = Some(single(field, inner, found, depth)?),
            _ => {}
        }
    }
    map.insert(key, value.unwrap_or_else(|| scalar::zero(inner)));
    Ok(())
}

/// A value that stands alone, in a list or in a map; null for nothing.
fn single(
    field: &'static Field,
    shape: &Shape,
    value: Wire<'_>,
    depth: usize,
) -> Result<Value, WireError> {
    Ok(match (shape, value) {
        (Shape::Int32, Wire::Varint(number)) => {
            let number = number.cast_signed();
            let number = i32::try_from(number).map_err(|_| {
                WireError::Value(format!("proto: {number} overflows the int32 {}", field.name))
            })?;
            Value::from(number)
        }
        (Shape::Int64, Wire::Varint(number)) => Value::from(number.cast_signed()),
        (Shape::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
        (Shape::Double, Wire::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (Shape::String, Wire::Bytes(bytes)) => Value::String(text(bytes)?),
        (Shape::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Shape::Message(id), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            message(bytes, id.get(), &mut map, depth + 1)?;
            Value::Object(map)
        }
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, shape)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => quantity(bytes)?,
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Raw | Shape::FieldsV1, Wire::Bytes(bytes)) => raw(bytes, depth)?,
        (Shape::Wrapped, Wire::Bytes(bytes)) => texts(bytes, 1)?,
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, Wire::Bytes(b)) => {
            schema_or(field, shape, b, depth)?
        }
        _ => return Err(WireError::WrongType(field.name)),
    })
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| WireError::Value("proto: invalid UTF-8 in a string".to_owned()))
}

/// `Time { 1: seconds, 2: nanos }`; the zero time is null.
fn time(bytes: &[u8], shape: &Shape) -> Result<Value, WireError> {
    let (mut seconds, mut nanos) = (0, 0);
    for record in wire::records(bytes) {
        match record? {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let out_of_range = || WireError::Value(format!("time {seconds} s is out of range"));
    let nanos = i32::try_from(nanos).map_err(|_| out_of_range())?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| out_of_range())?;
    Ok(scalar::time_text(time, shape))
}

/// `Quantity { 1: string }`; one without a text is null.
fn quantity(bytes: &[u8]) -> Result<Value, WireError> {
    match first_text(bytes)? {
        None => Ok(Value::Null),
        Some(found) if found.is_empty() => Ok(Value::Null),
        Some(found) => match scalar::conform(Value::String(found), &Shape::Quantity) {
            Ok(value) => Ok(value),
            Err(scalar::Mismatch::Type(why) | scalar::Mismatch::Other(why)) => {
                Err(WireError::Value(why))
            }
        },
    }
}

/// `IntOrString { 1: type (0 int, 1 string), 2: int, 3: string }`
fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for record in wire::records(bytes) {
        match record? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(string) } else { Value::from(number) })
}

/// `RawExtension { 1: raw }`: JSON text, or an enveloped message again.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, WireError> {
    let mut found: &[u8] = &[];
    for record in wire::records(bytes) {
        if let (1, Wire::Bytes(value)) = record? {
            found = value;
        }
    }
    if found.is_empty() {
        return Ok(Value::Null);
    }
    if found.starts_with(super::MAGIC) {
        return enveloped(found, depth);
    }
    serde_json::from_slice(found)
        .map_err(|error| WireError::Value(format!("embedded JSON: {error}")))
}

fn enveloped(bytes: &[u8], depth: usize) -> Result<Value, WireError> {
    let unknown = super::envelope(bytes).map_err(WireError::Value)?;
    let gvk = Gvk::parse(&unknown.api_version, &unknown.kind);
    let schema = Type::of_kind(gvk)
        .ok_or_else(|| WireError::Value(format!("embedded kind {:?} is unknown", gvk.kind)))?;
    let mut map = Map::new();
    message(unknown.raw, schema, &mut map, depth + 1)?;
    map.insert("apiVersion".to_owned(), unknown.api_version.into());
    map.insert("kind".to_owned(), unknown.kind.into());
    Ok(Value::Object(map))
}

fn first_text(bytes: &[u8]) -> Result<Option<String>, WireError> {
    let mut found = None;
    for record in wire::records(bytes) {
        if let (1, Wire::Bytes(value)) = record? {
            found = Some(text(value)?);
        }
    }
    Ok(found)
}

fn texts(bytes: &[u8], tag: u32) -> Result<Value, WireError> {
    let mut list = Vec::new();
    for record in wire::records(bytes) {
        match record? {
            (found, Wire::Bytes(value)) if found == tag => list.push(Value::String(text(value)?)),
            _ => {}
        }
    }
    Ok(Value::Array(list))
}

/// The three unions of custom resource definitions:
/// `OrArray { 1: schema, 2: schemas }`, `OrBool { 1: allows, 2: schema }`,
/// `OrStringArray { 1: schema, 2: texts }`.
fn schema_or(
    field: &'static Field,
    shape: &Shape,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, WireError> {
    let schema_tag = if matches!(shape, Shape::SchemaOrBool) { 2 } else { 1 };
    let json_schema = scalar::json_schema();
    let (mut schema, mut schemas, mut allows) = (None, Vec::new(), false);
    for record in wire::records(bytes) {
        match record? {
            (tag, value @ Wire::Bytes(_)) if tag == schema_tag => {
                schema = Some(single(field, &json_schema, value, depth + 1)?);
            }
            (2, value @ Wire::Bytes(_)) if matches!(shape, Shape::SchemaOrArray) => {
                schemas.push(single(field, &json_schema, value, depth + 1)?);
            }
            (1, Wire::Varint(value)) => allows = value != 0,
            _ => {}
        }
    }
    match (schema, shape) {
        (Some(schema), _) => Ok(schema),
        (None, Shape::SchemaOrBool) => Ok(Value::Bool(allows)),
        (None, Shape::SchemaOrStrings) => texts(bytes, 2),
        (None, _) => Ok(Value::Array(schemas)),
    }
}
