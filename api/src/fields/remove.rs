//! An object without some paths.

use serde_json::Value;

use super::element::Element;
use super::place::{Atom, Place};
use super::set::Set;

/// `value` without the paths in `set`. A map or a list that something was looked for in and that is
/// left with nothing goes too: `None`.
pub(super) fn remove(value: &Value, set: &Set, place: Place) -> Option<Value> {
    match (place.atom(value), value) {
        (Atom::Map, Value::Object(map)) => {
            let kept = map.iter().filter_map(|(key, value)| {
                let child = place.child(key).place;
                let kept = below(value, set, &Element::field(key), child)?;
                Some((key.clone(), kept))
            });
            let kept: serde_json::Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Atom::List, Value::Array(list)) => {
            let kept: Vec<Value> = place
                .elements(list)
                .iter()
                .filter_map(|(element, item)| below(item, set, element, place.element()))
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

fn below(value: &Value, set: &Set, element: &Element, place: Place) -> Option<Value> {
    match set.get(element) {
        None => Some(value.clone()),
        Some(node) if node.is_member => None,
        Some(node) => remove(value, &node.below, place),
    }
}
