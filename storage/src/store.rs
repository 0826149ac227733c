//! [`Store`]: applies commands in order, answers reads, feeds watchers.
//!
//! The order of a write is fixed here, and only here (`apply`):
//!
//! 1. evaluate the commands against the state, changing nothing;
//! 2. write all that follows, with the position in the log, as one batch of the engine (R2);
//! 3. publish the new state to readers;
//! 4. tell the watchers.
//!
//! So a watcher that learns of a revision can read it, and what a reader sees is in the engine.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::engine::{Batch, Engine};
use crate::error::StoreError;
use crate::kv::{KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest};
use crate::latest;
use crate::lease::{Lease, LeaseTerms};
use crate::snapshot::Pins;
use crate::watch::{Replay, ReplayThread, WatchHub, Watcher};

pub(crate) mod apply;
mod history;
pub(crate) mod open;
mod read;
pub(crate) mod state;

pub use history::{Change, Visited};
pub(crate) use state::State;

/// A command of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Do a transaction.
    Txn(Txn),
    /// Forget history before a revision.
    Compact(Revision),
    /// Make a lease.
    LeaseGrant {
        /// Its number; not 0.
        id: i64,
        /// For how long.
        ttl_seconds: i64,
    },
    /// End a lease: the keys that live by it are deleted, in one revision.
    LeaseRevoke {
        /// Its number.
        id: i64,
        /// Which grant of that number must be in force; `None` is any.
        grant: Option<u64>,
    },
    /// Note what is left of leases: of each its number and the seconds, or `None` for all of it.
    /// Those that do not exist are passed over.
    LeaseCheckpoint(Vec<(i64, Option<i64>)>),
}

/// What a command came to. A refusal is an outcome: it is the same on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// Of [`StoreCommand::Txn`].
    Txn(Result<TxnResponse, KvError>),
    /// Of [`StoreCommand::Compact`].
    Compact(Result<(), KvError>),
    /// Of [`StoreCommand::LeaseGrant`] and [`StoreCommand::LeaseRevoke`]: the store's revision.
    Lease(Result<Revision, KvError>),
    /// Of [`StoreCommand::LeaseCheckpoint`].
    LeaseCheckpoint,
}

/// Commands to apply together: all of it survives a crash, or nothing.
#[derive(Debug, Default)]
pub struct ApplyBatch {
    /// In the order of the log.
    pub commands: Vec<StoreCommand>,
    /// The position in the log after them, in its owner's words.
    pub applied: Bytes,
    /// What else to write in the same batch of the engine. It must leave the trees `Versions` and
    /// the key `head` of `Meta` alone.
    pub sidecar: Batch,
}

/// A multi-version store over an engine. Clones share it.
///
/// Its methods block, for a moment or for the disk, unless they are `async`.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    /// Serves watchers that start in the past, where a thread does; ends with the last clone of the store.
    _replay: Option<Arc<ReplayThread>>,
}

/// What the store's clones, its watchers and its snapshots share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) state: RwLock<State>,
    /// Held by whoever changes the state: `apply` and the installation of a snapshot.
    pub(crate) writer: Mutex<apply::Writer>,
    pub(crate) hub: WatchHub,
    pub(crate) pins: Pins,
    revision: latest::Sender<Revision>,
    /// Counts the changes of leases.
    leases: latest::Sender<u64>,
    /// The position in the log as of the last sync.
    durable: Mutex<Option<Bytes>>,
    failed: OnceLock<String>,
}

