//! Bugs put in on purpose, to see that they are found. They sit between the cluster and its clients,
//! or its disks, so that nothing of them is in any server.

use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::engine::{Batch, Durability, Engine, EngineError, Tree, Visit};
use kontiki_storage::kv::{
    Consistency, KeyRange, Kv, KvError, Op, Proposal, RangeRequest, RangeResponse, Revision, Txn,
    TxnResponse, WatchRequest, Watcher,
};
use kontiki_storage::testing::linearizability::{self, Answer, Do, Operation, Request};

use super::scenario::simulate;
use super::world::{MEMBERS, World, virtual_time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
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

/// Runs seeds until one finds `bug`, and says by what.
fn found(bug: Bug) -> String {
    for seed in 0..SEEDS_MAX {
        let run = || virtual_time(simulate(seed, Some(bug)));
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(run)) {
            let text = panic.downcast_ref::<String>().cloned();
            return text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap();
        }
    }
    panic!("{bug:?} was not found in {SEEDS_MAX} runs");
}

/// How many runs a bug may take to be found.
const SEEDS_MAX: u64 = 12;

#[test]
fn acknowledging_before_the_sync_is_found() {
    let by = found(Bug::AcknowledgeBeforeSync);
    assert!(!by.is_empty(), "{by}");
}

#[test]
fn applying_twice_is_found() {
    let by = found(Bug::ApplyTwice);
    assert!(by.contains("R10") || by.contains("R4"), "{by}");
}

#[test]
fn reading_without_a_read_index_is_found() {
    let by = found(Bug::ReadWithoutReadIndex);
    assert!(by.contains("R4"), "{by}");
}

#[test]
fn publishing_before_the_commit_is_found() {
    let by = found(Bug::PublishEarly);
    assert!(["R2", "R5", "R6"].iter().any(|name| by.contains(name)), "{by}");
}

#[test]
fn ending_a_lease_as_a_deposed_leader_is_found() {
    let by = found(Bug::ExpireAsDeposedLeader);
    assert!(by.contains("R7"), "{by}");
}

/// R8: a member that comes back under its number without its data forgets what it acknowledged.
#[test]
fn reusing_the_number_of_a_member_that_lost_its_data_is_found() {
    let history = virtual_time(async {
        let world = World::new(8).await;
        let leader = world.lead().await;
        let others: Vec<_> = MEMBERS.into_iter().filter(|id| *id != leader).collect();
        let (wiped, behind) = (others[0], others[1]);
        world.net.isolate(behind, MEMBERS.into_iter());
        let write = Request {
            success: vec![Do::Put("a".to_owned(), "1".to_owned())],
            ..Request::default()
        };
        let txn = Txn { success: vec![Op::put("a", "1")], ..Txn::default() };
        world.kv(leader).unwrap().txn(txn.into()).await.unwrap();
        let written = Answer { succeeded: true, read: Vec::new() };
        world.crash(wiped, 0);
        world.start(wiped, Arc::new(MemoryEngine::new())).await;
        world.net.heal();
        world.net.isolate(leader, MEMBERS.into_iter());
        let next = world.lead_without(leader).await;
        let read = RangeRequest::new(KeyRange::key("a"));
        let response = world.kv(next).unwrap().range(read).await.unwrap();
        let value = response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
        let reading = Request { success: vec![Do::Get("a".to_owned())], ..Request::default() };
        let seen = Answer { succeeded: true, read: vec![value] };
        [
            Operation { request: write, called: 0, returned: Some((1, written)) },
            Operation { request: reading, called: 2, returned: Some((3, seen)) },
        ]
    });
    linearizability::check(&history).unwrap_err();
}
