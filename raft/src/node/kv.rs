//! The trait `Kv` over the replicated store.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_storage::kv::{
    Consistency, Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, TxnResponse,
    WatchRequest, Watcher,
};
use tokio::time::Instant;

use super::Inner;
use crate::command::{Act, Done};

/// A member's view of the replicated store.
pub(super) struct NodeKv(pub(super) Arc<Inner>);

impl Inner {
    /// Waits until everything acknowledged before now is applied here (R4).
    pub(super) async fn wait_linearizable(&self, deadline: Instant) -> Result<(), KvError> {
        let unavailable = |reason: String| KvError::Unavailable { reason };
        let index = match tokio::time::timeout_at(deadline, self.reads.next()).await {
            Ok(index) => index.map_err(unavailable)?,
            Err(_) => return Err(unavailable("no leader answered in time".to_owned())),
        };
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(unavailable("the server is shutting down".to_owned())),
            Err(_) => Err(unavailable("this server lags behind the leader".to_owned())),
        }
    }
}

fn mismatched(done: &Done) -> KvError {
    KvError::Failed { reason: format!("a proposal came to {done:?}, which it cannot") }
}

#[async_trait]
impl Kv for NodeKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let deadline = Instant::now() + self.0.config.timers.request;
        match request.consistency {
            Consistency::Serializable => {}
            Consistency::Linearizable => self.0.wait_linearizable(deadline).await?,
            Consistency::NotOlderThan(revision) => {
                self.0.store.wait_for(revision, deadline).await?;
            }
        }
        self.0.store.read(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        match self.0.propose(Act::Txn(proposal.txn), proposal.fence).await? {
            Done::Txn(response) => Ok(response),
            done => Err(mismatched(&done)),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        self.0.store.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        match self.0.propose(Act::Compact(revision), None).await? {
            Done::Compact => Ok(()),
            done => Err(mismatched(&done)),
        }
    }

    fn revision(&self) -> Revision {
        self.0.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.0.store.compacted()
    }
}
