//! The order of a merged list. The patch decides the order of the elements it names, the object
//! that of the rest, and the two keep their places to each other where the object knows both.

use serde_json::Value;

/// How two elements are told to be the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity<'a> {
    /// Scalars: by value.
    Value,
    /// Maps: by the value of a key.
    Key(&'a str),
}

impl Identity<'_> {
    /// Where in `list` the element is.
    pub(super) fn position(self, list: &[Value], element: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, element))
    }

    fn same(self, one: &Value, other: &Value) -> bool {
        match self {
            Self::Value => one == other,
            Self::Key(key) => match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => one == other,
                _ => false,
            },
        }
    }
}

/// Orders `merged` by what the patch names (`wanted`) and by what the object had (`live`).
pub(super) fn order(
    merged: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| identity.position(wanted, element).is_some());
    named.sort_by_key(|element| identity.position(wanted, element));
    others.sort_by_key(|element| identity.position(live, element).unwrap_or(usize::MAX));
    interleave(others, named, live, identity)
}

/// Merges two ordered lists: an element of `others` goes first only where `live` says so.
fn interleave(
    others: Vec<Value>,
    named: Vec<Value>,
    live: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let mut out = Vec::with_capacity(others.len() + named.len());
    let mut others = others.into_iter().peekable();
    let mut named = named.into_iter().peekable();
    while let (Some(other), Some(name)) = (others.peek(), named.peek()) {
        let before = match (identity.position(live, other), identity.position(live, name)) {
            (Some(other), Some(name)) => other < name,
            _ => false,
        };
        out.extend(if before { others.next() } else { named.next() });
    }
    out.extend(named);
    out.extend(others);
    out
}
