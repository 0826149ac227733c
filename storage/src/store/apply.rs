//! The one path by which the store changes.

use std::sync::Arc;

use super::state::StateView;
use super::{ApplyBatch, ApplyOutcome, Shared, State, StoreCommand};
use crate::codec;
use crate::compact::Scrub;
use crate::engine::{Batch, Durability, EngineError, Tree};
use crate::error::StoreError;
use crate::hash;
use crate::kv::{InvalidRequest, KvError, Revision, Txn, TxnResponse};
use crate::layout::{Head, Version, VersionId};
use crate::lease::{LeaseChange, LeaseTerms, Ledger, TTL_SECONDS_MAX};
use crate::txn::{self, EvaluateError, Evaluated, Layer, Mutation, View};
use crate::watch::Revised;

/// What belongs to whoever changes the state.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The compaction that is under way.
    pub(crate) scrub: Option<Scrub>,
}

impl Writer {
    /// The writer of a state that was just read. A compaction may have been under way when it was
    /// left; going over it again is harmless.
    pub(crate) fn resume(state: &State) -> Self {
        Self { scrub: Scrub::of(state.head.compacted) }
    }
}

/// See [`super`] for the order of things.
pub(super) fn apply(
    shared: &Shared,
    batch: ApplyBatch,
    add: impl FnOnce(&[ApplyOutcome], &mut Batch),
) -> Result<Vec<ApplyOutcome>, StoreError> {
    let mut writer = shared.writer.lock();
    let ApplyBatch { commands, applied, sidecar } = batch;

    let state = shared.state.read();
    let view = StateView { state: &state, engine: &*shared.engine };
    let mut stage = Stage::new(&view, state.head.clone(), state.leases.ledger(), sidecar);
    let outcomes = commands
        .into_iter()
        .map(|command| stage.run(command))
        .collect::<Result<Vec<_>, EngineError>>()?;
    let mut staged = stage.finish();
    staged.head.applied = Some(applied);
    let slice = writer.scrub.as_ref().filter(|_| shared.pins.is_empty()).map(|scrub| {
        let slice = scrub.plan(&state.index);
        slice.put_into(state.head.epoch, &mut staged.writes);
        slice
    });
    drop(state);

    add(&outcomes, &mut staged.writes);
    staged.head.put_into(&mut staged.writes);
    shared.engine.write(std::mem::take(&mut staged.writes), Durability::Later)?;

    let compacts = staged.compacts;
    let changes_leases = !staged.leases.is_empty();
    let revision = staged.head.revision;
    let published = {
        let mut state = shared.state.write();
        let published = staged.publish(&mut state);
        if let Some(slice) = slice {
            writer.scrub = slice.forget(&mut state.index);
        }
        if compacts {
            writer.scrub = Scrub::of(state.head.compacted);
        }
        published
    };
    shared.hub.publish(revision, published);
    shared.announce(revision);
    if changes_leases {
        shared.announce_leases();
    }
    Ok(outcomes)
}

/// Commands evaluated but not yet published.
struct Stage<'a> {
    layer: Layer<'a>,
    staged: Staged,
}

/// What is to become of the state.
struct Staged {
    head: Head,
    writes: Batch,
    revised: Vec<(Revision, u64, Vec<Mutation>)>,
    compacts: bool,
    leases: Vec<LeaseChange>,
    ledger: Ledger,
}

impl<'a> Stage<'a> {
    fn new(view: &'a dyn View, head: Head, ledger: Ledger, writes: Batch) -> Self {
        let (revised, leases) = (Vec::new(), Vec::new());
        let staged = Staged { head, writes, revised, compacts: false, leases, ledger };
        Self { layer: Layer::over(view), staged }
    }

    fn run(&mut self, command: StoreCommand) -> Result<ApplyOutcome, EngineError> {
        match command {
            StoreCommand::Txn(txn) => self.txn(&txn).map(ApplyOutcome::Txn),
            StoreCommand::Compact(revision) => Ok(ApplyOutcome::Compact(self.compact(revision))),
            StoreCommand::LeaseGrant { id, ttl_seconds } => {
                Ok(ApplyOutcome::Lease(self.grant(id, ttl_seconds)))
            }
            StoreCommand::LeaseRevoke { id, grant } => {
                self.revoke(id, grant).map(ApplyOutcome::Lease)
            }
            StoreCommand::LeaseCheckpoint(left) => {
                self.checkpoint(left);
                Ok(ApplyOutcome::LeaseCheckpoint)
            }
        }
    }

    fn set_lease(&mut self, change: LeaseChange) {
        self.layer.set_lease(change);
        self.staged.ledger.change(&mut self.staged.writes, change);
        self.staged.leases.push(change);
    }

