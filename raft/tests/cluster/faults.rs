//! What clients see while members fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kontiki_raft::config::LogPolicy;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::kv::KvError;

use super::harness::{Cluster, eventually, get, put};

#[tokio::test]
async fn after_the_leader_dies_writes_go_on_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    for number in 0..50 {
        put(&cluster.kv(leader), &format!("before/{number}"), "x").await.unwrap();
    }
    let survivor = cluster.follower().await;
    let kv = cluster.kv(survivor);
    let engine = cluster.kill(leader).await;
    let killed = Instant::now();
    put(&kv, "after", "x").await.unwrap();
    let outage = killed.elapsed();
    assert!(outage < Duration::from_millis(1500), "the outage took {outage:?}");
    for number in 0..50 {
        assert!(get(&kv, &format!("before/{number}")).await.is_some());
    }
    cluster.start(leader, engine).await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_leader_that_shuts_down_hands_over_first() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    put(&cluster.kv(leader), "a", "1").await.unwrap();
    let running = cluster.running.remove(&leader).unwrap();
    running.node.shutdown().await;
    let successor = cluster.leader().await;
    assert_ne!(successor, leader);
    assert_eq!(get(&cluster.kv(successor), "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn without_a_quorum_writes_are_refused_or_unknown_and_never_acknowledged() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let kv = cluster.kv(leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in others {
        cluster.kill(id).await;
    }
    let error = put(&kv, "a", "1").await.unwrap_err();
    assert!(matches!(error, KvError::Unknown { .. } | KvError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn writes_under_way_while_leaders_die_are_done_exactly_once() {
    let mut cluster = Cluster::of_three().await;
    let survivor = cluster.follower().await;
    let kv = cluster.kv(survivor);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let kv = kv.clone();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for number in 0..40 {
                    revisions.push(put(&kv, &format!("{writer}/{number}"), "x").await.unwrap());
                }
                revisions
            })
        })
        .collect();
    let leader = cluster.leader().await;
    let engine = cluster.kill(leader).await;
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.extend(writer.await.unwrap());
    }
    // R10: each write took one revision of its own, and no revision was taken by a repetition.
    revisions.sort_unstable();
    assert!(revisions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{revisions:?}");
    cluster.start(leader, engine).await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_member_restarted_from_its_disk_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::default();
    for id in 1..=3 {
        let path = directory.path().join(id.to_string());
        cluster.start(id, Arc::new(DiskEngine::open(&path).unwrap())).await;
    }
    let members = (1..=3).map(|id| (id, cluster.member(id))).collect();
    cluster.node(1).bootstrap(members).await.unwrap();
    let victim = cluster.follower().await;
    let kv = cluster.kv(cluster.leader().await);
    put(&kv, "a", "1").await.unwrap();
    drop(cluster.kill(victim).await);
    put(&kv, "a", "2").await.unwrap();
    let path = directory.path().join(victim.to_string());
    let engine = eventually("the data directory is free", || DiskEngine::open(&path).ok()).await;
    cluster.start(victim, Arc::new(engine)).await;
    cluster.converged().await;
    assert_eq!(get(&cluster.kv(victim), "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_member_too_far_behind_catches_up_by_a_snapshot() {
    let log = LogPolicy { snapshot_every: 50, keep: 10 };
    let mut cluster = Cluster { log, ..Cluster::default() }.boot(3).await;
    let victim = cluster.follower().await;
    let engine = cluster.kill(victim).await;
    let kv = cluster.kv(cluster.leader().await);
    for number in 0..400 {
        put(&kv, &format!("key/{number}"), &"v".repeat(1000)).await.unwrap();
    }
    cluster.start(victim, engine).await;
    cluster.converged().await;
    assert!(get(&cluster.kv(victim), "key/0").await.is_some());
}
