//! Bugs put in on purpose, to see that they are found. They sit between the cluster and its clients,
//! or its disks, so that nothing of them is in any server.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::engine::{Batch, Durability, Engine, EngineError, Tree, Visit};
use kontiki_storage::kv::{
    Consistency, Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, TxnResponse,
    WatchRequest, Watcher,
};

/// A bug that a cluster may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Log entries count as durable before they are (R1).
    AcknowledgeBeforeSync,
    /// A request that takes long is proposed anew, as another (R10).
    ApplyTwice,
    /// Reads are answered from whatever the member has applied (R4).
    ReadWithoutReadIndex,
    /// A member tells its watchers of a write before it is committed (R5).
    PublishEarly,
    /// A lease that is renewed is ended by a member that led once (R7).
    ExpireAsDeposedLeader,
}

pub(super) struct Seeded;

impl Seeded {
    /// The disk of a member.
    pub(super) fn engine(engine: Arc<MemoryEngine>, bug: Option<Bug>) -> Arc<dyn Engine> {
        match bug {
            Some(Bug::AcknowledgeBeforeSync) => Arc::new(Hasty(engine)),
            _ => engine,
        }
    }

    /// A member's store, as its clients have it.
    pub(super) fn kv(kv: Arc<dyn Kv>, bug: Option<Bug>) -> Arc<dyn Kv> {
        match bug {
            Some(bug @ (Bug::ApplyTwice | Bug::ReadWithoutReadIndex)) => Arc::new(Buggy(kv, bug)),
            _ => kv,
        }
    }
}

/// Does not sync what it says to have synced.
struct Hasty(Arc<MemoryEngine>);

impl Engine for Hasty {
    fn write(&self, batch: Batch, _: Durability) -> Result<(), EngineError> {
        self.0.write(batch, Durability::Later)
    }

    fn sync(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.0.get(tree, key)
    }

    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.0.scan(tree, from, to, visit)
    }

    fn last(&self, tree: Tree) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        self.0.last(tree)
    }
}

struct Buggy(Arc<dyn Kv>, Bug);

#[async_trait]
impl Kv for Buggy {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if self.1 == Bug::ReadWithoutReadIndex {
            let consistency = Consistency::Serializable;
            return self.0.range(RangeRequest { consistency, ..request }).await;
        }
        self.0.range(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        if self.1 != Bug::ApplyTwice {
            return self.0.txn(proposal).await;
        }
        let (first, kv) = (proposal.clone(), Arc::clone(&self.0));
        let mut first = tokio::spawn(async move { kv.txn(first).await });
        match tokio::time::timeout(Duration::from_millis(300), &mut first).await {
            Ok(Ok(answer)) => answer,
            _ => self.0.txn(proposal).await,
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        self.0.watch(request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.0.compact(revision).await
    }

    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn compacted(&self) -> Revision {
        self.0.compacted()
    }
}

#[cfg(test)]
mod tests;
