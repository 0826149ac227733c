//! The replicated memory of what recent proposals came to (R10).
//!
//! A proposal says which earlier ones of its proposer are settled: nobody waits for those, so their
//! outcomes are forgotten, and a copy of one that arrives later is refused. Nothing here depends on
//! how entries were batched: with the same log, every member remembers the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki_storage::engine::{Batch, Engine, Tree};

use super::sidecar::{self, OUTCOME, SESSION};
use crate::codec;
use crate::command::{Outcome, ProposalId, Proposed};
use crate::error::NodeError;
use crate::types::NodeId;

/// How many sequence numbers of one proposer are remembered at most, settled or not. Far more than
/// a proposer may have outstanding while one of its proposals reaches its deadline.
const WINDOW: u64 = 1 << 17;

/// What is known of a proposal when it comes out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is new.
    New,
    /// It was applied before, and came to this.
    Before(Outcome),
    /// Its proposer does not wait for it any more.
    Settled,
}

/// The proposals of one life of one member.
#[derive(Debug, Default)]
struct Session {
    incarnation: u64,
    settled_before: u64,
    /// Encoded outcomes by sequence, with the record that holds each.
    outcomes: BTreeMap<u64, (u64, Bytes)>,
}

type OutcomeRecord = Vec<(ProposalId, Bytes)>;

/// What is remembered of all members' proposals.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    sessions: BTreeMap<NodeId, Session>,
    /// How many outcomes of each record in the engine are still remembered.
    stored: BTreeMap<u64, usize>,
    /// Outcomes that are not written yet.
    fresh: OutcomeRecord,
    /// Sessions that moved since the last write.
    moved: BTreeSet<NodeId>,
    /// Outcomes that were forgotten since the last write, by record.
    forgotten: Vec<u64>,
}

impl Outcomes {
    pub(super) fn load(engine: &dyn Engine) -> Result<Self, NodeError> {
        let mut outcomes = Self::default();
        for (node, (incarnation, settled_before)) in sidecar::load_all(engine, SESSION)? {
            let session = Session { incarnation, settled_before, ..Session::default() };
            outcomes.sessions.insert(node, session);
        }
        for (number, record) in sidecar::load_all::<OutcomeRecord>(engine, OUTCOME)? {
            let mut live = 0;
            for (id, outcome) in record {
                let session = outcomes.sessions.entry(id.node).or_default();
                if session.incarnation == id.incarnation && id.sequence >= session.settled_before {
                    session.outcomes.insert(id.sequence, (number, outcome));
                    live += 1;
                }
            }
            // R2: what is forgotten and its record go in one batch.
            assert!(live > 0, "a stored record must hold a remembered outcome");
            outcomes.stored.insert(number, live);
        }
        Ok(outcomes)
    }

    /// Takes note of a proposal that comes out of the log, and says what is known of it.
    pub(super) fn admit(&mut self, proposed: &Proposed) -> Seen {
        let ProposalId { node, incarnation, sequence } = proposed.id;
        let session = self.sessions.entry(node).or_default();
        if incarnation < session.incarnation {
            return Seen::Settled;
        }
        if incarnation > session.incarnation {
            // A new life: nobody waits for what the old one proposed.
            let old = std::mem::take(&mut session.outcomes);
            self.forgotten.extend(old.into_values().map(|(record, _)| record));
            *session = Session { incarnation, ..Session::default() };
            self.moved.insert(node);
        }
        let settled_before = proposed.settled_before.max(sequence.saturating_sub(WINDOW));
        if settled_before > session.settled_before {
            session.settled_before = settled_before;
            let kept = session.outcomes.split_off(&settled_before);
            let gone = std::mem::replace(&mut session.outcomes, kept);
            self.forgotten.extend(gone.into_values().map(|(record, _)| record));
            self.moved.insert(node);
        }
        if sequence < session.settled_before {
            return Seen::Settled;
        }
        match session.outcomes.get(&sequence) {
            None => Seen::New,
            Some((_, outcome)) => {
                let outcome = Outcome::decode(outcome);
                Seen::Before(outcome.expect("a remembered outcome must decode"))
            }
        }
    }

    /// Remembers what a new proposal came to; written by the next [`Outcomes::write`].
    pub(super) fn remember(&mut self, id: ProposalId, outcome: &Outcome) {
        self.fresh.push((id, outcome.encode()));
    }

