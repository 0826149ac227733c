//! R8: a member that was taken out does not come back under its number.

use std::collections::BTreeSet;

use kontiki_raft::types::NodeId;

use crate::observer::Sight;

#[derive(Default)]
pub(super) struct Identities {
    /// The furthest position whose members were looked at, and those members.
    position: u64,
    members: BTreeSet<NodeId>,
    gone: BTreeSet<NodeId>,
}

impl Identities {
    pub(super) fn look(&mut self, sight: &Sight) {
        // Of a leader only: what it knows of the members is in the log of whoever comes after it.
        if !sight.leads || sight.status.applied_index < self.position {
            return;
        }
        self.position = sight.status.applied_index;
        let members: BTreeSet<NodeId> = sight.status.members.iter().map(|one| one.id).collect();
        self.gone.extend(self.members.difference(&members));
        let back: Vec<_> = members.intersection(&self.gone).collect();
        assert!(back.is_empty(), "R8: members {back:?} were taken out and are back");
        self.members = members;
    }
}
