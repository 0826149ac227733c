//! What is to be done with some entries, decided from the log and the memory of outcomes alone.

use std::collections::BTreeSet;

use kontiki_storage::kv::Term;
use kontiki_storage::store::{ApplyOutcome, StoreCommand};
use openraft::EntryPayload;

use super::outcomes::{Outcomes, Seen};
use crate::command::{Act, Command, Done, Outcome, ProposalId, Proposed, Refusal};
use crate::types::{Entry, LogId, StoredMembership};

/// What becomes of one entry.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The store does its command; the outcome is remembered under this.
    Do(ProposalId),
    /// It is known already what it comes to.
    Known(Outcome),
}

/// What to do with the first entries of a run.
#[derive(Debug)]
pub(super) struct Plan {
    /// One for each entry.
    pub(super) verdicts: Vec<Verdict>,
    /// One for each [`Verdict::Do`].
    pub(super) commands: Vec<StoreCommand>,
    /// The last entry planned for.
    pub(super) applied: LogId,
    /// The last membership among them.
    pub(super) membership: Option<StoredMembership>,
}

impl Plan {
    /// Plans for the first entries of `entries`, which must not be empty; for all of them, unless
    /// one repeats a proposal of this plan, whose outcome is not known yet.
    pub(super) fn of(entries: &[Entry], memory: &mut Outcomes) -> Self {
        let mut plan = Self {
            verdicts: Vec::with_capacity(entries.len()),
            commands: Vec::with_capacity(entries.len()),
            applied: entries[0].log_id,
            membership: None,
        };
        let mut planned = BTreeSet::new();
        for entry in entries {
            let verdict = match &entry.payload {
                EntryPayload::Blank => Verdict::Known(Outcome(Ok(Done::Nothing))),
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                    plan.membership = Some(stored);
                    Verdict::Known(Outcome(Ok(Done::Nothing)))
                }
                EntryPayload::Normal(command) => {
                    let Some(verdict) = plan.judge(entry.log_id, command, &mut planned, memory)
                    else {
                        return plan;
                    };
                    verdict
                }
            };
            plan.verdicts.push(verdict);
            plan.applied = entry.log_id;
        }
        plan
    }

    /// `None` when the command repeats one of this plan.
    fn judge(
        &mut self,
        log_id: LogId,
        command: &Command,
        planned: &mut BTreeSet<ProposalId>,
        memory: &mut Outcomes,
    ) -> Option<Verdict> {
        let proposed = match command.decode() {
            Ok(proposed) => proposed,
            Err(error) => {
                let refusal = Refusal::Other(format!("the command cannot be read: {error}"));
                return Some(Verdict::Known(Outcome(Err(refusal))));
            }
        };
        if planned.contains(&proposed.id) {
            return None;
        }
        let id = proposed.id;
        let seen = memory.admit(&proposed);
        Some(match (seen, refuse_if_fenced(&proposed, log_id)) {
            (Seen::Before(outcome), _) => Verdict::Known(outcome),
            (Seen::Settled, _) => Verdict::Known(Outcome(Err(Refusal::Settled))),
            (Seen::New, Some(refusal)) => Verdict::Known(Outcome(Err(refusal))),
            (Seen::New, None) => {
                planned.insert(id);
                self.commands.push(match proposed.act {
                    Act::Txn(txn) => StoreCommand::Txn(txn),
                    Act::Compact(revision) => StoreCommand::Compact(revision),
                    Act::LeaseGrant { id, ttl_seconds } => {
                        StoreCommand::LeaseGrant { id, ttl_seconds }
                    }
                    Act::LeaseRevoke { id, grant } => StoreCommand::LeaseRevoke { id, grant },
                    Act::LeaseCheckpoint(left) => StoreCommand::LeaseCheckpoint(left),
                });
                Verdict::Do(id)
            }
        })
    }
}

/// R9: what was proposed under one term counts only when it was logged in that term.
fn refuse_if_fenced(proposed: &Proposed, log_id: LogId) -> Option<Refusal> {
    let current = Term(log_id.leader_id.term);
    let term = proposed.fence.filter(|fence| *fence != current)?;
    Some(Refusal::Fenced { term, current })
}

/// The outcome of each entry, once the store has said what its commands came to; those are
/// remembered.
pub(super) fn settle(
    verdicts: Vec<Verdict>,
    applied: &[ApplyOutcome],
    memory: &mut Outcomes,
) -> Vec<Outcome> {
    let mut applied = applied.iter();
    let outcomes = verdicts
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Known(outcome) => outcome,
            Verdict::Do(id) => {
                let outcome = applied.next().expect("each command must have an outcome");
                let outcome = outcome_of(outcome);
                memory.remember(id, &outcome);
                outcome
            }
        })
        .collect();
    assert!(applied.next().is_none(), "each outcome must belong to a command");
    outcomes
}

fn outcome_of(applied: &ApplyOutcome) -> Outcome {
    Outcome(match applied {
        ApplyOutcome::Txn(Ok(response)) => Ok(Done::Txn(response.clone())),
        ApplyOutcome::Compact(Ok(())) => Ok(Done::Compact),
        ApplyOutcome::Lease(Ok(revision)) => Ok(Done::Lease(*revision)),
        ApplyOutcome::LeaseCheckpoint => Ok(Done::LeaseCheckpoint),
        ApplyOutcome::Txn(Err(error))
        | ApplyOutcome::Compact(Err(error))
        | ApplyOutcome::Lease(Err(error)) => Err(Refusal::from(error.clone())),
    })
}