impl Store {
    /// Opens the store in `engine`: checks its format and every record, and rebuilds the index and
    /// the latest state in memory. An engine that is empty becomes an empty store.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        let shared = Self::load(engine)?;
        let replay = ReplayThread::start(&shared)?;
        Ok(Self { shared, _replay: Some(Arc::new(replay)) })
    }

    /// [`Store::open`] without a thread of its own: the caller must run [`Replay`], or no watcher
    /// that starts in the past is served.
    pub fn open_with_replay(engine: Arc<dyn Engine>) -> Result<(Self, Replay), StoreError> {
        let shared = Self::load(engine)?;
        let replay = Replay::new(&shared);
        Ok((Self { shared, _replay: None }, replay))
    }

    fn load(engine: Arc<dyn Engine>) -> Result<Arc<Shared>, StoreError> {
        let state = open::load(&*engine)?;
        // What is read at open was written before a sync or survived a crash: make sure of it.
        engine.sync()?;
        Ok(Arc::new(Shared {
            hub: WatchHub::new(state.head.revision),
            revision: latest::Sender::new(state.head.revision),
            leases: latest::Sender::new(0),
            durable: Mutex::new(state.head.applied.clone()),
            writer: Mutex::new(apply::Writer::resume(&state)),
            state: RwLock::new(state),
            pins: Pins::default(),
            failed: OnceLock::new(),
            engine,
        }))
    }

    /// Applies commands in order and returns what each came to, in their order. It is
    /// deterministic. An error is fatal: the store applies nothing more.
    pub fn apply(&self, batch: ApplyBatch) -> Result<Vec<ApplyOutcome>, StoreError> {
        self.apply_with(batch, |_, _| {})
    }

    /// [`Store::apply`], where `add` adds to the same batch of the engine what can only be said
    /// once the outcomes are known. The sidecar's rules hold for what it adds.
    pub fn apply_with(
        &self,
        batch: ApplyBatch,
        add: impl FnOnce(&[ApplyOutcome], &mut Batch),
    ) -> Result<Vec<ApplyOutcome>, StoreError> {
        self.shared.refuse_if_failed()?;
        apply::apply(&self.shared, batch, add).inspect_err(|error| self.shared.fail(error))
    }

    /// The engine beneath.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.shared.engine
    }

    /// The position in the log up to which the store has applied; `None` where it never has.
    pub fn applied(&self) -> Option<Bytes> {
        self.shared.state.read().head.applied.clone()
    }

    /// The position in the log up to which the store is on stable storage. The log may be purged
    /// up to here and not further (R2).
    pub fn durable_applied(&self) -> Option<Bytes> {
        self.shared.durable.lock().clone()
    }

    /// Puts all that is applied on stable storage.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.refuse_if_failed()?;
        let applied = self.applied();
        self.shared.engine.sync().map_err(StoreError::from).inspect_err(|e| self.shared.fail(e))?;
        *self.shared.durable.lock() = applied;
        Ok(())
    }

    /// The revision that is applied.
    pub fn revision(&self) -> Revision {
        self.shared.state.read().head.revision
    }

    /// The revision before which history is forgotten; zero where none is.
    pub fn compacted(&self) -> Revision {
        self.shared.state.read().head.compacted
    }

    /// The hash of the state, and the revision it is of (R6).
    pub fn hash(&self) -> (Revision, u64) {
        let state = self.shared.state.read();
        (state.head.revision, state.hash(state.head.hash))
    }

    /// The hash of the state at a revision; `None` where it is no longer, or not yet, known here.
    pub fn hash_at(&self, revision: Revision) -> Option<u64> {
        self.shared.state.read().hashes.at(revision)
    }

    /// Stops for good: nothing is applied, read or told to watchers any more.
    pub fn stop(&self, reason: &str) {
        self.shared.fail(&StoreError::Stopped { reason: reason.to_owned() });
    }

    /// A lease, where it exists here.
    pub fn lease(&self, id: i64) -> Option<LeaseTerms> {
        self.shared.state.read().leases.terms(id)
    }

    /// All leases, by number.
    pub fn leases(&self) -> Vec<Lease> {
        self.shared.state.read().leases.all()
    }

    /// The keys that live by a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.shared.state.read().leases.keys(id)
    }

    /// How many keys exist.
    pub fn len(&self) -> usize {
        self.shared.state.read().index.len_existing()
    }

    /// Whether no key exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads keys as of what is applied, whatever consistency the request asks for. It reads the
    /// disk only for a past revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.shared.refuse_if_failed()?;
        read::range(&self.shared, request)
    }

    /// [`Store::range`] for callers on an async runtime: a read of the past runs on a thread that
    /// may block.
    pub async fn read(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if request.revision.is_none_or(|revision| revision == self.revision()) {
            return self.range(&request);
        }
        let store = self.clone();
        let reading = tokio::task::spawn_blocking(move || store.range(&request));
        reading.await.map_err(|error| KvError::Unavailable { reason: error.to_string() })?
    }

    /// Begins a watch. Returns at once; what happened in the past is replayed in the background.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        self.shared.refuse_if_failed()?;
        crate::watch::begin(&self.shared, request)
    }

    /// Waits until `revision` is applied; [`KvError::Unavailable`] when it is not by `deadline`.
    pub async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<(), KvError> {
        let mut applied = self.shared.revision.subscribe();
        let reached = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(KvError::Unavailable {
                reason: format!("revision {revision} is not applied here yet"),
            }),
        }
    }

    /// Is told of each change of leases.
    pub fn subscribe_leases(&self) -> latest::Receiver<u64> {
        self.shared.leases.subscribe()
    }

    /// Follows the revision that is applied.
    pub fn subscribe_revision(&self) -> latest::Receiver<Revision> {
        self.shared.revision.subscribe()
    }
}

impl Shared {
    pub(crate) fn refuse_if_failed(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(reason) => Err(StoreError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Stops the store for good, and tells the watchers. The hub's lock must not be held.
    pub(crate) fn fail(&self, error: &StoreError) {
        let reason = error.reason();
        tracing::error!(reason, "the store stops");
        let _ = self.failed.set(reason.clone());
        self.hub.close_all(&KvError::Failed { reason });
    }

    /// Tells those who wait that the state is now at `revision`.
    pub(crate) fn announce(&self, revision: Revision) {
        self.revision.send_replace(revision);
    }

    /// Tells those who wait that leases have changed.
    pub(crate) fn announce_leases(&self) {
        self.leases.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn set_durable(&self, applied: Option<Bytes>) {
        *self.durable.lock() = applied;
    }
}

#[cfg(test)]
mod tests;
