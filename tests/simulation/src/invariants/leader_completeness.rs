//! Leader completeness: whoever leads has every entry that was committed in an earlier term.

use std::collections::BTreeSet;

use super::state_machine_safety::Committed;
use crate::observer::Sight;

/// The terms whose leaders were looked at.
#[derive(Default)]
pub(super) struct Leaders(BTreeSet<u64>);

impl Leaders {
    pub(super) fn look(&mut self, sight: &Sight, committed: &Committed) {
        let term = sight.status.term.0;
        let Some(first) = sight.log.first().filter(|_| sight.leads && self.0.insert(term)) else {
            return;
        };
        for (index, (line, since)) in committed.0.range(first.index..) {
            if *since < term {
                let place = usize::try_from(index - first.index).unwrap();
                let has = sight.log.get(place);
                assert_eq!(has, Some(line), "leader completeness: the leader of term {term}");
            }
        }
    }
}
