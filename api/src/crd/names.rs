//! Which of the names that a definition wants are free, and what its status says of that.
//!
//! The names of a definition are settled with its own write, so that it is served as soon as it is
//! stored. A name belongs to whoever has it accepted; who wants one that is taken keeps what it had,
//! and is settled anew when it is written again.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::object::Object;

/// A condition of a definition.
#[derive(Debug, Clone, Copy)]
pub struct Condition<'a> {
    /// Its type.
    pub kind: &'a str,
    /// `True` or `False`.
    pub status: &'a str,
    /// Why, in one word.
    pub reason: &'a str,
    /// Why, for people.
    pub message: &'a str,
}

/// Whether a condition of a definition is true.
pub fn is_true(definition: &Object, kind: &str) -> bool {
    let conditions = definition.at("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Sets a condition; its time is that of the last change of its status.
pub fn set_condition(definition: &mut Object, condition: Condition<'_>, now: &str) {
    let Condition { kind, status, reason, message } = condition;
    let list = definition.entry(&["status", "conditions"]);
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    let old = list.iter_mut().find(|old| old["type"] == kind);
    let is_same = old.as_ref().is_some_and(|old| old["status"] == status);
    let since = old.as_ref().filter(|_| is_same).and_then(|old| old["lastTransitionTime"].as_str());
    let new = json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": since.unwrap_or(now),
        "reason": reason,
        "message": message,
    });
    match old {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// Whether there is nothing to settle.
pub fn are_settled(definition: &Object) -> bool {
    let wanted = definition.at("/spec/names");
    wanted.is_some()
        && wanted == definition.at("/status/acceptedNames")
        && is_true(definition, "NamesAccepted")
        && is_true(definition, "Established")
}

/// Accepts what is free of the wanted names, and writes the conditions. `others` are all stored
/// definitions.
pub fn accept(definition: &mut Object, others: &[Object], now: &str) {
    let wanted = map(definition, "/spec/names");
    let mut accepted = map(definition, "/status/acceptedNames");
    let used = Used::by(others, definition);
    let mut conflict = None;
    for field in ["plural", "singular", "shortNames", "kind", "listKind"] {
        let (wants, has) = (texts(wanted.get(field)), texts(accepted.get(field)));
        let taken: Vec<String> = wants
            .iter()
            .filter(|name| !has.contains(name) && used.has(field, name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        if !taken.is_empty() {
            conflict = Some((reason(field), aggregate(&taken)));
            continue;
        }
        put(&mut accepted, field, wanted.get(field));
    }
    put(&mut accepted, "categories", wanted.get("categories"));
    for field in ["kind", "plural"] {
        accepted.entry(field).or_insert_with(|| "".into());
    }
    definition.set(&["status", "acceptedNames"], Value::Object(accepted));
    let accepted = match &conflict {
        None => Condition {
            kind: "NamesAccepted",
            status: "True",
            reason: "NoConflicts",
            message: "no conflicts found",
        },
        Some((reason, message)) => {
            Condition { kind: "NamesAccepted", status: "False", reason, message }
        }
    };
    set_condition(definition, accepted, now);
    if is_true(definition, "Established") {
        return;
    }
    let (status, reason, message) = match conflict {
        None => ("True", "InitialNamesAccepted", "the initial names have been accepted"),
        Some(_) => ("False", "NotAccepted", "not all names are accepted"),
    };
    set_condition(definition, Condition { kind: "Established", status, reason, message }, now);
}

fn reason(field: &str) -> &'static str {
    match field {
        "plural" => "PluralConflict",
        "singular" => "SingularConflict",
        "shortNames" => "ShortNamesConflict",
        "kind" => "KindConflict",
        _ => "ListKindConflict",
    }
}

/// Several complaints as one.
fn aggregate(complaints: &[String]) -> String {
    match complaints {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn map(definition: &Object, pointer: &str) -> Map<String, Value> {
    definition.at(pointer).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn put(names: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => drop(names.insert(field.to_owned(), value.clone())),
        None => drop(names.remove(field)),
    }
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The names that the other definitions of a group have.
struct Used<'a> {
    resources: BTreeSet<&'a str>,
    kinds: BTreeSet<&'a str>,
}

impl<'a> Used<'a> {
    fn by(others: &'a [Object], own: &Object) -> Self {
        let mut used = Self { resources: BTreeSet::new(), kinds: BTreeSet::new() };
        let group = own.str_at("/spec/group");
        let others = others.iter().filter(|other| other.name() != own.name());
        for other in others.filter(|other| other.str_at("/spec/group") == group) {
            let Some(names) = other.at("/status/acceptedNames") else { continue };
            for field in ["plural", "singular", "shortNames"] {
                used.resources.extend(texts(names.get(field)));
            }
            for field in ["kind", "listKind"] {
                used.kinds.extend(texts(names.get(field)));
            }
        }
        used
    }

    fn has(&self, field: &str, name: &str) -> bool {
        match field {
            "kind" | "listKind" => self.kinds.contains(name),
            _ => self.resources.contains(name),
        }
    }
}
