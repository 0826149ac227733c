//! The paths that an object sets.

use serde_json::Value;

use super::element::Element;
use super::place::{Atom, Place};
use super::set::{Node, Set};

/// The paths that `value` sets, where its type says that they are owned: leaves, elements of lists,
/// keys of maps, and maps without any.
pub(super) fn owned(value: &Value, place: Place) -> Set {
    node(value, place).below
}

fn node(value: &Value, place: Place) -> Node {
    match (place.atom(value), value) {
        (Atom::Map, Value::Object(map)) => {
            let mut below = Set::default();
            for (key, value) in map {
                let child = place.child(key);
                let mut found = node(value, child.place);
                let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                found.is_member |= is_empty || value.is_null() || !child.is_field;
                below.put(Element::field(key), found);
            }
            Node { is_member: false, below }
        }
        (Atom::List, Value::Array(list)) => {
            let mut below = Set::default();
            for (element, item) in place.elements(list) {
                let found = node(item, place.element());
                below.put(element, Node { is_member: true, ..found });
            }
            Node { is_member: false, below }
        }
        _ => Node::member(),
    }
}
