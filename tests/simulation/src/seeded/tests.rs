//! Each bug is put in, and found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{KeyRange, Op, RangeRequest, Txn};
use kontiki_storage::testing::linearizability::{self, Answer, Do, Operation, Request};

use super::Bug;
use crate::scenario::run;
use crate::world::{MEMBERS, World, virtual_time};

/// Runs seeds until one finds `bug`, and says by what.
fn found(bug: Bug) -> String {
    for seed in 0..SEEDS_MAX {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, Some(bug)))) {
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
