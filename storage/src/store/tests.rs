use std::sync::Arc;

use super::*;
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, Tree};
use crate::kv::{Compare, InvalidRequest, KeyRange, Op, OpResponse};
use crate::layout::VersionId;

fn revision(number: u64) -> Revision {
    Revision::new(number)
}

fn open(engine: &Arc<MemoryEngine>) -> Store {
    Store::open(Arc::clone(engine) as Arc<dyn Engine>).unwrap()
}

fn store() -> (Arc<MemoryEngine>, Store) {
    let engine = Arc::new(MemoryEngine::new());
    let store = open(&engine);
    (engine, store)
}

fn apply(store: &Store, commands: Vec<StoreCommand>) -> Vec<ApplyOutcome> {
    let applied = Bytes::from(format!("after {}", store.revision()));
    store.apply(ApplyBatch { commands, applied, ..ApplyBatch::default() }).unwrap()
}

fn txn(success: Vec<Op>) -> StoreCommand {
    StoreCommand::Txn(Txn { success, ..Txn::default() })
}

fn put(store: &Store, key: &str, value: &str) -> TxnResponse {
    done(store, vec![Op::put(key.to_owned(), value.to_owned())])
}

fn delete(store: &Store, key: &str) -> TxnResponse {
    done(store, vec![Op::delete(key.to_owned())])
}

fn done(store: &Store, ops: Vec<Op>) -> TxnResponse {
    match apply(store, vec![txn(ops)]).pop() {
        Some(ApplyOutcome::Txn(Ok(response))) => response,
        other => panic!("{other:?}"),
    }
}