    /// Adds to the batch what changed since the last one. `number` is the index of the last entry
    /// in the batch.
    pub(super) fn write(&mut self, number: u64, batch: &mut Batch) {
        for record in self.forgotten.drain(..) {
            let live = self.stored.get_mut(&record).expect("a remembered outcome must be stored");
            *live -= 1;
            if *live == 0 {
                self.stored.remove(&record);
                batch.delete(Tree::State, sidecar::key(OUTCOME, record));
            }
        }
        for node in std::mem::take(&mut self.moved) {
            let session = &self.sessions[&node];
            let value = (session.incarnation, session.settled_before);
            batch.put(Tree::State, sidecar::key(SESSION, node), codec::encode_record(&value));
        }
        self.write_fresh(number, batch);
    }

    fn write_fresh(&mut self, number: u64, batch: &mut Batch) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        let record = codec::encode_record(&fresh);
        let mut live = 0;
        for (id, outcome) in fresh {
            let session = self.sessions.entry(id.node).or_default();
            // Another proposal of the same batch may have settled it already.
            if session.incarnation == id.incarnation && id.sequence >= session.settled_before {
                session.outcomes.insert(id.sequence, (number, outcome));
                live += 1;
            }
        }
        if live > 0 {
            self.stored.insert(number, live);
            batch.put(Tree::State, sidecar::key(OUTCOME, number), record);
        }
    }
}

#[cfg(test)]
mod tests {
    use kontiki_storage::engine::Durability;
    use kontiki_storage::engine::memory::MemoryEngine;
    use kontiki_storage::kv::Revision;

    use super::*;
    use crate::command::{Act, Done};

    fn proposal(incarnation: u64, sequence: u64, settled_before: u64) -> Proposed {
        Proposed {
            id: ProposalId { node: 1, incarnation, sequence },
            settled_before,
            fence: None,
            act: Act::Compact(Revision::EMPTY),
        }
    }

    fn apply(
        outcomes: &mut Outcomes,
        engine: &MemoryEngine,
        index: u64,
        proposed: &Proposed,
    ) -> Seen {
        let seen = outcomes.admit(proposed);
        if seen == Seen::New {
            outcomes.remember(proposed.id, &Outcome(Ok(Done::Compact)));
        }
        let mut batch = Batch::default();
        outcomes.write(index, &mut batch);
        engine.write(batch, Durability::Later).unwrap();
        seen
    }

    fn records(engine: &MemoryEngine) -> usize {
        sidecar::load_all::<OutcomeRecord>(engine, OUTCOME).unwrap().len()
    }

    #[test]
    fn a_repeated_proposal_gets_its_first_outcome_also_after_a_restart() {
        let (mut outcomes, engine) = (Outcomes::default(), MemoryEngine::new());
        assert_eq!(apply(&mut outcomes, &engine, 1, &proposal(1, 0, 0)), Seen::New);
        let before = Seen::Before(Outcome(Ok(Done::Compact)));
        assert_eq!(apply(&mut outcomes, &engine, 2, &proposal(1, 0, 0)), before);
        let mut restarted = Outcomes::load(&engine).unwrap();
        assert_eq!(apply(&mut restarted, &engine, 3, &proposal(1, 0, 0)), before);
    }

    #[test]
    fn a_settled_proposal_is_forgotten_and_refused_if_it_comes_again() {
        let (mut outcomes, engine) = (Outcomes::default(), MemoryEngine::new());
        apply(&mut outcomes, &engine, 1, &proposal(1, 0, 0));
        apply(&mut outcomes, &engine, 2, &proposal(1, 1, 0));
        assert_eq!(records(&engine), 2);
        assert_eq!(apply(&mut outcomes, &engine, 3, &proposal(1, 2, 2)), Seen::New);
        assert_eq!(records(&engine), 1);
        assert_eq!(apply(&mut outcomes, &engine, 4, &proposal(1, 1, 0)), Seen::Settled);
        let mut restarted = Outcomes::load(&engine).unwrap();
        assert_eq!(apply(&mut restarted, &engine, 5, &proposal(1, 1, 0)), Seen::Settled);
    }

    #[test]
    fn a_new_life_of_a_member_ends_what_the_old_one_proposed() {
        let (mut outcomes, engine) = (Outcomes::default(), MemoryEngine::new());
        apply(&mut outcomes, &engine, 1, &proposal(1, 7, 0));
        assert_eq!(apply(&mut outcomes, &engine, 2, &proposal(2, 7, 0)), Seen::New);
        assert_eq!(apply(&mut outcomes, &engine, 3, &proposal(1, 8, 0)), Seen::Settled);
        assert_eq!(records(&engine), 1);
    }
}
