//! [`Scrub`]: removes, slice by slice, what a compaction has made unreachable.
//!
//! A compaction is one command of the log, and from its revision on every replica answers alike.
//! What it makes unreachable is removed by the applies that come after it, a few keys each, in the
//! same batch of the engine: no apply takes long for it, and it needs no thread and no clock. A
//! crash on the way is harmless, since going over it again from the first key changes nothing.

use bytes::Bytes;

use crate::engine::{Batch, Tree};
use crate::index::KeyIndex;
use crate::kv::Revision;
use crate::layout::VersionId;

/// How many keys one apply goes over: some ten microseconds of work.
const SLICE_KEYS: usize = 64;

/// A compaction under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scrub {
    compacted: Revision,
    /// The next key to go over.
    next: Bytes,
}

/// What the next slice of a scrub removes.
#[derive(Debug)]
pub(crate) struct Slice {
    scrub: Scrub,
    removed: Vec<VersionId>,
    /// Where the slice after this one begins; `None` where this is the last.
    rest: Option<Bytes>,
}

impl Scrub {
    /// The scrub that a store compacted at `compacted` needs; none where nothing is compacted.
    pub(crate) fn of(compacted: Revision) -> Option<Self> {
        (compacted > Revision::ZERO).then(|| Self { compacted, next: Bytes::new() })
    }

    /// Decides what the next slice removes.
    pub(crate) fn plan(&self, index: &KeyIndex) -> Slice {
        let mut keys = index.from(&self.next, SLICE_KEYS + 1);
        let mut removed = Vec::new();
        for (_, history) in keys.by_ref().take(SLICE_KEYS) {
            removed.extend(history.obsolete(self.compacted).iter().map(|entry| entry.id));
        }
        let rest = keys.next().map(|(key, _)| key.clone());
        Slice { scrub: self.clone(), removed, rest }
    }
}

impl Slice {
    /// Adds the removal to a batch of the engine.
    pub(crate) fn put_into(&self, epoch: u32, batch: &mut Batch) {
        for id in &self.removed {
            batch.delete(Tree::Versions, id.key(epoch));
        }
    }

    /// Makes the index forget what the batch removed; returns the scrub that remains. The keys that
    /// the batch itself added lie beside the slice's and lose nothing: all of theirs is newer.
    pub(crate) fn forget(self, index: &mut KeyIndex) -> Option<Scrub> {
        let Scrub { compacted, next } = self.scrub;
        index.forget(&next, self.rest.as_deref(), compacted);
        self.rest.map(|next| Scrub { compacted, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;

    fn put(key: Bytes, mod_revision: Revision) -> KeyValue {
        let (value, create_revision) = (Bytes::new(), mod_revision);
        KeyValue { key, value, create_revision, mod_revision, version: 1, lease: 0 }
    }

    fn index(keys: usize) -> KeyIndex {
        let mut index = KeyIndex::default();
        for revision in [2, 3] {
            for (sub, key) in (0..keys).enumerate() {
                let revision = Revision::new(revision);
                let id = VersionId { revision, sub: u32::try_from(sub).unwrap() };
                let key = Bytes::from(format!("{key:05}"));
                index.push(&key, id, Some(put(key.clone(), revision)));
            }
        }
        index
    }

    #[test]
    fn a_scrub_goes_over_every_key_in_bounded_slices() {
        let mut index = index(3 * SLICE_KEYS);
        let mut scrub = Scrub::of(Revision::new(3));
        let mut slices = Vec::new();
        while let Some(under_way) = scrub {
            let slice = under_way.plan(&index);
            slices.push(slice.removed.len());
            scrub = slice.forget(&mut index);
        }
        assert_eq!(slices, [SLICE_KEYS; 3]);
        assert!(Scrub::of(Revision::new(3)).unwrap().plan(&index).removed.is_empty());
    }

    #[test]
    fn a_store_that_was_never_compacted_needs_no_scrub() {
        assert_eq!(Scrub::of(Revision::ZERO), None);
    }
}
