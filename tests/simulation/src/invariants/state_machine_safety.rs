//! State machine safety: at one place of the log all members commit the same entry.

use std::collections::BTreeMap;

use kontiki_raft::log_store::LogLine;

use crate::observer::Sight;

/// Every entry that any member knew to be committed, with the term in which that was first seen.
#[derive(Default)]
pub(super) struct Committed(pub(super) BTreeMap<u64, (LogLine, u64)>);

impl Committed {
    pub(super) fn look(&mut self, sight: &Sight) {
        let upto = sight.status.committed_index;
        for line in sight.log.iter().filter(|line| line.index <= upto) {
            let (known, _) = self.0.entry(line.index).or_insert((*line, sight.status.term.0));
            assert_eq!(known, line, "state machine safety: two entries are committed");
        }
    }
}
