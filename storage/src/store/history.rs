//! The whole history, version by version: for checksums and copies of it.

use std::ops::{Bound, ControlFlow};

use super::{Shared, Store};
use crate::engine::{EngineError, Tree};
use crate::error::StoreError;
use crate::kv::{EventKind, KeyValue, KvError, Revision};
use crate::layout::{self, VersionId, epoch_start};
use crate::snapshot::Pin;
use crate::txn::check_revision;

/// One change of one key, with its place.
#[derive(Debug)]
pub struct Change<'a> {
    /// Its revision.
    pub revision: Revision,
    /// Which change of that revision.
    pub sub: u32,
    /// Put or deleted.
    pub kind: EventKind,
    /// The key after it; of a deletion, its key and revision only.
    pub kv: &'a KeyValue,
}

/// What was visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visited {
    /// Up to which revision.
    pub revision: Revision,
    /// History before this one is forgotten.
    pub compacted: Revision,
}

impl Store {
    /// Visits, oldest first, every change up to `revision` (`None` is the latest) that a store can
    /// still show: of those up to the compacted revision, only what is still current at `revision`.
    /// It blocks; nothing is removed from history meanwhile.
    pub fn visit_history(
        &self,
        revision: Option<Revision>,
        visit: &mut dyn FnMut(Change<'_>),
    ) -> Result<Visited, KvError> {
        self.shared.refuse_if_failed()?;
        let _pin = Pin::of(&self.shared);
        let (head, at) = {
            let state = self.shared.state.read();
            let head = state.head.clone();
            check_revision(revision, head.revision, head.compacted)?;
            (head.clone(), revision.unwrap_or(head.revision))
        };
        let from = epoch_start(head.epoch);
        let to = VersionId::first_of(at.next()).key(head.epoch);
        let mut failure = None;
        let mut one = |key: &[u8], record: &[u8]| -> Result<(), EngineError> {
            let (id, version) = (VersionId::of_key(key)?, layout::decode_version(key, record)?);
            if id.revision > head.compacted || is_current(&self.shared, &version.kv, id, at) {
                let VersionId { revision, sub } = id;
                visit(Change { revision, sub, kind: version.kind, kv: &version.kv });
            }
            Ok(())
        };
        self.shared
            .engine
            .scan(
                Tree::Versions,
                Bound::Included(&from),
                Bound::Excluded(&to),
                &mut |key, record| match one(key, &record) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                },
            )
            .and_then(|()| failure.map_or(Ok(()), Err))
            .map_err(|error| {
                let error = StoreError::from(error);
                self.shared.fail(&error);
                KvError::from(error)
            })?;
        Ok(Visited { revision: at, compacted: head.compacted })
    }

    /// How many bytes the keys that exist have, with their values.
    pub fn live_bytes(&self) -> u64 {
        self.shared.state.read().live_bytes
    }
}

/// Whether a version is what a reader at `at` sees of its key.
fn is_current(shared: &Shared, kv: &KeyValue, id: VersionId, at: Revision) -> bool {
    let state = shared.state.read();
    state.index.get(&kv.key).and_then(|history| history.at(at)) == Some(id)
}
