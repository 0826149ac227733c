//! [`KeyIndex`]: from a key to what it holds, and to the places of its versions in history.
//!
//! A key's versions stand in the order of their revisions. A *generation* is a run of them from the
//! put that made the key exist to the tombstone that ended it. A key put at 2, changed at 5, deleted
//! at 7 and put again at 9 has
//!
//! ```text
//!   [ 2   5   7† ]  [ 9 ]        a read at 6 finds 5, at 8 nothing, from 9 on 9
//! ```
//!
//! Compaction at revision C keeps what a reader at C or a watcher from C can still ask for: the
//! version that was current at C, everything after it, and a tombstone at C itself.
//!
//! ```text
//!   compacted at 5:  [ 5   7† ]  [ 9 ]
//!   compacted at 7:  [ 7† ]  [ 9 ]       the deletion at 7 is still an event for a watch from 7
//!   compacted at 8:  [ 9 ]
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::kv::{KeyRange, KeyValue, RangeEnd, Revision};
use crate::layout::VersionId;

/// Where one version of a key is, and whether it is the key's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: VersionId,
    pub(crate) tombstone: bool,
}

/// One key, which exists or has existed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyHistory {
    /// Its versions, oldest first; never empty.
    entries: Vec<Entry>,
    /// What it holds, where it exists, as shared bytes: a latest read never touches the engine.
    latest: Option<KeyValue>,
}

impl KeyHistory {
    /// What the key holds, where it exists.
    pub(crate) fn latest(&self) -> Option<&KeyValue> {
        self.latest.as_ref()
    }

    /// The version that a reader at `revision` sees; `None` where the key does not exist then.
    pub(crate) fn at(&self, revision: Revision) -> Option<VersionId> {
        let after = self.entries.partition_point(|entry| entry.id.revision <= revision);
        let entry = self.entries[..after].last()?;
        (!entry.tombstone).then_some(entry.id)
    }

    /// The versions that nobody can ask for any more once history is compacted at `compacted`.
    pub(crate) fn obsolete(&self, compacted: Revision) -> &[Entry] {
        let after = self.entries.partition_point(|entry| entry.id.revision <= compacted);
        let Some(current) = after.checked_sub(1) else { return &[] };
        let gone = self.entries[current].tombstone && self.entries[current].id.revision < compacted;
        &self.entries[..if gone { after } else { current }]
    }
}

/// All keys, in their order.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    keys: BTreeMap<Bytes, KeyHistory>,
    /// How many of them exist.
    existing: usize,
}

impl KeyIndex {
    /// Adds the newest version of a key, at `id`; `None` is its end. Returns what it held before.
    pub(crate) fn push(
        &mut self,
        key: &Bytes,
        id: VersionId,
        after: Option<KeyValue>,
    ) -> Option<KeyValue> {
        let entry = Entry { id, tombstone: after.is_none() };
        self.existing += usize::from(after.is_some());
        let Some(history) = self.keys.get_mut(key) else {
            let history = KeyHistory { entries: vec![entry], latest: after };
            self.keys.insert(key.clone(), history);
            return None;
        };
        assert!(
            history.entries.last().is_none_or(|last| last.id < id),
            "R3: a version must be newer than the key's last one"
        );
        history.entries.push(entry);
        let before = std::mem::replace(&mut history.latest, after);
        self.existing -= usize::from(before.is_some());
        // The key's bytes are shared by all that know it.
        if let (Some(before), Some(latest)) = (&before, &mut history.latest) {
            latest.key = before.key.clone();
        }
        before
    }

    /// How many keys exist.
    pub(crate) fn len_existing(&self) -> usize {
        self.existing
    }

    /// The keys of `range` that exist, with what they hold.
    pub(crate) fn latest(&self, range: &KeyRange) -> impl Iterator<Item = &KeyValue> {
        self.keys.range::<[u8], _>(bounds(range)).filter_map(|(_, history)| history.latest())
    }

    /// The history of one key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyHistory> {
        self.keys.get(key)
    }

    /// The histories of the keys in `range`.
    pub(crate) fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &KeyHistory)> {
        self.keys.range::<[u8], _>(bounds(range))
    }

    /// The first `most` keys from `from` on.
    pub(crate) fn from(
        &self,
        from: &[u8],
        most: usize,
    ) -> impl Iterator<Item = (&Bytes, &KeyHistory)> {
        self.keys.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).take(most)
    }

    /// Forgets the obsolete versions of the keys from `from` up to `before`, excluded.
    pub(crate) fn forget(&mut self, from: &[u8], before: Option<&[u8]>, compacted: Revision) {
        let before = before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut gone = Vec::new();
        for (key, history) in self.keys.range_mut::<[u8], _>((Bound::Included(from), before)) {
            let obsolete = history.obsolete(compacted).len();
            history.entries.drain(..obsolete);
            if history.entries.is_empty() {
                gone.push(key.clone());
            } else if obsolete > 0 {
                history.entries.shrink_to_fit();
            }
        }
        for key in gone {
            self.keys.remove(&key);
        }
    }

    /// How many keys have any version.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// The bounds of a key range, for `BTreeMap::range`; an impossible range becomes an empty one.
