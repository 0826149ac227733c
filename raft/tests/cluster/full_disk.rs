//! A leader whose disk is full.

use std::sync::Arc;

use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::engine::{Engine, Room};
use kontiki_storage::kv::{Kv, KvError, Op, Revision, Txn};

use super::harness::{Cluster, get, put};

async fn delete(kv: &Arc<dyn Kv>, key: &str) -> Result<(), KvError> {
    let txn = Txn { success: vec![Op::delete(key.to_owned())], ..Txn::default() };
    kv.txn(txn.into()).await.map(drop)
}

#[tokio::test]
async fn a_full_disk_refuses_writes_but_not_reads_deletes_and_compaction_and_needs_no_disarming() {
    let mut cluster = Cluster::default();
    let disks: Vec<Arc<MemoryEngine>> = (0..3).map(|_| Arc::default()).collect();
    for (id, disk) in (1..).zip(&disks) {
        cluster.start(id, Arc::clone(disk) as Arc<dyn Engine>).await;
    }
    let members = (1..=3).map(|id| (id, cluster.member(id))).collect();
    cluster.node(1).bootstrap(members).await.unwrap();
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let disk = &disks[usize::try_from(leader - 1).unwrap()];
    let revision = put(&cluster.kv(leader), "a", "1").await.unwrap();
    put(&cluster.kv(leader), "b", "1").await.unwrap();

    disk.set_room(Room::Reserve);
    for id in [leader, follower] {
        let kv = cluster.kv(id);
        assert_eq!(put(&kv, "a", "2").await, Err(KvError::NoSpace), "by way of {id}");
        assert_eq!(get(&kv, "a").await.as_deref(), Some("1"));
        let nested = Txn { success: vec![Op::put("a", "2")], ..Txn::default() };
        let nested = Txn { failure: vec![Op::Txn(Box::new(nested))], ..Txn::default() };
        assert_eq!(kv.txn(nested.into()).await.unwrap_err(), KvError::NoSpace);
    }
    assert!(cluster.node(leader).grant_lease(None, 60).await.is_err());
    delete(&cluster.kv(follower), "b").await.unwrap();
    cluster.kv(leader).compact(Revision::new(revision)).await.unwrap();
    assert!(cluster.node(leader).status().failed.is_none());

    disk.set_room(Room::Ample);
    put(&cluster.kv(follower), "a", "2").await.unwrap();
    assert_eq!(get(&cluster.kv(leader), "a").await.as_deref(), Some("2"));
    assert_eq!(get(&cluster.kv(leader), "b").await, None);
    // Only the leader's disk counts: another falls behind by itself.
    disks[usize::try_from(follower - 1).unwrap()].set_room(Room::Reserve);
    put(&cluster.kv(follower), "a", "3").await.unwrap();
}
