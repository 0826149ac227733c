//! The proposals of this life of this member that await their outcome: a number each, and a bound
//! on how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use kontiki_storage::kv::KvError;
use parking_lot::Mutex;

use crate::command::ProposalId;
use crate::types::NodeId;

/// How many proposals of this member may await their outcome; further ones are refused as
/// [`KvError::Unavailable`].
pub const OUTSTANDING_MAX: usize = 4096;

/// Hands out proposal numbers.
#[derive(Clone)]
pub(crate) struct Proposals {
    node: NodeId,
    incarnation: u64,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    outstanding: BTreeSet<u64>,
}

/// A proposal under way. Dropping it settles it: nobody waits for its outcome any more.
pub(crate) struct Ticket {
    pub(crate) id: ProposalId,
    pub(crate) settled_before: u64,
    open: Arc<Mutex<Open>>,
}

impl Proposals {
    pub(crate) fn new(node: NodeId, incarnation: u64) -> Self {
        Self { node, incarnation, open: Arc::default() }
    }

    pub(crate) fn begin(&self) -> Result<Ticket, KvError> {
        let mut open = self.open.lock();
        if open.outstanding.len() >= OUTSTANDING_MAX {
            return Err(KvError::Unavailable {
                reason: format!("{OUTSTANDING_MAX} requests await their outcome already"),
            });
        }
        let sequence = open.next;
        open.next += 1;
        open.outstanding.insert(sequence);
        let settled_before = open.outstanding.first().copied().unwrap_or(sequence);
        let id = ProposalId { node: self.node, incarnation: self.incarnation, sequence };
        Ok(Ticket { id, settled_before, open: Arc::clone(&self.open) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.open.lock().outstanding.remove(&self.id.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_waits_for_is_settled() {
        let proposals = Proposals::new(1, 1);
        let first = proposals.begin().unwrap();
        let second = proposals.begin().unwrap();
        assert_eq!((second.id.sequence, second.settled_before), (1, 0));
        drop(first);
        assert_eq!(proposals.begin().unwrap().settled_before, 1);
    }

    #[test]
    fn beyond_the_bound_proposals_are_refused_until_one_is_settled() {
        let proposals = Proposals::new(1, 1);
        let mut tickets: Vec<_> =
            (0..OUTSTANDING_MAX).map(|_| proposals.begin().unwrap()).collect();
        assert!(proposals.begin().is_err_and(|error| error.is_retryable()));
        tickets.pop();
        proposals.begin().unwrap();
    }
}
