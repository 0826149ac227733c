//! Reads against the order.

use std::collections::BTreeMap;

use super::{Item, Promise, Record, Sorted, Span, Violation};

pub(super) fn check(history: &[Record], sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    for record in history {
        match record {
            Record::Read { span, item, .. } => read(*span, item, sorted, violations),
            Record::List { span, revision, items, .. } => {
                list(*span, *revision, items, sorted, violations);
            }
            _ => {}
        }
    }
}

/// Not older than what anybody knew of the key before.
fn read(span: Span, item: &Item, sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    let proved = sorted.evidence.key_before(&item.key, span.start_us);
    if item.revision < proved {
        violations.push(Violation {
            promise: Promise::NoStaleRead,
            detail: format!(
                "a read of {} begun at {} µs saw revision {}, though {proved} was known before",
                item.key, span.start_us, item.revision
            ),
        });
    }
}

/// Not older than what anybody knew of the store before, and exactly the state of its revision.
fn list(
    span: Span,
    revision: u64,
    items: &[Item],
    sorted: &Sorted<'_>,
    violations: &mut Vec<Violation>,
) {
    let proved = sorted.evidence.store_before(span.start_us);
    if revision < proved {
        violations.push(Violation {
            promise: Promise::NoStaleRead,
            detail: format!(
                "a list begun at {} µs saw revision {revision}, though {proved} was known before",
                span.start_us
            ),
        });
    }
    for item in items.iter().filter(|item| item.revision > revision) {
        violations.push(Violation {
            promise: Promise::ConsistentRead,
            detail: format!("a list at {revision} shows {} of {}", item.key, item.revision),
        });
    }
    let listed: BTreeMap<&str, u64> =
        items.iter().map(|item| (item.key.as_str(), item.revision)).collect();
    let due = sorted.state_at(revision);
    for (key, due) in due {
        let shown = listed.get(key).copied();
        if shown != Some(due) {
            let shown = shown.map_or("nothing".to_owned(), |shown| format!("revision {shown}"));
            violations.push(Violation {
                promise: Promise::ConsistentRead,
                detail: format!("a list at {revision} shows {shown} of {key}, where {due} is due"),
            });
        }
    }
}

impl Sorted<'_> {
    /// The latest revision of each key, as of `revision`. Keys are few, and their writes many:
    /// walked backwards until all keys were met.
    fn state_at(&self, revision: u64) -> BTreeMap<&str, u64> {
        let mut state = BTreeMap::new();
        for (at, item) in self.order.range(..=revision).rev() {
            state.entry(item.key.as_str()).or_insert(*at);
            if state.len() == self.keys {
                break;
            }
        }
        state
    }
}
