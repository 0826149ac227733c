//! Membership safety: the members change one configuration at a time, so any two that count one after
//! the other have a voter in common that both need; and who leads has a vote or is on its way out.

use std::collections::{BTreeMap, BTreeSet};

use kontiki_raft::status::Role;
use kontiki_raft::types::NodeId;

use crate::observer::Sight;

/// The voters that leaders acted upon, by term, in the order in which they were seen.
#[derive(Default)]
pub(super) struct Memberships(BTreeMap<u64, Vec<BTreeSet<NodeId>>>);

impl Memberships {
    pub(super) fn look(&mut self, sight: &Sight) {
        if !sight.leads {
            return;
        }
        let voters = sight.status.members.iter().filter(|member| member.role == Role::Voter);
        let voters: BTreeSet<NodeId> = voters.map(|member| member.id).collect();
        assert!(!voters.is_empty(), "membership safety: a cluster without voters");
        let seen = self.0.entry(sight.status.term.0).or_default();
        if seen.last() != Some(&voters) {
            if let Some(last) = seen.last() {
                assert!(!last.is_disjoint(&voters), "membership safety: {last:?}, then {voters:?}");
            }
            seen.push(voters);
        }
    }
}
