use std::sync::Arc;

use super::*;
use crate::engine::memory::MemoryEngine;
use crate::kv::{InvalidRequest, KvError, Op, Revision, Txn};
use crate::store::{ApplyBatch, ApplyOutcome, Store, StoreCommand};

fn store() -> Store {
    Store::open(Arc::new(MemoryEngine::new())).unwrap()
}

fn apply(store: &Store, commands: Vec<StoreCommand>) -> Vec<ApplyOutcome> {
    store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap()
}

fn grant(id: i64) -> StoreCommand {
    StoreCommand::LeaseGrant { id, ttl_seconds: 60 }
}

fn revoke(id: i64) -> StoreCommand {
    StoreCommand::LeaseRevoke { id, grant: None }
}

fn put(key: &'static str, lease: i64) -> StoreCommand {
    let put =
        Op::Put { key: key.into(), value: Some("v".into()), lease: Some(lease), prev_kv: false };
    StoreCommand::Txn(Txn { success: vec![put], ..Txn::default() })
}

fn refused(outcome: &ApplyOutcome) -> Option<InvalidRequest> {
    match outcome {
        ApplyOutcome::Txn(Err(KvError::Invalid(rule)))
        | ApplyOutcome::Lease(Err(KvError::Invalid(rule))) => Some(rule.clone()),
        _ => None,
    }
}

#[test]
fn the_end_of_a_lease_deletes_its_keys_in_one_revision_and_no_others() {
    let store = store();
    apply(&store, vec![grant(7), grant(8), put("b", 7), put("a", 7), put("c", 8), put("d", 0)]);
    assert_eq!(store.lease_keys(7), [Bytes::from("a"), Bytes::from("b")]);
    let before = store.revision();
    let outcomes = apply(&store, vec![revoke(7)]);
    assert_eq!(outcomes, [ApplyOutcome::Lease(Ok(before.next()))]);
    assert_eq!((store.revision(), store.len()), (before.next(), 2));
    assert_eq!(store.lease(7), None);
    let empty = apply(&store, vec![grant(9), revoke(9)]);
    assert_eq!(empty[1], ApplyOutcome::Lease(Ok(before.next())));
}

#[test]
fn commands_of_one_batch_see_the_leases_and_keys_of_those_before() {
    let store = store();
    let outcomes = apply(&store, vec![put("a", 7), grant(7), grant(7), put("a", 7), revoke(7)]);
    assert_eq!(refused(&outcomes[0]), Some(InvalidRequest::LeaseNotFound));
    assert_eq!(refused(&outcomes[2]), Some(InvalidRequest::LeaseExists));
    assert!(store.is_empty(), "the put of the same batch went with its lease");
    let again = apply(&store, vec![revoke(7)]);
    assert_eq!(refused(&again[0]), Some(InvalidRequest::LeaseNotFound));
}

#[test]
fn a_key_lives_by_the_lease_of_its_last_put() {
    let store = store();
    apply(&store, vec![grant(7), grant(8), put("a", 7), put("b", 7), put("a", 8), put("b", 0)]);
    assert!(store.lease_keys(7).is_empty());
    apply(&store, vec![revoke(7)]);
    assert_eq!(store.len(), 2);
    apply(&store, vec![revoke(8)]);
    assert_eq!(store.len(), 1);
}

#[test]
fn leases_survive_a_restart_and_travel_in_snapshots() {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(engine.clone()).unwrap();
    let noted = StoreCommand::LeaseCheckpoint(vec![(7, Some(20)), (99, Some(1))]);
    apply(&store, vec![grant(7), grant(8), put("a", 7), noted]);
    let leases = store.leases();
    let noted = LeaseTerms { ttl_seconds: 60, remaining_seconds: Some(20), grant: 1 };
    assert_eq!(leases[0].terms, noted);
    assert_eq!((leases.len(), leases[1].terms.left_seconds()), (2, 60));

    let mut snapshot = store.snapshot().unwrap();
    let other = self::store();
    apply(&other, vec![grant(5)]);
    let mut installer = other.begin_install().unwrap();
    while let Some(chunk) = snapshot.next_chunk().unwrap() {
        installer.push(&chunk).unwrap();
    }
    installer.finish().unwrap();
    assert_eq!(other.leases(), leases);
    assert_eq!(other.lease_keys(7), [Bytes::from("a")]);
    apply(&store, vec![put("z", 8)]);
    apply(&other, vec![put("z", 8)]);
    assert_eq!(store.hash(), other.hash());

    drop((store, snapshot));
    let reopened = Store::open(engine).unwrap();
    assert_eq!(reopened.leases(), leases);
    assert_eq!(reopened.lease_keys(7), [Bytes::from("a")]);
    assert_eq!(reopened.hash(), other.hash());
}

#[test]
fn replicas_whose_leases_differ_differ_in_the_hash_of_the_next_revision() {
    let (one, other) = (store(), store());
    apply(&one, vec![grant(7)]);
    assert_eq!(one.hash(), other.hash(), "a lease takes no revision, so none may tell of it");
    apply(&one, vec![put("a", 0)]);
    apply(&other, vec![put("a", 0)]);
    assert_eq!(one.revision(), Revision::new(2));
    assert_ne!(one.hash(), other.hash());
}

#[test]
fn what_was_decided_of_one_grant_does_not_end_another_of_the_same_number() {
    let store = store();
    let expire = |grant| StoreCommand::LeaseRevoke { id: 7, grant: Some(grant) };
    let outcomes = apply(&store, vec![grant(7), revoke(7), grant(7), put("a", 7), expire(1)]);
    assert_eq!(refused(&outcomes[4]), Some(InvalidRequest::LeaseNotFound));
    assert_eq!(store.len(), 1);
    apply(&store, vec![expire(2)]);
    assert!(store.is_empty() && store.leases().is_empty());
}

#[test]
fn numbers_and_terms_that_cannot_be_granted_are_refused() {
    let store = store();
    let long = StoreCommand::LeaseGrant { id: 1, ttl_seconds: TTL_SECONDS_MAX + 1 };
    let outcomes = apply(&store, vec![grant(0), long, grant(-5)]);
    assert_eq!(refused(&outcomes[0]), Some(InvalidRequest::LeaseNotFound));
    assert_eq!(refused(&outcomes[1]), Some(InvalidRequest::LeaseTooLong));
    assert_eq!(Leases::load(&**store.engine()).unwrap().all()[0].id, -5);
}
