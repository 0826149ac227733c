//! R2: the position in the log and the data move together: at one position all members, and all
//! lives of one, have the same revision and the same data.

use std::collections::BTreeMap;

use crate::observer::Sight;

#[derive(Default)]
pub(super) struct Positions(BTreeMap<u64, (u64, u64)>);

impl Positions {
    pub(super) fn look(&mut self, sight: &Sight) {
        let (index, now) =
            (sight.status.applied_index, (sight.status.revision.get(), sight.status.hash));
        let known = *self.0.entry(index).or_insert(now);
        assert_eq!(
            known, now,
            "R2: the data at position {index} of the log (member {})",
            sight.status.id
        );
    }
}
