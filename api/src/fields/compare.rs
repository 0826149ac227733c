//! What differs between two objects, path by path.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Reset;
use super::element::Element;
use super::place::{Atom, Place};
use super::set::{Node, Set};

/// The paths that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Comparison {
    /// From `old` to `new`, both of this type.
    pub(super) fn of(old: &Value, new: &Value, place: Place) -> Self {
        let difference = compare(Some(old), Some(new), place);
        Self {
            added: difference.added.below,
            modified: difference.modified.below,
            removed: difference.removed.below,
        }
    }

    /// Without what a write of this part cannot change.
    pub(super) fn without(self, reset: Reset) -> Self {
        Self {
            added: self.added.without_fields(|field| reset.covers(field)),
            modified: self.modified.without_fields(|field| reset.covers(field)),
            removed: self.removed.without_fields(|field| reset.covers(field)),
        }
    }

    /// What the new object sets otherwise than the old one.
    pub(super) fn set(&self) -> Set {
        self.added.clone().union(&self.modified)
    }
}

/// The same of one path and those below it.
#[derive(Default)]
struct Difference {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Difference {
    fn put(&mut self, element: Element, below: Self) {
        self.added.below.put(element.clone(), below.added);
        self.modified.below.put(element.clone(), below.modified);
        self.removed.below.put(element, below.removed);
    }

    /// A path that is not looked into.
    fn whole(is_old: bool, is_new: bool, is_equal: bool) -> Self {
        let mut difference = Self::default();
        match (is_old, is_new) {
            (false, _) => difference.added.is_member = is_new,
            (true, false) => difference.removed.is_member = true,
            (true, true) => difference.modified.is_member = !is_equal,
        }
        difference
    }
}

fn compare(old: Option<&Value>, new: Option<&Value>, place: Place) -> Difference {
    let atom = match (old.map(|old| place.atom(old)), new.map(|new| place.atom(new))) {
        (Some(old), Some(new)) if old != new => Atom::Whole,
        (Some(atom), _) | (None, Some(atom)) => atom,
        (None, None) => return Difference::default(),
    };
    if atom == Atom::Whole || (is_empty(old) && is_empty(new)) {
        return Difference::whole(old.is_some(), new.is_some(), old == new);
    }
    let mut difference = if atom == Atom::Map {
        let none = Map::new();
        maps(map(old).unwrap_or(&none), map(new).unwrap_or(&none), place)
    } else {
        lists(list(old), list(new), place)
    };
    difference.added.is_member = old.is_none();
    difference.removed.is_member = new.is_none();
    difference
}

fn map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn maps(old: &Map<String, Value>, new: &Map<String, Value>, place: Place) -> Difference {
    let mut difference = Difference::default();
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let (old, new) = (old.get(key), new.get(key));
        if old != new {
            difference.put(Element::field(key), compare(old, new, place.child(key).place));
        }
    }
    difference
}

/// The elements on either side, in the order in which they are met.
type Pairs<'a> = Vec<(Element, Vec<&'a Value>, Vec<&'a Value>)>;

fn lists(old: &[Value], new: &[Value], place: Place) -> Difference {
    let mut difference = Difference::default();
    for (element, was, is) in pairs(old, new, place) {
        let below = match (was.as_slice(), is.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare(was.first().copied(), is.first().copied(), place.element())
            }
            // An element that stands there twice is not looked into.
            _ => Difference::whole(!was.is_empty(), !is.is_empty(), was == is),
        };
        difference.put(element, below);
    }
    difference
}

fn pairs<'a>(old: &'a [Value], new: &'a [Value], place: Place) -> Pairs<'a> {
    let mut at = BTreeMap::new();
    let mut pairs: Pairs<'a> = Vec::new();
    let sides = place.elements(old).into_iter().map(|item| (item, true));
    for ((element, item), is_old) in
        sides.chain(place.elements(new).into_iter().map(|item| (item, false)))
    {
        let index = *at.entry(element.clone()).or_insert_with(|| {
            pairs.push((element, Vec::new(), Vec::new()));
            pairs.len() - 1
        });
        let (_, was, is) = &mut pairs[index];
        if is_old { was.push(item) } else { is.push(item) }
    }
    pairs
}
