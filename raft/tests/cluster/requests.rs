//! What clients see of a healthy cluster.

use kontiki_storage::kv::{
    Compare, Consistency, KeyRange, KvError, Op, Proposal, Revision, Term, Txn, WatchMessage,
    WatchRequest,
};

use super::harness::{Cluster, get, get_with, put};

#[tokio::test]
async fn any_member_takes_writes_and_reads_see_them_everywhere() {
    let cluster = Cluster::of_three().await;
    for id in 1..=3 {
        let key = format!("key-{id}");
        put(&cluster.kv(id), &key, "value").await.unwrap();
        for reader in 1..=3 {
            assert_eq!(get(&cluster.kv(reader), &key).await.as_deref(), Some("value"));
        }
    }
    cluster.converged().await;
}

#[tokio::test]
async fn a_member_alone_is_a_cluster() {
    let cluster = Cluster::default().boot(1).await;
    put(&cluster.kv(1), "a", "1").await.unwrap();
    assert_eq!(get(&cluster.kv(1), "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_read_not_older_than_a_revision_waits_for_it() {
    let cluster = Cluster::of_three().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    for round in 0..20 {
        let value = round.to_string();
        let revision = put(&cluster.kv(leader), "a", &value).await.unwrap();
        let consistency = Consistency::NotOlderThan(Revision::new(revision));
        assert_eq!(get_with(&cluster.kv(follower), "a", consistency).await, Some(value));
    }
}

#[tokio::test]
async fn of_writers_that_compare_one_wins() {
    let cluster = Cluster::of_three().await;
    let write = |id: u64| {
        let kv = cluster.kv(id);
        async move {
            let txn = Txn {
                compare: vec![Compare::unchanged_since("lock", Revision::ZERO)],
                success: vec![Op::put("lock", id.to_string())],
                failure: Vec::new(),
            };
            kv.txn(txn.into()).await.unwrap().succeeded
        }
    };
    let (a, b, c) = tokio::join!(write(1), write(2), write(3));
    assert_eq!([a, b, c].iter().filter(|won| **won).count(), 1);
}

#[tokio::test]
async fn a_watch_at_a_follower_sees_what_is_written_at_the_leader() {
    let cluster = Cluster::of_three().await;
    let follower = cluster.follower().await;
    let request = WatchRequest {
        range: KeyRange::prefix("w/"),
        start: Some(Revision::new(2)),
        prev_kv: false,
    };
    let mut watcher = cluster.kv(follower).watch(request).await.unwrap();
    let leader = cluster.kv(cluster.leader().await);
    for number in 0..10 {
        put(&leader, &format!("w/{number}"), "x").await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        if let WatchMessage::Events(events) = watcher.next().await.unwrap().unwrap() {
            seen.extend(events.into_iter().map(|event| event.kv.mod_revision.get()));
        }
    }
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[tokio::test]
async fn what_was_proposed_under_a_past_term_is_refused() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    let fenced = |term| Proposal {
        txn: Txn { success: vec![Op::put("fenced", "x")], ..Txn::default() },
        fence: Some(term),
    };
    let kv = cluster.kv(leader);
    kv.txn(fenced(term)).await.unwrap();
    let past = Term(term.0 - 1);
    let refused = kv.txn(fenced(past)).await.unwrap_err();
    assert_eq!(refused, KvError::Fenced { term: past, current: term });
}

#[tokio::test]
async fn who_wrote_at_a_follower_reads_it_there_however_it_reads() {
    let cluster = Cluster::of_three().await;
    let kv = cluster.kv(cluster.follower().await);
    for number in 0..100_u64 {
        let written = put(&kv, "a", &number.to_string()).await.unwrap();
        assert!(
            kv.revision().get() >= written,
            "write {number} is not applied where it was acknowledged"
        );
    }
}

#[tokio::test]
async fn what_is_too_large_or_makes_no_sense_is_refused_and_changes_nothing() {
    let cluster = Cluster::of_three().await;
    let kv = cluster.kv(cluster.follower().await);
    let before = put(&kv, "a", "1").await.unwrap();
    let large = "x".repeat(4 << 20);
    assert!(matches!(put(&kv, "b", &large).await, Err(KvError::TooLarge { .. })));
    assert!(matches!(put(&kv, "", "x").await, Err(KvError::Invalid(_))));
    assert!(matches!(kv.compact(Revision::new(99)).await, Err(KvError::FutureRevision { .. })));
    assert_eq!(put(&kv, "a", "2").await.unwrap(), before + 1);
    kv.compact(Revision::new(before + 1)).await.unwrap();
    assert_eq!(kv.compacted(), Revision::new(before + 1));
}
