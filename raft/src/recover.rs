//! A new cluster from what one member of a lost one has.
//!
//! The member's whole log counts, also what it does not know to be committed: the quorum that knew
//! is gone, and an entry that was acknowledged must not be lost because the news of it was. The
//! state that results is then moved into a new store as a snapshot is (`restore.rs`): with a new
//! identity, a log that begins behind it, and its revision far ahead of what clients may have seen.

use std::sync::Arc;

use kontiki_storage::engine::Engine;
use kontiki_storage::kv::{Revision, Term};
use kontiki_storage::layout::Identity;
use kontiki_storage::store::Store;
use openraft::EntryPayload;

use crate::config::Blocking;
use crate::error::NodeError;
use crate::log_store::LogStore;
use crate::restore::{Founder, RestoreError, reborn};
use crate::state_machine::StateMachine;
use crate::status::MemberStatus;
use crate::types::Entry;

/// How many entries are applied at a time.
const STRIDE: u64 = 1_000;

/// What a member that does not run was when it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Who it was.
    pub identity: Identity,
    /// Term and index of the last entry of its log: who has the greatest has all that any has.
    pub last_log: (Term, u64),
    /// The members by the last change in its log.
    pub members: Vec<MemberStatus>,
}

/// What is read from an engine whose node does not run.
struct Opened {
    store: Store,
    log: LogStore,
    machine: StateMachine,
}

impl Opened {
    fn open(engine: &Arc<dyn Engine>) -> Result<Self, NodeError> {
        let store = Store::open(Arc::clone(engine))?;
        let log = LogStore::open(Arc::clone(engine), Blocking::Threads)?;
        let machine = StateMachine::open(store.clone(), log.clone(), Blocking::Threads)?;
        Ok(Self { store, log, machine })
    }

    /// Calls `each` with all entries behind the state, in order.
    fn unapplied(
        &self,
        each: &mut dyn FnMut(&[Entry]) -> std::io::Result<()>,
    ) -> Result<(), NodeError> {
        let broken = |error: std::io::Error| NodeError::Log { reason: error.to_string() };
        let mut next = self.machine.applied_index() + 1;
        loop {
            let entries = self.log.read_now(next, next + STRIDE).map_err(broken)?;
            let Some(last) = entries.last() else { return Ok(()) };
            next = last.log_id.index + 1;
            each(&entries).map_err(broken)?;
        }
    }
}

fn nobody(what: &str) -> NodeError {
    NodeError::Log { reason: format!("the store has no {what}: no member was ever here") }
}

/// Looks at the store of a member that does not run. It blocks.
pub fn look(engine: &Arc<dyn Engine>) -> Result<Survivor, NodeError> {
    let identity = Identity::read(&**engine)?.ok_or_else(|| nobody("identity"))?;
    let opened = Opened::open(engine)?;
    let mut membership = opened.machine.membership();
    opened.unapplied(&mut |entries| {
        for entry in entries {
            if let EntryPayload::Membership(changed) = &entry.payload {
                membership = changed.clone();
            }
        }
        Ok(())
    })?;
    let last = opened.log.last().ok_or_else(|| nobody("log"))?;
    Ok(Survivor {
        identity,
        last_log: (Term(last.leader_id.term), last.index),
        members: crate::node::members(&membership),
    })
}

/// Makes the empty `into` the founder's of a new cluster that begins with all that `from` has,
/// `bump` revisions further on; returns the revision it begins at. What is not yet applied in `from`
/// is applied there: it must be a copy, which no node is started on again. It blocks.
pub fn recover(
    from: &Arc<dyn Engine>,
    into: &Arc<dyn Engine>,
    founder: &Founder,
    bump: u64,
) -> Result<Revision, RestoreError> {
    let opened = Opened::open(from)?;
    opened.unapplied(&mut |entries| opened.machine.apply_now(entries))?;
    let mut snapshot = opened.store.snapshot().map_err(NodeError::from)?;
    reborn(into, founder, bump, |installer| {
        while let Some(chunk) = snapshot.next_chunk().map_err(NodeError::from)? {
            installer.push(&chunk).map_err(NodeError::from)?;
        }
        Ok(())
    })
}
