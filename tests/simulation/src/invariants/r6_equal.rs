//! R6: at one revision all members have the same hash, and none finds another to differ.

use std::collections::BTreeMap;

use crate::observer::Sight;

#[derive(Default)]
pub(super) struct Hashes(BTreeMap<u64, u64>);

impl Hashes {
    pub(super) fn look(&mut self, sight: &Sight) {
        let (revision, hash) = (sight.status.revision.get(), sight.status.hash);
        let known = *self.0.entry(revision).or_insert(hash);
        assert_eq!(known, hash, "R6: member {} differs at revision {revision}", sight.status.id);
        assert_eq!(sight.status.corruption, None, "R6: nothing was damaged");
    }
}
