//! Leases over three members: renewed anywhere, ended by the leader alone, through the log.

use std::time::Duration;

use kontiki_raft::node::Node;
use kontiki_storage::kv::{InvalidRequest, KvError, Op, Txn};
use tokio::time::Instant;

use super::harness::{Cluster, PATIENCE, eventually};

async fn put(cluster: &Cluster, id: u64, key: &'static str, lease: i64) -> Result<(), KvError> {
    let put =
        Op::Put { key: key.into(), value: Some("v".into()), lease: Some(lease), prev_kv: false };
    let txn = Txn { success: vec![put], ..Txn::default() };
    cluster.kv(id).txn(txn.into()).await.map(|_| ())
}

async fn left(node: &Node, id: i64) -> Option<i64> {
    node.lease_time(id, false).await.unwrap().map(|time| time.left_seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_renews_runs_out_and_takes_its_keys_on_every_member() {
    let cluster = Cluster::of_three().await;
    let follower = cluster.follower().await;
    let (id, ttl, _) = cluster.node(follower).grant_lease(None, 1).await.unwrap();
    assert_eq!(ttl, 2, "less is not given");
    put(&cluster, follower, "a", id).await.unwrap();
    let unknown = put(&cluster, follower, "b", id ^ 1).await;
    assert_eq!(unknown, Err(KvError::Invalid(InvalidRequest::LeaseNotFound)));
    eventually("the key went with its lease everywhere", || {
        let gone = |node: &Node| node.store().is_empty() && node.leases().is_empty();
        cluster.running.values().all(|running| gone(&running.node)).then_some(())
    })
    .await;
    assert_eq!(left(cluster.node(follower), id).await, None);
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lives_for_as_long_as_some_member_is_asked_to_renew_it() {
    let cluster = Cluster::of_three().await;
    let follower = cluster.node(cluster.follower().await).clone();
    let (id, ..) = follower.grant_lease(Some(77), 5).await.unwrap();
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert_eq!(follower.renew_leases(&[id, 78]).await.unwrap(), [Some(5), None]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let again = follower.grant_lease(Some(77), 2).await;
    assert_eq!(again, Err(KvError::Invalid(InvalidRequest::LeaseExists)));
    follower.revoke_lease(id).await.unwrap();
    assert_eq!(follower.renew_leases(&[id]).await.unwrap(), [None]);
}

/// etcd 15247: the successor of a leader that has gone must not end what is renewed, and must end
/// what is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_keeps_leases_and_ends_them_in_its_turn() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let (long, ..) = cluster.node(leader).grant_lease(None, 600).await.unwrap();
    let (short, ..) = cluster.node(leader).grant_lease(None, 2).await.unwrap();
    put(&cluster, leader, "long", long).await.unwrap();
    put(&cluster, leader, "short", short).await.unwrap();
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    eventually("the short lease has run out", || {
        cluster.node(next).store().lease(short).is_none().then_some(())
    })
    .await;
    assert!(left(cluster.node(next), long).await.is_some_and(|left| left > 500));
    assert_eq!(cluster.node(next).store().len(), 1);
}

/// etcd's leases began anew with every leader: one that nobody renews could live for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_lease_is_noted_for_the_next_leader_and_forgotten_by_a_renewal() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let (id, ..) = cluster.node(leader).grant_lease(None, 10).await.unwrap();
    let noted = |node: &Node| node.store().lease(id).and_then(|terms| terms.remaining_seconds);
    eventually("the leader has noted it", || noted(cluster.node(leader))).await;
    cluster.kill(leader).await;
    let next = cluster.node(cluster.leader().await).clone();
    assert!(left(&next, id).await.is_some_and(|left| left <= 5));
    assert_eq!(next.renew_leases(&[id]).await.unwrap(), [Some(10)]);
    assert_eq!(noted(&next), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_ends_no_lease() {
    use kontiki_raft::status::Leadership;
    let cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    let (id, ..) = cluster.node(old).grant_lease(None, 2).await.unwrap();
    let before = *cluster.node(old).leadership().borrow();
    cluster.node(old).hand_over().await;
    let next = cluster.leader().await;
    let after = *cluster.node(next).leadership().borrow();
    assert!(after.term > before.term);
    let Leadership { term, .. } = before;
    let ended = cluster.node(old).expire_lease(id, term).await;
    assert_eq!(ended, Err(KvError::Fenced { term, current: after.term }));
    assert!(tokio::time::timeout(PATIENCE, cluster.node(next).renew_leases(&[id])).await.is_ok());
}
