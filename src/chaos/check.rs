//! Whether a history is one that a correct store can give. Pure: it looks at nothing but the history.
//!
//! Revisions are the store's own claim of the order in which writes took effect, and every watch
//! repeats that order from another side. So there is nothing to search: the claim is checked.
//!
//! 1. **Order** (`order`): the claim agrees with itself and with time. Every write has a revision of
//!    its own, follows the revision it was based on, and took effect between its request and answer.
//! 2. **Reads** (`reads`): each read shows exactly what the order says for its revision, and nothing
//!    older than what anybody had seen or been acknowledged before it began (R4).
//! 3. **Watches** (`watches`): each is the order itself from its start on: none missing, none twice,
//!    none out of turn, none made up (R5); so no acknowledged write is lost (R1), none that was
//!    refused is there, and none that was left open is there twice (R10).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::history::{Item, Outcome, Record, Span};

mod evidence;
mod order;
mod reads;
mod watches;

use evidence::Evidence;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// What was acknowledged is there.
    NoLostWrite,
    /// What was refused is not there.
    NoRefusedEffect,
    /// A write takes effect at most once.
    AtMostOnce,
    /// A write based on a revision follows that revision.
    CompareAndSet,
    /// A value that is read was written.
    NothingMadeUp,
    /// A read shows all that was there before it began.
    NoStaleRead,
    /// A read shows the state of one revision.
    ConsistentRead,
    /// A watch tells of every change.
    WatchComplete,
    /// A watch tells in the order of revisions, of each change once.
    WatchOrdered,
    /// All replicas hold the same.
    ReplicasEqual,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.detail)
    }
}

/// One attempted write.
struct Attempt<'a> {
    span: Span,
    key: &'a str,
    base: u64,
    outcome: &'a Outcome,
}

/// A history, sorted by what the checks ask for.
struct Sorted<'a> {
    /// Attempts by their value, which no two share.
    attempts: HashMap<&'a str, Attempt<'a>>,
    /// What each revision wrote, as far as anybody saw it.
    order: BTreeMap<u64, &'a Item>,
    /// Values there before the run: they have no attempt.
    initial: HashMap<&'a str, &'a Item>,
    /// How many keys there are.
    keys: usize,
    evidence: Evidence,
}

/// All broken promises of a history.
pub fn check(history: &[Record]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let acknowledged = acknowledged(history);
    let sorted = sort(history, &acknowledged, &mut violations);
    order::check(&sorted, &mut violations);
    reads::check(history, &sorted, &mut violations);
    watches::check(history, &sorted, &mut violations);
    violations
}

/// Acknowledged writes as items: they are evidence of the order like any event.
fn acknowledged(history: &[Record]) -> Vec<Item> {
    let item = |record: &Record| match record {
        Record::Write { key, value, outcome: Outcome::Acknowledged { revision }, .. } => {
            Some(Item { key: key.clone(), value: value.clone(), revision: *revision })
        }
        _ => None,
    };
    history.iter().filter_map(item).collect()
}

fn sort<'a>(
    history: &'a [Record],
    acknowledged: &'a [Item],
    violations: &mut Vec<Violation>,
) -> Sorted<'a> {
    let mut sorted = Sorted {
        attempts: HashMap::new(),
        order: BTreeMap::new(),
        initial: HashMap::new(),
        keys: 0,
        evidence: Evidence::of(history),
    };
    for record in history {
        match record {
            Record::Write { span, key, value, base, outcome, .. } => {
                let attempt = Attempt { span: *span, key, base: *base, outcome };
                let twin = sorted.attempts.insert(value, attempt);
                assert!(twin.is_none(), "the workload must write each value once: {value}");
            }
            Record::WatchStart { items, .. } => {
                sorted.initial.extend(items.iter().map(|item| (item.value.as_str(), item)));
            }
            _ => {}
        }
    }
    // Values of a watch's start that were written during the run are no strangers.
    let attempts = &sorted.attempts;
    sorted.initial.retain(|value, _| !attempts.contains_key(value));
    for item in seen(history).chain(acknowledged) {
        note(item, &mut sorted.order, violations);
    }
    let keys: HashSet<&str> = sorted.order.values().map(|item| item.key.as_str()).collect();
    sorted.keys = keys.len();
    sorted
}

/// Every value with its revision that anybody was shown.
fn seen(history: &[Record]) -> impl Iterator<Item = &Item> {
    history.iter().flat_map(|record| match record {
        Record::Read { item, .. } | Record::Event { item, .. } => std::slice::from_ref(item),
        Record::List { items, .. } | Record::WatchStart { items, .. } => items.as_slice(),
        _ => &[],
    })
}

/// Two must not say different things of one revision.
fn note<'a>(item: &'a Item, order: &mut BTreeMap<u64, &'a Item>, violations: &mut Vec<Violation>) {
    let known = order.entry(item.revision).or_insert(item);
    if *known != item {
        violations.push(Violation {
            promise: Promise::NoLostWrite,
            detail: format!(
                "revision {} wrote {}={} to one client and {}={} to another",
                item.revision, known.key, known.value, item.key, item.value
            ),
        });
    }
}

#[cfg(test)]
mod tests;
