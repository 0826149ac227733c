//! [`LocalKv`]: the trait [`Kv`] over one store in this process, without replication.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;
use crate::error::StoreError;
use crate::kv::{
    Consistency, Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, Term, TxnResponse,
    WatchRequest, Watcher,
};
use crate::store::{ApplyBatch, ApplyOutcome, Store, StoreCommand};

/// How long a read waits for the revision it must not be older than.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The term of a store that has no elections.
const TERM: Term = Term(1);

/// One store as a [`Kv`]: each write is durable when it is answered.
#[derive(Clone)]
pub struct LocalKv {
    store: Store,
}

impl LocalKv {
    /// Over the store that `engine` holds.
    pub fn open(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(engine)? })
    }

    /// Over an empty store in memory.
    pub fn in_memory() -> Self {
        let store = Store::open(Arc::new(MemoryEngine::new()));
        Self { store: store.expect("an empty store in memory must open") }
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Applies one command durably, on a thread that may block.
    async fn apply(&self, command: StoreCommand) -> Result<ApplyOutcome, KvError> {
        let store = self.store.clone();
        let applying = tokio::task::spawn_blocking(move || {
            let batch = ApplyBatch {
                commands: vec![command],
                applied: Bytes::new(),
                ..ApplyBatch::default()
            };
            let mut outcomes = store.apply(batch)?;
            store.sync()?;
            Ok::<_, StoreError>(outcomes.pop())
        });
        let outcome =
            applying.await.map_err(|error| KvError::Unknown { reason: error.to_string() });
        outcome??.ok_or_else(|| KvError::Failed { reason: "a command without outcome".to_owned() })
    }
}

#[async_trait]
impl Kv for LocalKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if let Consistency::NotOlderThan(revision) = request.consistency {
            self.store.wait_for(revision, Instant::now() + WAIT_MAX).await?;
        }
        self.store.read(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        if let Some(term) = proposal.fence.filter(|term| *term != TERM) {
            return Err(KvError::Fenced { term, current: TERM });
        }
        match self.apply(StoreCommand::Txn(proposal.txn)).await? {
            ApplyOutcome::Txn(outcome) => outcome,
            _ => Err(KvError::Failed { reason: "a transaction with another's outcome".to_owned() }),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        self.store.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        match self.apply(StoreCommand::Compact(revision)).await? {
            ApplyOutcome::Compact(outcome) => outcome,
            _ => Err(KvError::Failed { reason: "a compaction with another's outcome".to_owned() }),
        }
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }
}
