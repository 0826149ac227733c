//! An object with a configuration in it that nobody becomes the owner of: what admission policies
//! set. What is atomic cannot be set so: who sets one field of it would take the others away.

use serde_json::Value;

use super::check::mistakes;
use super::element::Element;
use super::merge::merge;
use super::place::{Atom, Place};

/// `live` with all that `config` sets. The error says what of it cannot be.
pub fn configure(place: Place, live: &Value, config: &Value) -> Result<Value, String> {
    let mistakes = mistakes(config, place);
    if !mistakes.is_empty() {
        let why = mistakes.join("; ");
        return Err(format!("failed to convert patch object to typed object: {why}"));
    }
    let mut atomics = Vec::new();
    find(config, place, &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"
        ));
    }
    Ok(merge(live, config, place))
}

/// The places of what is owned as a whole though it has parts.
fn find(value: &Value, place: Place, path: &mut String, found: &mut Vec<String>) {
    let mut below = |element: String, value: &Value, place: Place| {
        let end = path.len();
        path.push_str(&element);
        find(value, place, path, found);
        path.truncate(end);
    };
    match (value, place.atom(value)) {
        (Value::Object(map), Atom::Map) => {
            for (key, value) in map {
                let child = place.child(key);
                below(Element::field(key).to_string(), value, child.place);
            }
        }
        (Value::Array(list), Atom::List) => {
            for (index, value) in list.iter().enumerate() {
                below(format!("[{index}]"), value, place.element());
            }
        }
        (Value::Object(_) | Value::Array(_), _) => found.push(path.clone()),
        _ => {}
    }
}
