//! Election safety: a term has one leader at most.

use std::collections::BTreeMap;

use kontiki_raft::types::NodeId;

use crate::observer::Sight;

#[derive(Default)]
pub(super) struct Elections(BTreeMap<u64, NodeId>);

impl Elections {
    pub(super) fn look(&mut self, sight: &Sight) {
        if !sight.leads {
            return;
        }
        let (term, me) = (sight.status.term.0, sight.status.id);
        let leader = *self.0.entry(term).or_insert(me);
        assert_eq!(leader, me, "election safety: two lead in term {term}");
    }
}