    fn grant(&mut self, id: i64, ttl_seconds: i64) -> Result<Revision, KvError> {
        if id == 0 {
            return Err(InvalidRequest::LeaseNotFound.into());
        }
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(InvalidRequest::LeaseTooLong.into());
        }
        if self.layer.lease(id).is_some() {
            return Err(InvalidRequest::LeaseExists.into());
        }
        self.staged.ledger.grants += 1;
        let grant = self.staged.ledger.grants;
        self.set_lease((id, Some(LeaseTerms { ttl_seconds, remaining_seconds: None, grant })));
        Ok(self.staged.head.revision)
    }

    fn revoke(
        &mut self,
        id: i64,
        grant: Option<u64>,
    ) -> Result<Result<Revision, KvError>, EngineError> {
        let terms = self.layer.lease(id);
        if terms.is_none_or(|terms| grant.is_some_and(|grant| grant != terms.grant)) {
            return Ok(Err(InvalidRequest::LeaseNotFound.into()));
        }
        let keys = self.layer.lease_keys(id);
        let evaluated = match txn::delete_keys(&self.layer, &keys) {
            Ok(evaluated) => evaluated,
            Err(EvaluateError::Refused(refusal)) => return Ok(Err(refusal)),
            Err(EvaluateError::Engine(error)) => return Err(error),
        };
        self.set_lease((id, None));
        self.stage(evaluated);
        Ok(Ok(self.staged.head.revision))
    }

    fn checkpoint(&mut self, left: Vec<(i64, Option<i64>)>) {
        for (id, remaining_seconds) in left {
            if let Some(terms) = self.layer.lease(id) {
                self.set_lease((id, Some(LeaseTerms { remaining_seconds, ..terms })));
            }
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<Result<TxnResponse, KvError>, EngineError> {
        let evaluated = match txn.evaluate(&self.layer) {
            Ok(evaluated) => evaluated,
            Err(EvaluateError::Refused(refusal)) => return Ok(Err(refusal)),
            Err(EvaluateError::Engine(error)) => return Err(error),
        };
        Ok(Ok(self.stage(evaluated)))
    }

    /// Adds what a transaction does, if anything; returns its answer.
    fn stage(&mut self, evaluated: Evaluated) -> TxnResponse {
        if !evaluated.mutations.is_empty() {
            let revision = self.staged.head.revision.next();
            assert_eq!(
                evaluated.response.revision, revision,
                "R3: a write takes the next revision"
            );
            for mutation in &evaluated.mutations {
                let after = matches!(mutation.kind, crate::kv::EventKind::Put);
                let kv = after.then(|| mutation.kv.clone());
                self.layer.set(mutation.kv.key.clone(), revision, kv);
            }
            self.staged.record(revision, evaluated.mutations);
        }
        evaluated.response
    }

    fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        let Head { revision: current, compacted, .. } = self.staged.head;
        if revision > current {
            return Err(KvError::FutureRevision { requested: revision, current });
        }
        if revision <= compacted {
            return Err(KvError::Compacted { requested: revision, compacted });
        }
        self.staged.head.compacted = revision;
        self.staged.compacts = true;
        self.layer.set_compacted(revision);
        Ok(())
    }

    fn finish(self) -> Staged {
        self.staged
    }
}

impl Staged {
    /// Writes the versions of one transaction and adds them to the hash.
    fn record(&mut self, revision: Revision, mutations: Vec<Mutation>) {
        self.head.revision = revision;
        self.head.hash = hash::extend(self.head.hash, &revision.get().to_le_bytes());
        self.head.hash = hash::extend(self.head.hash, &self.ledger.hash.to_le_bytes());
        for (sub, mutation) in (0_u32..).zip(&mutations) {
            let version = Version { kind: mutation.kind, kv: mutation.kv.clone() };
            let record = codec::encode(&version);
            self.head.hash = hash::extend(self.head.hash, &record);
            let key = VersionId { revision, sub }.key(self.head.epoch);
            self.writes.put(Tree::Versions, key, record);
        }
        self.revised.push((revision, self.head.hash, mutations));
    }

    /// Makes the new state what readers see; returns the events of it.
    fn publish(self, state: &mut State) -> Vec<Arc<Revised>> {
        let mut published = Vec::with_capacity(self.revised.len());
        for (revision, hash, mutations) in self.revised {
            for (sub, mutation) in (0_u32..).zip(&mutations) {
                let version = Version { kind: mutation.kind, kv: mutation.kv.clone() };
                state.push(VersionId { revision, sub }, version);
            }
            let hash = state.hash(hash);
            state.hashes.push(revision, hash);
            published.push(Arc::new(Revised::new(revision, mutations)));
        }
        state.leases.publish(self.leases, self.ledger);
        state.head = self.head;
        published
    }
}
