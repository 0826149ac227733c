//! What is missing is filled in.

use serde_json::Value;

use super::structural::Structural;

/// Fills in defaults. Null where it is no value of the field counts as missing.
pub(super) fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (key, field) in &schema.fields {
                if schema.is_of_resource(key) {
                    continue;
                }
                let found = map.get(key);
                if found.is_none_or(|value| value.is_null() && !field.nullable) {
                    match &field.default {
                        Some(default) => map.insert(key.clone(), default.clone()),
                        None => map.remove(key),
                    };
                }
            }
            let values = schema.values.as_deref();
            if values.is_some_and(|values| !values.nullable && !values.preserves_unknown) {
                map.retain(|key, value| !value.is_null() || schema.fields.contains_key(key));
            }
            for (key, value) in map.iter_mut().filter(|(key, _)| !schema.is_of_resource(key)) {
                if let Some(below) = schema.below(key) {
                    default(value, below);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for item in list.iter_mut() {
                    default(item, items);
                }
            }
        }
        _ => {}
    }
}
