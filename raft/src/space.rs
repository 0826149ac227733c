//! What a leader does not take while its disk is full: whatever makes the store grow. Deleting,
//! compacting and ending leases make room, and go on.

use kontiki_storage::engine::Room;
use kontiki_storage::kv::{Op, Txn};
use kontiki_storage::store::Store;
use tokio::time::Instant;

use crate::command::{Act, Command, Outcome, Refusal};
use crate::local::{self, Attempt, Attempts};
use crate::types::Raft;

/// Whether a command is refused for want of room.
pub(crate) fn is_refused(store: &Store, command: &Command) -> bool {
    store.engine().room() != Room::Ample && grows(command)
}

/// What is answered then: the same at every attempt, so that nobody tries on.
pub(crate) fn refusal() -> Attempt {
    Attempt::Applied(Outcome(Err(Refusal::NoSpace)))
}

/// [`local::propose_all`] of those that are not refused.
pub(crate) async fn propose_all(
    raft: &Raft,
    store: &Store,
    commands: Vec<Command>,
    deadline: Instant,
) -> Attempts {
    if store.engine().room() == Room::Ample {
        return local::propose_all(raft, commands, deadline).await;
    }
    let refused: Vec<bool> = commands.iter().map(grows).collect();
    let taken = commands.into_iter().zip(&refused).filter(|(_, refused)| !**refused);
    let taken: Vec<Command> = taken.map(|(command, _)| command).collect();
    if taken.is_empty() {
        let attempts = refused.iter().map(|_| refusal()).collect();
        return Attempts { attempts, applied_index: 0 };
    }
    let Attempts { attempts, applied_index } = local::propose_all(raft, taken, deadline).await;
    let mut attempts = attempts.into_iter();
    let merge = |refused: bool| if refused { Some(refusal()) } else { attempts.next() };
    Attempts { attempts: refused.into_iter().filter_map(merge).collect(), applied_index }
}

/// One that cannot be read grows nothing: it is refused when it is applied.
fn grows(command: &Command) -> bool {
    let Ok(proposed) = command.decode() else { return false };
    match proposed.act {
        Act::Txn(txn) => puts(&txn),
        Act::LeaseGrant { .. } => true,
        Act::Compact(_) | Act::LeaseRevoke { .. } | Act::LeaseCheckpoint(_) => false,
    }
}

/// Whether a transaction may put anything, whichever way it goes.
fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put { .. } => true,
        Op::Txn(nested) => puts(nested),
        Op::Range(_) | Op::DeleteRange { .. } => false,
    })
}