fn compact(store: &Store, number: u64) -> Result<(), KvError> {
    match apply(store, vec![StoreCommand::Compact(revision(number))]).pop() {
        Some(ApplyOutcome::Compact(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

/// Applies nothing, as often as a scrub may need for a few keys.
fn settle(store: &Store) {
    for _ in 0..3 {
        apply(store, Vec::new());
    }
}

fn read_at(store: &Store, number: u64) -> Result<Vec<(String, String)>, KvError> {
    let request =
        RangeRequest { revision: Some(revision(number)), ..RangeRequest::new(KeyRange::all()) };
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let kvs = store.range(&request)?.kvs;
    Ok(kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn versions(engine: &MemoryEngine) -> Vec<u64> {
    let mut found = Vec::new();
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let visit = &mut |key: &[u8], _| {
        found.push(VersionId::of_key(key).unwrap().revision.get());
        std::ops::ControlFlow::Continue(())
    };
    engine.scan(Tree::Versions, from, to, visit).unwrap();
    found
}

#[test]
fn the_first_write_to_an_empty_store_makes_revision_two() {
    let (_, store) = store();
    assert_eq!((store.revision(), store.compacted()), (revision(1), revision(0)));
    assert_eq!(put(&store, "a", "1").revision, revision(2));
    assert_eq!(store.revision(), revision(2));
}

#[test]
fn a_transaction_that_changes_nothing_takes_no_revision() {
    let (_, store) = store();
    let response = delete(&store, "absent");
    assert_eq!(response.revision, revision(1));
    assert_eq!(response.responses, [OpResponse::DeleteRange { deleted: 0, prev_kvs: Vec::new() }]);
}

#[test]
fn every_past_revision_reads_as_it_was() {
    let (_, store) = store();
    put(&store, "a", "1");
    put(&store, "b", "1");
    put(&store, "a", "2");
    delete(&store, "a");
    put(&store, "a", "3");
    assert_eq!(read_at(&store, 1).unwrap(), []);
    assert_eq!(read_at(&store, 2).unwrap(), pairs(&[("a", "1")]));
    assert_eq!(read_at(&store, 3).unwrap(), pairs(&[("a", "1"), ("b", "1")]));
    assert_eq!(read_at(&store, 4).unwrap(), pairs(&[("a", "2"), ("b", "1")]));
    assert_eq!(read_at(&store, 5).unwrap(), pairs(&[("b", "1")]));
    assert_eq!(read_at(&store, 6).unwrap(), pairs(&[("a", "3"), ("b", "1")]));
    let error = read_at(&store, 7).unwrap_err();
    assert_eq!(error, KvError::FutureRevision { requested: revision(7), current: revision(6) });
}

#[test]
fn a_key_counts_its_puts_since_it_exists() {
    let (_, store) = store();
    put(&store, "a", "1");
    put(&store, "a", "2");
    delete(&store, "a");
    put(&store, "a", "3");
    let kv = store.range(&RangeRequest::new(KeyRange::key("a"))).unwrap().kvs.remove(0);
    assert_eq!((kv.version, kv.create_revision, kv.mod_revision), (1, revision(5), revision(5)));
}

#[test]
fn a_limit_bounds_the_keys_but_not_the_count_at_any_revision() {
    let (_, store) = store();
    for key in ["a", "b", "c"] {
        put(&store, key, "1");
    }
    put(&store, "c", "2");
    for at in [None, Some(revision(4))] {
        let all = RangeRequest { revision: at, ..RangeRequest::new(KeyRange::all()) };
        let two = store.range(&RangeRequest { limit: 2, ..all.clone() }).unwrap();
        assert_eq!((two.kvs.len(), two.more, two.count), (2, true, 3));
        let three = store.range(&RangeRequest { limit: 3, ..all.clone() }).unwrap();
        assert_eq!((three.kvs.len(), three.more, three.count), (3, false, 3));
        let count = store.range(&RangeRequest { count_only: true, ..all.clone() }).unwrap();
        assert_eq!((count.kvs.len(), count.more, count.count), (0, false, 3));
        let keys = store.range(&RangeRequest { keys_only: true, ..all }).unwrap();
        assert!(keys.kvs.iter().all(|kv| kv.value.is_empty()));
        assert_eq!(keys.revision, revision(5));
    }
}

#[test]
fn commands_of_one_batch_see_each_other_and_keep_their_own_revisions() {
    let (_, store) = store();
    let past = |number| {
        Op::Range(RangeRequest {
            revision: Some(revision(number)),
            ..RangeRequest::new(KeyRange::key("a"))
        })
    };
    let outcomes = apply(
        &store,
        vec![
            txn(vec![Op::put("a", "1")]),
            txn(vec![Op::put("a", "2")]),
            txn(vec![past(2), past(3), Op::get("a")]),
            StoreCommand::Txn(Txn {
                compare: vec![Compare::unchanged_since("a", revision(3))],
                success: vec![Op::delete("a")],
                failure: Vec::new(),
            }),
            StoreCommand::Compact(revision(3)),
            txn(vec![past(2)]),
        ],
    );
    let ApplyOutcome::Txn(Ok(read)) = &outcomes[2] else { panic!("{outcomes:?}") };
    let values: Vec<_> = read
        .responses
        .iter()
        .map(|response| match response {
            OpResponse::Range(range) => range.kvs[0].value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, ["1", "2", "2"]);
    let ApplyOutcome::Txn(Ok(deleted)) = &outcomes[3] else { panic!("{outcomes:?}") };
    assert!(deleted.succeeded && deleted.revision == revision(4));
    assert_eq!(outcomes[4], ApplyOutcome::Compact(Ok(())));
    let compacted = KvError::Compacted { requested: revision(2), compacted: revision(3) };
    assert_eq!(outcomes[5], ApplyOutcome::Txn(Err(compacted)));
    assert_eq!(store.revision(), revision(4));
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let (_, store) = store();
    let keep = Op::Put { key: "absent".into(), value: None, lease: Some(0), prev_kv: false };
    let outcomes = apply(&store, vec![txn(vec![Op::put("a", "1"), keep])]);
    let refused = KvError::Invalid(InvalidRequest::KeyNotFound);
    assert_eq!(outcomes, [ApplyOutcome::Txn(Err(refused))]);
    assert!(store.is_empty() && store.revision() == revision(1));
}

#[test]
fn everything_is_there_after_a_reopen() {
    let (engine, store) = store();
    put(&store, "a", "1");
    done(&store, vec![Op::put("b", "1"), Op::put("c", "1")]);
    delete(&store, "a");
    compact(&store, 3).unwrap();
    let before = (store.hash(), store.compacted(), store.applied(), store.len());
    drop(store);
    let store = open(&engine);
    assert_eq!((store.hash(), store.compacted(), store.applied(), store.len()), before);
    assert_eq!(read_at(&store, 3).unwrap(), pairs(&[("a", "1"), ("b", "1"), ("c", "1")]));
    assert_eq!(read_at(&store, 4).unwrap(), pairs(&[("b", "1"), ("c", "1")]));
    assert_eq!(put(&store, "b", "2").revision, revision(5));
}

#[test]
fn a_crash_leaves_data_applied_position_and_sidecar_of_the_same_moment() {
    let (engine, store) = store();
    store.sync().unwrap();
    for number in 2..6_u64 {
        let mut sidecar = Batch::default();
        sidecar.put(Tree::State, "outcomes", number.to_be_bytes().to_vec());
        let commands = vec![txn(vec![Op::put("a", number.to_string())])];
        let applied = Bytes::from(number.to_string());
        store.apply(ApplyBatch { commands, applied, sidecar }).unwrap();
    }
    assert_eq!(engine.pending(), 4);
    for kept in 0..=4 {
        let survivor = Arc::new(engine.after_crash(kept));
        let store = open(&survivor);
        let number = 1 + kept as u64;
        assert_eq!(store.revision(), revision(number));
        let sidecar = survivor.get(Tree::State, b"outcomes").unwrap();
        if kept == 0 {
            assert_eq!((store.applied(), sidecar), (None, None));
        } else {
            assert_eq!(store.applied(), Some(Bytes::from(number.to_string())));
            assert_eq!(sidecar.unwrap(), number.to_be_bytes().to_vec());
            assert_eq!(read_at(&store, number).unwrap(), pairs(&[("a", &number.to_string())]));
        }
    }
}

#[test]
fn only_what_is_synced_counts_as_durable() {
    let (_, store) = store();
    put(&store, "a", "1");
    assert_eq!(store.durable_applied(), None);
    store.sync().unwrap();
    assert_eq!(store.durable_applied(), Some("after 1".into()));
    put(&store, "a", "2");
    assert_eq!(store.durable_applied(), Some("after 1".into()));
}

#[test]
fn compaction_refuses_the_past_and_keeps_the_rest() {
    let (engine, store) = store();
    put(&store, "a", "1"); // 2
    put(&store, "a", "2"); // 3
    put(&store, "gone", "1"); // 4
    delete(&store, "gone"); // 5
    put(&store, "a", "3"); // 6
    compact(&store, 5).unwrap();
    settle(&store);
    assert_eq!(versions(&engine), [3, 5, 6], "the tombstone at the compacted revision stays");
    let refused = KvError::Compacted { requested: revision(4), compacted: revision(5) };
    assert_eq!(read_at(&store, 4), Err(refused));
    assert_eq!(read_at(&store, 5).unwrap(), pairs(&[("a", "2")]));
    let again = KvError::Compacted { requested: revision(5), compacted: revision(5) };
    assert_eq!(compact(&store, 5), Err(again));
    let future = KvError::FutureRevision { requested: revision(7), current: revision(6) };
    assert_eq!(compact(&store, 7), Err(future));
    compact(&store, 6).unwrap();
    settle(&store);
    assert_eq!(versions(&engine), [6]);
}

#[test]
fn the_revision_does_not_go_back_when_its_last_tombstone_is_compacted() {
    let (engine, store) = store();
    put(&store, "a", "1"); // 2
    delete(&store, "a"); // 3
    done(&store, vec![Op::put("b", "1")]); // 4
    done(&store, vec![Op::delete("b")]); // 5
    compact(&store, 5).unwrap();
    settle(&store);
    drop(store);
    let store = open(&engine);
    assert_eq!((store.revision(), store.compacted()), (revision(5), revision(5)));
    assert_eq!(put(&store, "a", "2").revision, revision(6));
}

#[test]
fn a_scrub_interrupted_by_a_crash_is_finished_after_the_reopen() {
    let (engine, store) = store();
    for key in 0..200 {
        put(&store, &format!("{key:03}"), "1");
    }
    for key in 0..200 {
        put(&store, &format!("{key:03}"), "2");
    }
    compact(&store, 401).unwrap();
    apply(&store, Vec::new());
    drop(store);
    let survivor = Arc::new(engine.after_crash(usize::MAX));
    assert!(versions(&survivor).len() > 200, "the scrub must have been under way");
    let store = open(&survivor);
    assert_eq!(store.len(), 200);
    for _ in 0..5 {
        apply(&store, Vec::new());
    }
    assert_eq!(versions(&survivor).len(), 200);
}

#[test]
fn replicas_that_applied_the_same_agree_on_the_hash_of_every_revision() {
    let (_, one) = store();
    let (engine, other) = store();
    let writes = [("a", "1"), ("b", "1"), ("a", "2")];
    for (key, value) in writes {
        put(&one, key, value);
    }
    let batch = writes.iter().map(|(key, value)| txn(vec![Op::put(*key, *value)])).collect();
    apply(&other, batch);
    assert_eq!(one.hash(), other.hash());
    for number in 1..=4 {
        assert_eq!(one.hash_at(revision(number)), other.hash_at(revision(number)));
        assert!(one.hash_at(revision(number)).is_some());
    }
    put(&one, "a", "3");
    drop(other);
    let other = open(&engine);
    put(&other, "a", "4");
    assert_ne!(one.hash(), other.hash());
}

/// What a checksum cannot tell: a record that is whole, and not what was written.
#[test]
fn a_member_whose_data_was_changed_at_rest_has_another_hash_when_it_is_opened() {
    let (engine, store) = store();
    put(&store, "a", "1");
    put(&store, "b", "1");
    let (revision, hash) = store.hash();
    assert_eq!(open(&engine).hash(), (revision, hash));
    let key = VersionId { revision: Revision::new(2), sub: 0 }.key(0);
    let record = engine.get(Tree::Versions, &key).unwrap().unwrap();
    let mut version = crate::layout::decode_version(&key, &record).unwrap();
    version.kv.value = "2".into();
    let mut batch = Batch::default();
    batch.put(Tree::Versions, key, crate::codec::encode(&version));
    engine.write(batch, Durability::Now).unwrap();
    let changed = open(&engine);
    assert_eq!(changed.hash().0, revision);
    assert_ne!(changed.hash().1, hash);
    assert_ne!(changed.hash_at(revision), Some(hash));
}

#[test]
fn a_damaged_version_is_refused_at_open_with_its_place() {
    let (engine, store) = store();
    put(&store, "a", "1");
    drop(store);
    let key = VersionId::first_of(revision(2)).key(0);
    let mut record = engine.get(Tree::Versions, &key).unwrap().unwrap().to_vec();
    *record.last_mut().unwrap() ^= 1;
    let mut batch = Batch::default();
    batch.put(Tree::Versions, key, record);
    engine.write(batch, Durability::Now).unwrap();
    let error = Store::open(engine).err().unwrap().to_string();
    assert!(
        error.starts_with("versions: damaged record at 0000000000000000000000020000"),
        "{error}"
    );
}

#[test]
fn after_an_engine_failure_the_store_refuses_everything() {
    let (engine, store) = store();
    put(&store, "a", "1");
    let request = WatchRequest { range: KeyRange::all(), start: None, prev_kv: false };
    let mut watcher = store.watch(request).unwrap();
    engine.stop("no space left on device");
    let batch =
        ApplyBatch { commands: vec![txn(vec![Op::put("a", "2")])], ..ApplyBatch::default() };
    assert!(matches!(store.apply(batch), Err(StoreError::Engine(_))));
    assert_eq!(store.revision(), revision(2));
    assert!(matches!(store.apply(ApplyBatch::default()), Err(StoreError::Stopped { .. })));
    let refused = store.range(&RangeRequest::new(KeyRange::all())).unwrap_err();
    assert!(refused.to_string().contains("no space left on device"), "{refused}");
    assert!(matches!(store.sync(), Err(StoreError::Stopped { .. })));
    assert!(matches!(watcher.try_next(), Some(Err(KvError::Failed { .. }))));
}

#[tokio::test]
async fn waiting_for_a_revision_ends_when_it_is_applied_or_the_deadline_passes() {
    let (_, store) = store();
    let soon = Instant::now() + std::time::Duration::from_millis(20);
    assert!(matches!(store.wait_for(revision(2), soon).await, Err(KvError::Unavailable { .. })));
    let later = Instant::now() + std::time::Duration::from_secs(10);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(revision(2), later).await }
    });
    put(&store, "a", "1");
    waiting.await.unwrap().unwrap();
}
