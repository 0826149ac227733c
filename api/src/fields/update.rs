//! A write that is no apply: who changes a field owns it, and nobody else does any more.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Writer;
use super::compare::Comparison;
use super::entries::{Entries, Entry, Operation};
use super::place::Place;
use super::set::Set;
use crate::object::Object;

/// The paths that nobody owns.
pub(super) static NOT_OWNED: LazyLock<Set> = LazyLock::new(|| {
    let set = json!({
        "f:apiVersion": {},
        "f:kind": {},
        "f:metadata": {
            ".": {},
            "f:creationTimestamp": {},
            "f:generation": {},
            "f:managedFields": {},
            "f:name": {},
            "f:namespace": {},
            "f:resourceVersion": {},
            "f:selfLink": {},
            "f:uid": {},
        },
    });
    Set::parse(&set).expect("a literal set must be one")
});

/// Writes `managedFields` into `new`, which replaces `live` (an object without content where it is
/// created).
pub fn update(place: Place, live: &Object, new: &mut Object, writer: &Writer<'_>) {
    let sent = new.at("/metadata/managedFields").unwrap_or(&Value::Null);
    let stored = live.at("/metadata/managedFields").unwrap_or(&Value::Null);
    let is_stored = sent.is_null() || sent == stored;
    let compared = Comparison::of(live.value(), new.value(), place).without(writer.reset);
    let taken = compared.set().difference(&NOT_OWNED);
    let removed = compared.removed.difference(&NOT_OWNED);
    if is_stored && taken.is_empty() && removed.is_empty() {
        // Nothing changes hands: no need to read what is written as it was.
        match stored {
            Value::Null => drop(new.remove(&["metadata", "managedFields"])),
            stored => new.set_meta("managedFields", stored.clone()),
        }
        return;
    }
    // What a part of the object is sent with says nothing of the whole.
    let mut entries = if writer.subresource.is_empty() {
        Entries::of_update(new, live)
    } else {
        Entries::of(live).unwrap_or_default()
    };
    for entry in &mut entries.0 {
        entry.fields = entry.fields.difference(&taken).difference(&removed);
    }
    if !taken.is_empty() {
        let mut own = Entry::of(writer, Operation::Update);
        let before = entries.find(&own).map(|entry| std::mem::take(&mut entry.fields));
        own.fields = before.unwrap_or_default().union(&taken);
        own.time = Some(writer.now);
        entries.put(own);
    }
    entries.0.retain(|entry| !entry.fields.is_empty());
    entries.cap();
    entries.write(new);
}
