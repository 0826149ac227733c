//! A new cluster from what one member of a lost one has.

use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::recover::{look, recover};
use kontiki_raft::restore::Founder;
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{KeyRange, KvError, RangeRequest, Revision};

use super::harness::{Cluster, get, put};

const BUMP: u64 = 1_000_000;

fn founder() -> Founder {
    let member = Member { name: "server-1".to_owned(), ..Member::default() };
    Founder { cluster_id: "test".to_owned(), node_id: 1, member }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_goes_on_with_the_whole_log_of_its_best_member_and_lets_others_join() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    for number in 0..20 {
        put(&cluster.kv(leader), &format!("key-{number}"), "acknowledged").await.unwrap();
    }
    // What is written while the others die cannot be told from what is acknowledged: whoever goes on
    // from here must not lose it.
    let kv = cluster.kv(leader);
    let writing = tokio::spawn(async move {
        for number in 0u64.. {
            // It is aborted once it waits for ever.
            let _ = put(&kv, &format!("pending-{number}"), "kept").await;
        }
    });
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    writing.abort();
    let status = cluster.node(leader).status();
    let (last, old) = (status.last_log_index, status.revision);
    let pending = last - status.applied_index;
    let engine = cluster.kill(leader).await;

    let survivor = look(&engine).unwrap();
    assert_eq!((survivor.identity.node, survivor.last_log.1), (leader, last));
    assert_eq!(survivor.members.len(), 3);
    let into: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let begin = recover(&engine, &into, &founder(), BUMP).unwrap();
    assert_eq!(begin.get(), old.get() + pending + BUMP, "every entry counts");

    let mut cluster = Cluster::default();
    cluster.start(1, into).await;
    assert_eq!(cluster.leader().await, 1, "it is a member, alone, and leads");
    let kv = cluster.kv(1);
    assert_eq!(get(&kv, "key-19").await.as_deref(), Some("acknowledged"));
    let read = RangeRequest {
        revision: Some(Revision::new(old.get())),
        ..RangeRequest::new(KeyRange::all())
    };
    assert!(matches!(kv.range(read).await, Err(KvError::Compacted { .. })));

    let address = cluster.member(1);
    cluster.node(1).update(1, address).await.unwrap();
    cluster.start(2, Arc::new(MemoryEngine::new())).await;
    cluster.node(1).add_learner(2, cluster.member(2)).await.unwrap();
    cluster.node(1).promote(2).await.unwrap();
    cluster.converged().await;
    assert_eq!(get(&cluster.kv(2), "key-0").await.as_deref(), Some("acknowledged"));
}

#[tokio::test]
async fn what_was_never_a_member_is_not_recovered_from() {
    let empty: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    look(&empty).unwrap_err();
}
