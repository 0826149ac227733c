//! Filling in what a client left out: the few moves that every kind's defaulting is made of.

use serde_json::{Map, Value, json};

use crate::quantity::Quantity;

/// Sets a field that is absent.
pub fn fill(object: &mut Value, field: &str, value: impl Into<Value>) {
    fill_where(object, field, value, Value::is_null);
}

/// Sets a field that is absent or says nothing: an empty text or a zero. Kubernetes cannot tell the
/// three apart where a field is no pointer.
pub fn fill_empty(object: &mut Value, field: &str, value: impl Into<Value>) {
    fill_where(object, field, value, |old| match old {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    });
}

fn fill_where(
    object: &mut Value,
    field: &str,
    value: impl Into<Value>,
    is_missing: impl Fn(&Value) -> bool,
) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(is_missing)
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field, whatever it says; what is no object is left alone, for decoding to refuse.
pub fn put(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_owned(), value.into());
    }
}

/// The object in a field, if there is one.
pub fn child<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|value| value.is_object())
}

/// The object in a field; an empty one is put there first where there is none.
pub fn child_or_new<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot
}

/// The objects of the list in a field.
pub fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|element| element.is_object())
}

/// Removes a field.
pub fn clear(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// The text in a field; empty where there is none.
pub fn str_of<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a field is set and true.
pub fn is_true(object: &Value, field: &str) -> bool {
    object.get(field).and_then(Value::as_bool).unwrap_or(false)
}

/// Writes every amount of a resource list in its canonical form, rounded up to thousandths. What is
/// no quantity is left for validation to report.
pub fn resource_list(list: Option<&mut Value>) {
    for value in list.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(amount) = quantity_of(value) {
            *value = amount.rounded_to_milli().to_string().into();
        }
    }
}

/// Writes the quantity in a field in its canonical form.
pub fn quantity(object: &mut Value, field: &str) {
    if let Some(value) = object.get_mut(field)
        && let Some(amount) = quantity_of(value)
    {
        *value = amount.to_string().into();
    }
}

/// Reads a quantity, which may be written as a text or as a number.
pub fn quantity_of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}
