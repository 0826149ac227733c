//! Bugs that others had, a test each, under virtual time: what only a partition or a pause at the
//! wrong moment shows.

use std::time::Duration;

use kontiki_storage::kv::KvError;

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
