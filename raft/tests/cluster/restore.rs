//! A new cluster that begins with a snapshot of an old one.

use std::sync::Arc;

use kontiki_raft::restore::{Founder, RestoreError, restore};
use kontiki_raft::snapshot_file::{Export, verify};
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{KeyRange, KvError, RangeRequest, Revision, WatchRequest};

use super::harness::{Cluster, get, put};

const BUMP: u64 = 1_000_000;

/// The file of a cluster that has lived a little, and the revision that it is of.
async fn file() -> (Vec<u8>, u64) {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let (lease, ..) = cluster.node(leader).grant_lease(Some(7), 600).await.unwrap();
    assert_eq!(lease, 7);
    for number in 0..20 {
        put(&cluster.kv(leader), &format!("key-{}", number % 5), &format!("{number}"))
            .await
            .unwrap();
    }
    let mut export = Export::of(cluster.node(leader).store().snapshot().unwrap()).unwrap();
    let mut file = Vec::new();
    while let Some(part) = export.next_part().unwrap() {
        file.extend_from_slice(&part);
    }
    (file, cluster.kv(leader).revision().get())
}

fn founder() -> Founder {
    let member = Member { name: "server-1".to_owned(), ..Member::default() };
    Founder { cluster_id: "test".to_owned(), node_id: 1, member }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_cluster_has_the_keys_lets_clients_relist_and_gives_it_all_to_who_joins() {
    let (file, old) = file().await;
    assert_eq!(verify(&file[..]).unwrap().revision.get(), old);
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let begin = restore(&engine, &file[..], &founder(), BUMP).unwrap();
    assert_eq!(begin.get(), old + BUMP);

    let mut cluster = Cluster::default();
    cluster.start(1, engine).await;
    assert_eq!(cluster.leader().await, 1, "it is a member, alone, and leads");
    let kv = cluster.kv(1);
    assert_eq!(get(&kv, "key-4").await, Some("19".to_owned()));
    let read =
        RangeRequest { revision: Some(Revision::new(old)), ..RangeRequest::new(KeyRange::all()) };
    assert!(matches!(kv.range(read).await, Err(KvError::Compacted { .. })));
    let from = WatchRequest {
        range: KeyRange::all(),
        start: Some(Revision::new(old + 1)),
        prev_kv: false,
    };
    let told = match kv.watch(from).await {
        Ok(mut watcher) => watcher.next().await.unwrap().map(drop),
        Err(refused) => Err(refused),
    };
    assert!(matches!(told, Err(KvError::Compacted { .. })), "{told:?}");
    assert_eq!(put(&kv, "new", "write").await.unwrap(), begin.get() + 1);
    assert!(cluster.node(1).lease_time(7, false).await.unwrap().is_some());

    let address = cluster.member(1);
    cluster.node(1).update(1, address).await.unwrap();
    cluster.start(2, Arc::new(MemoryEngine::new())).await;
    cluster.node(1).add_learner(2, cluster.member(2)).await.unwrap();
    cluster.node(1).promote(2).await.unwrap();
    cluster.converged().await;
    assert_eq!(get(&cluster.kv(2), "key-0").await, Some("15".to_owned()));

    let engine = cluster.kill(1).await;
    cluster.start(1, engine).await;
    cluster.leader().await;
    assert_eq!(get(&cluster.kv(1), "new").await, Some("write".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_restored_only_whole_and_only_into_an_empty_store() {
    let (file, _) = file().await;
    let empty = || -> Arc<dyn Engine> { Arc::new(MemoryEngine::new()) };
    let mut damaged = file.clone();
    damaged[file.len() / 2] ^= 1;
    for bad in [&damaged[..], &file[..file.len() - 1]] {
        let error = restore(&empty(), bad, &founder(), BUMP).unwrap_err();
        assert!(matches!(error, RestoreError::File(_)), "{error}");
    }
    let engine = empty();
    restore(&engine, &file[..], &founder(), BUMP).unwrap();
    let again = restore(&engine, &file[..], &founder(), BUMP).unwrap_err();
    assert!(matches!(again, RestoreError::NotEmpty), "{again}");
}