pub(crate) fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let start = &range.start[..];
    match &range.end {
        RangeEnd::Single => (Bound::Included(start), Bound::Included(start)),
        RangeEnd::Before(end) => (Bound::Included(start), Bound::Excluded((&end[..]).max(start))),
        RangeEnd::Unbounded => (Bound::Included(start), Bound::Unbounded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(revision: u64) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from(revision.to_string()),
            create_revision: Revision::new(revision),
            mod_revision: Revision::new(revision),
            version: 1,
            lease: 0,
        }
    }

    fn index() -> KeyIndex {
        let mut index = KeyIndex::default();
        for (revision, tombstone) in [(2, false), (5, false), (7, true), (9, false)] {
            let id = VersionId::first_of(Revision::new(revision));
            index.push(&Bytes::from_static(b"k"), id, (!tombstone).then(|| kv(revision)));
        }
        index
    }

    fn found_at(index: &KeyIndex, revision: u64) -> Option<u64> {
        Some(index.get(b"k")?.at(Revision::new(revision))?.revision.get())
    }

    fn left_at(compacted: u64) -> Vec<u64> {
        let mut index = index();
        index.forget(b"", None, Revision::new(compacted));
        let history = index.get(b"k").map(|history| history.entries.clone()).unwrap_or_default();
        history.iter().map(|entry| entry.id.revision.get()).collect()
    }

    #[test]
    fn a_read_finds_the_version_of_its_revision_or_none_between_generations() {
        let found: Vec<_> = (1..=10).map(|revision| found_at(&index(), revision)).collect();
        let expected = [0, 2, 2, 2, 5, 5, 0, 0, 9, 9].map(|n| (n > 0).then_some(n));
        assert_eq!(found, expected);
    }

    #[test]
    fn compaction_keeps_what_is_current_and_a_tombstone_at_its_own_revision() {
        assert_eq!(left_at(1), [2, 5, 7, 9]);
        assert_eq!(left_at(2), [2, 5, 7, 9]);
        assert_eq!(left_at(5), [5, 7, 9]);
        assert_eq!(left_at(6), [5, 7, 9]);
        assert_eq!(left_at(7), [7, 9]);
        assert_eq!(left_at(8), [9]);
        assert_eq!(left_at(20), [9]);
    }

    #[test]
    fn a_deleted_key_disappears_once_its_tombstone_is_compacted() {
        let mut index = KeyIndex::default();
        let key = Bytes::from_static(b"k");
        for (revision, tombstone) in [(2, false), (3, true)] {
            let id = VersionId::first_of(Revision::new(revision));
            index.push(&key, id, (!tombstone).then(|| kv(revision)));
        }
        index.forget(b"", None, Revision::new(3));
        assert_eq!(index.len(), 1);
        index.forget(b"", None, Revision::new(4));
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn what_a_key_held_comes_back_when_it_is_changed_or_ends() {
        let mut index = index();
        assert_eq!((index.len_existing(), index.latest(&KeyRange::all()).count()), (1, 1));
        let id = |revision| VersionId::first_of(Revision::new(revision));
        let key = Bytes::from_static(b"k");
        assert_eq!(index.push(&key, id(10), Some(kv(10))), Some(kv(9)));
        assert_eq!(index.push(&key, id(11), None), Some(kv(10)));
        assert_eq!((index.len_existing(), index.latest(&KeyRange::all()).count()), (0, 0));
        assert_eq!(index.push(&key, id(12), None), None);
        assert_eq!(index.push(&key, id(13), Some(kv(13))), None);
        assert_eq!(index.latest(&KeyRange::all()).collect::<Vec<_>>(), [&kv(13)]);
        assert_eq!(index.len_existing(), 1);
    }

    #[test]
    fn an_impossible_range_is_empty() {
        assert_eq!(index().range(&KeyRange::between("z", "a")).count(), 0);
        assert_eq!(index().range(&KeyRange::all()).count(), 1);
    }
}
