//! What must hold, each in a file of its own: some at every moment, some of what clients saw.

use super::history::History;
use super::observer::Sight;

mod election_safety;
mod leader_completeness;
mod log_matching;
mod membership_safety;
mod r10_once;
mod r11_silence;
mod r1_durable;
mod r2_position;
mod r3_revisions;
mod r4_linearizable;
mod r5_watch;
mod r6_equal;
mod r7_leases;
mod r8_identity;
mod r9_fence;
mod state_machine_safety;

/// What is judged while the cluster runs.
#[derive(Default)]
pub(super) struct Live {
    elections: election_safety::Elections,
    logs: log_matching::Logs,
    committed: state_machine_safety::Committed,
    completeness: leader_completeness::Leaders,
    memberships: membership_safety::Memberships,
    identities: r8_identity::Identities,
    positions: r2_position::Positions,
    hashes: r6_equal::Hashes,
    /// How often something was looked at.
    pub(super) sights: u64,
}

impl Live {
    pub(super) fn look(&mut self, sight: &Sight) {
        self.sights += 1;
        self.elections.look(sight);
        self.logs.look(sight);
        self.committed.look(sight);
        self.completeness.look(sight, &self.committed);
        self.memberships.look(sight);
        self.identities.look(sight);
        self.positions.look(sight);
        self.hashes.look(sight);
    }
}

/// Judges what clients were told.
pub(super) fn judge(history: &History) {
    r3_revisions::judge(history);
    r11_silence::judge(history);
    r4_linearizable::judge(history);
}

/// Judges what was done, as watchers were told of it.
pub(super) fn judge_changes(history: &History) {
    r5_watch::judge(history);
    let changes = history.changes();
    r1_durable::judge(history, &changes);
    r9_fence::judge(history, &changes);
    r10_once::judge(history, &changes);
    r7_leases::judge(history);
}
