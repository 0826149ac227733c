//! Bugs that others had, a test each, under virtual time: what only a partition or a pause at the
//! wrong moment shows.

use std::time::Duration;

use kontiki_storage::kv::{KeyRange, KvError, Op, RangeRequest, Txn};
use kontiki_storage::store::{ApplyBatch, StoreCommand};

use super::world::{MEMBERS, World, virtual_time};

/// etcd 15247: a leader that had been cut off answered renewals from its memory, while its successor
/// let the very leases run out.
#[test]
fn a_leader_that_is_cut_off_renews_no_lease() {
    virtual_time(async {
        let world = World::new(15_247).await;
        let old = world.lead().await;
        let node = world.node(old).unwrap();
        let (lease, ..) = node.grant_lease(None, 20).await.unwrap();
        assert_eq!(node.renew_leases(&[lease]).await, Ok(vec![Some(20)]));
        world.net.isolate(old, MEMBERS.into_iter());
        let renewed = node.renew_leases(&[lease]).await;
        assert!(node.leadership().borrow().is_local, "it must not know yet that it is deposed");
        assert!(matches!(renewed, Err(KvError::Unavailable { .. })), "{renewed:?}");
        let next = world.lead_without(old).await;
        let next = world.node(next).unwrap();
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert_eq!(next.renew_leases(&[lease]).await, Ok(vec![None]));
    });
}

/// etcd 13766: members that had diverged went on serving, each its own data, for months.
#[test]
fn a_member_whose_data_differs_says_so_and_serves_nothing_while_the_others_go_on() {
    virtual_time(async {
        let world = World::new(13_766).await;
        let leader = world.lead().await;
        let put =
            |value: &str| Txn { success: vec![Op::put("a", value.to_owned())], ..Txn::default() };
        let kv = world.kv(leader).unwrap();
        kv.txn(put("1").into()).await.unwrap();
        let victim = MEMBERS.into_iter().find(|id| *id != leader).unwrap();
        let damaged = world.node(victim).unwrap();
        damaged.linearize().await.unwrap();
        let commands = vec![StoreCommand::Txn(put("nobody wrote this"))];
        let applied = damaged.store().applied().unwrap();
        damaged.store().apply(ApplyBatch { commands, applied, ..ApplyBatch::default() }).unwrap();
        kv.txn(put("2").into()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(12)).await;
        let status = damaged.status();
        let found = status.corruption.expect("the difference must be found");
        assert_eq!(found.peers.len(), 2, "{found}");
        assert!(found.peers.iter().all(|peer| peer.hash != found.hash));
        assert!(status.failed.is_some_and(|reason| reason.contains("differs")));
        let read = RangeRequest::new(KeyRange::key("a"));
        let refused = damaged.kv().range(read.clone()).await;
        assert!(matches!(refused, Err(KvError::Unavailable { .. } | KvError::Failed { .. })));
        kv.txn(put("3").into()).await.unwrap();
        for id in MEMBERS.into_iter().filter(|id| *id != victim) {
            assert_eq!(world.kv(id).unwrap().range(read.clone()).await.unwrap().kvs[0].value, "3");
            assert_eq!(world.node(id).unwrap().status().corruption, None);
        }
    });
}
