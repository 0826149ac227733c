//! Rebuilding the state in memory from what the engine holds.

use std::ops::{Bound, ControlFlow};

use super::State;
use super::state::damaged;
use crate::engine::{Batch, Durability, Engine, EngineError, Tree};
use crate::layout::{self, Head, VersionId, epoch_start};
use crate::lease::Leases;

/// Reads the whole store, checking every record on the way.
pub(crate) fn load(engine: &dyn Engine) -> Result<State, EngineError> {
    layout::check_format(engine)?;
    let head = Head::read(engine)?.unwrap_or_else(Head::empty);
    remove_other_epochs(engine, head.epoch)?;
    load_epoch(engine, head, Leases::load(engine)?)
}

/// Reads the versions that belong to `head`.
pub(crate) fn load_epoch(
    engine: &dyn Engine,
    head: Head,
    leases: Leases,
) -> Result<State, EngineError> {
    let epoch = head.epoch;
    let mut state = State::new(head, leases);
    let mut failure = None;
    let (from, to) = (epoch_start(epoch), epoch_start(epoch + 1));
    engine.scan(
        Tree::Versions,
        Bound::Included(&from),
        Bound::Excluded(&to),
        &mut |key, record| match load_version(&mut state, key, &record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(error) = failure {
        return Err(error);
    }
    state.hashes.push(state.head.revision, state.hash(state.head.hash));
    Ok(state)
}

fn load_version(state: &mut State, key: &[u8], record: &[u8]) -> Result<(), EngineError> {
    let id = VersionId::of_key(key)?;
    let version = layout::decode_version(key, record)?;
    if version.kv.mod_revision != id.revision {
        return Err(damaged(key, "it holds another revision than its key names"));
    }
    if id.revision > state.head.revision {
        return Err(damaged(key, "it is newer than the store's revision (R2)"));
    }
    state.push(id, version);
    Ok(())
}

/// Removes what an interrupted installation of a snapshot, or one just finished, left behind.
fn remove_other_epochs(engine: &dyn Engine, epoch: u32) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    batch.delete_range(Tree::Versions, epoch_start(0), epoch_start(epoch));
    batch.delete_range(Tree::Versions, epoch_start(epoch + 1), epoch_start(u32::MAX));
    engine.write(batch, Durability::Later)
}
