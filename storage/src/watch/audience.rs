//! [`Audience`]: who watches a key, found without asking every watcher.
//!
//! Watchers are grouped by what they watch. Single keys and prefixes, which is nearly all there is,
//! are found by hash: a key is looked up once whole, and once cut to each length that some prefix
//! has. Other ranges are gone over from the lowest start up to the key.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::kv::{KeyRange, RangeEnd, prefix_end};

/// The identity of a watcher in its hub.
pub(super) type WatcherId = u64;

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Audience {
    keys: HashMap<Bytes, Vec<WatcherId>>,
    prefixes: HashMap<Bytes, Vec<WatcherId>>,
    /// How many distinct prefixes there are of each length.
    prefix_lengths: BTreeMap<usize, usize>,
    /// By start; of each start the ends, with who watches up to there.
    ranges: BTreeMap<Bytes, Vec<(RangeEnd, Vec<WatcherId>)>>,
}

/// How a range is looked up.
enum Shape {
    Key,
    Prefix,
    Range,
}

fn shape(range: &KeyRange) -> Shape {
    match &range.end {
        RangeEnd::Single => Shape::Key,
        RangeEnd::Before(end) if prefix_end(&range.start).as_ref() == Some(end) => Shape::Prefix,
        RangeEnd::Unbounded if range.start.is_empty() => Shape::Prefix,
        RangeEnd::Before(_) | RangeEnd::Unbounded => Shape::Range,
    }
}

impl Audience {
    pub(super) fn insert(&mut self, id: WatcherId, range: &KeyRange) {
        let start = range.start.clone();
        match shape(range) {
            Shape::Key => self.keys.entry(start).or_default().push(id),
            Shape::Prefix => {
                let group = self.prefixes.entry(start).or_default();
                if group.is_empty() {
                    *self.prefix_lengths.entry(range.start.len()).or_default() += 1;
                }
                group.push(id);
            }
            Shape::Range => {
                let ends = self.ranges.entry(start).or_default();
                match ends.iter_mut().find(|(end, _)| *end == range.end) {
                    Some((_, group)) => group.push(id),
                    None => ends.push((range.end.clone(), vec![id])),
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: WatcherId, range: &KeyRange) {
        match shape(range) {
            Shape::Key => {
                leave(&mut self.keys, &range.start, id);
            }
            Shape::Prefix => {
                if leave(&mut self.prefixes, &range.start, id) {
                    let length = range.start.len();
                    if let Some(count) = self.prefix_lengths.get_mut(&length) {
                        *count -= 1;
                        if *count == 0 {
                            self.prefix_lengths.remove(&length);
                        }
                    }
                }
            }
            Shape::Range => {
                let Some(ends) = self.ranges.get_mut(&range.start) else { return };
                for (_, group) in ends.iter_mut().filter(|(end, _)| *end == range.end) {
                    group.retain(|member| *member != id);
                }
                ends.retain(|(_, group)| !group.is_empty());
                if ends.is_empty() {
                    self.ranges.remove(&range.start);
                }
            }
        }
    }

    /// Calls `tell` with each watcher of `key`.
    pub(super) fn of(&self, key: &[u8], mut tell: impl FnMut(WatcherId)) {
        if let Some(group) = self.keys.get(key) {
            group.iter().copied().for_each(&mut tell);
        }
        for length in self.prefix_lengths.range(..=key.len()).map(|(length, _)| *length) {
            if let Some(group) = self.prefixes.get(&key[..length]) {
                group.iter().copied().for_each(&mut tell);
            }
        }
        let upto = std::ops::Bound::Included(key);
        for ends in self.ranges.range::<[u8], _>((std::ops::Bound::Unbounded, upto)) {
            for (end, group) in ends.1 {
                if !matches!(end, RangeEnd::Before(end) if end <= key) {
                    group.iter().copied().for_each(&mut tell);
                }
            }
        }
    }
}

/// Removes `id` from its group; whether the group is gone with it.
fn leave(groups: &mut HashMap<Bytes, Vec<WatcherId>>, start: &Bytes, id: WatcherId) -> bool {
    let Some(group) = groups.get_mut(start) else { return false };
    group.retain(|member| *member != id);
    let gone = group.is_empty();
    if gone {
        groups.remove(start);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(audience: &Audience, key: &str) -> Vec<WatcherId> {
        let mut told = Vec::new();
        audience.of(key.as_bytes(), |id| told.push(id));
        told.sort_unstable();
        told
    }

    fn ranges() -> Vec<KeyRange> {
        vec![
            KeyRange::key("/pods/a/x"),
            KeyRange::prefix("/pods/"),
            KeyRange::prefix("/pods/a/"),
            KeyRange::all(),
            KeyRange::between("/pods/a/x", "/pods/b/"),
            KeyRange { start: "/s".into(), end: RangeEnd::Unbounded },
            KeyRange::between("z", "a"),
            KeyRange::prefix("/pods/"),
        ]
    }

    #[test]
    fn exactly_those_whose_range_contains_a_key_are_told() {
        let mut audience = Audience::default();
        for (id, range) in (0..).zip(ranges()) {
            audience.insert(id, &range);
        }
        for key in ["/pods/a/x", "/pods/a/y", "/pods/b/x", "/nodes/a", "/svc", "/pods/", "/", "z"] {
            let expected: Vec<WatcherId> = (0..)
                .zip(ranges())
                .filter(|(_, range)| range.contains(key.as_bytes()))
                .map(|(id, _)| id)
                .collect();
            assert_eq!(told(&audience, key), expected, "{key}");
        }
    }

    #[test]
    fn who_left_is_not_told_and_leaves_nothing_behind() {
        let mut audience = Audience::default();
        for (id, range) in (0..).zip(ranges()) {
            audience.insert(id, &range);
        }
        audience.remove(1, &KeyRange::prefix("/pods/"));
        assert_eq!(told(&audience, "/pods/b/x"), [3, 7]);
        for (id, range) in (0..).zip(ranges()) {
            audience.remove(id, &range);
        }
        assert!(audience.keys.is_empty() && audience.prefixes.is_empty());
        assert!(audience.prefix_lengths.is_empty() && audience.ranges.is_empty());
    }
}
