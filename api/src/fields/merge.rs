//! An object with a configuration in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Atom, Place};

/// `live` with all that `config` sets; maps and lists are merged where their type says so, all else
/// is taken from the configuration.
pub(super) fn merge(live: &Value, config: &Value, place: Place) -> Value {
    match (live, config) {
        (Value::Object(old), Value::Object(new))
            if place.atom(live) == Atom::Map && place.atom(config) == Atom::Map =>
        {
            Value::Object(maps(old, new, place))
        }
        (Value::Array(old), Value::Array(new))
            if place.atom(live) == Atom::List && place.atom(config) == Atom::List =>
        {
            Value::Array(lists(old, new, place))
        }
        _ => config.clone(),
    }
}

fn maps(
    live: &Map<String, Value>,
    config: &Map<String, Value>,
    place: Place,
) -> Map<String, Value> {
    let mut merged = live.clone();
    for (key, value) in config {
        let new = match live.get(key) {
            Some(old) => merge(old, value, place.child(key).place),
            None => value.clone(),
        };
        merged.insert(key.clone(), new);
    }
    merged
}

/// The elements of both. Those of the configuration are in its order; others stay where they were
/// among them.
fn lists(live: &[Value], config: &[Value], place: Place) -> Vec<Value> {
    let (old, new) = (place.elements(live), place.elements(config));
    let mut order = Order {
        by_element: old.iter().map(|(element, item)| (element.clone(), *item)).collect(),
        applied: new.iter().map(|(element, _)| element.clone()).collect(),
        shared: VecDeque::new(),
        taken: BTreeSet::new(),
        place,
        merged: Vec::with_capacity(old.len().max(new.len())),
    };
    let shared = new.iter().map(|(element, _)| element);
    order.shared = shared.filter(|e| order.by_element.contains_key(*e)).cloned().collect();
    let (mut old, mut new) = (old.as_slice(), new.as_slice());
    while let Some(side) = order.next(old, new) {
        match side {
            Side::Skip => old = &old[1..],
            Side::Live => {
                order.merged.push(old[0].1.clone());
                old = &old[1..];
            }
            Side::Config => {
                order.take(&new[0]);
                new = &new[1..];
            }
            Side::Both => {
                order.take(&new[0]);
                (old, new) = (&old[1..], &new[1..]);
            }
        }
    }
    order.merged
}

/// Where the next element of a merged list comes from.
enum Side {
    /// One of the live list's that comes, or came, in the configuration's order.
    Skip,
    /// One that only the live list has.
    Live,
    /// The configuration's next.
    Config,
    /// The next of both, which is the same.
    Both,
}

struct Order<'a> {
    by_element: BTreeMap<Element, &'a Value>,
    applied: BTreeSet<Element>,
    /// Those in both lists that are still to come, in the configuration's order.
    shared: VecDeque<Element>,
    taken: BTreeSet<Element>,
    place: Place,
    merged: Vec<Value>,
}

impl Order<'_> {
    fn next(&self, old: &[(Element, &Value)], new: &[(Element, &Value)]) -> Option<Side> {
        let Some((element, _)) = old.first() else {
            return (!new.is_empty()).then_some(Side::Config);
        };
        if let Some((wanted, _)) = new.first() {
            if element == wanted {
                return Some(Side::Both);
            }
            let is_out_of_turn = self.shared.front().is_some_and(|next| next != element);
            if self.applied.contains(element) && is_out_of_turn {
                return Some(Side::Skip);
            }
        }
        Some(match self.applied.contains(element) {
            false => Side::Live,
            true if self.taken.contains(element) || new.is_empty() => Side::Skip,
            true => Side::Config,
        })
    }

    fn take(&mut self, (element, item): &(Element, &Value)) {
        self.merged.push(match self.by_element.get(element) {
            Some(old) => merge(old, item, self.place.element()),
            None => (*item).clone(),
        });
        self.taken.insert(element.clone());
        if self.shared.front() == Some(element) {
            self.shared.pop_front();
        }
    }
}
