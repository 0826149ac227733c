use std::collections::BTreeMap;

use super::*;
use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;
use crate::kv::{KeyRange, KvError, Op, RangeRequest, Txn, WatchMessage, WatchRequest};
use crate::store::{ApplyBatch, StoreCommand};

fn store() -> (Arc<MemoryEngine>, Store) {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    (engine, store)
}

fn put(store: &Store, key: &str, value: &str) {
    let ops = vec![Op::put(key.to_owned(), value.to_owned())];
    let txn = StoreCommand::Txn(Txn { success: ops, ..Txn::default() });
    let applied = Bytes::from(format!("{}", store.revision().next()));
    let mut sidecar = Batch::default();
    sidecar.put(Tree::State, "outcome", applied.clone());
    store.apply(ApplyBatch { commands: vec![txn], applied, sidecar }).unwrap();
}

fn compact(store: &Store, revision: u64) {
    let commands = vec![StoreCommand::Compact(Revision::new(revision))];
    store.apply(ApplyBatch { commands, applied: "c".into(), ..ApplyBatch::default() }).unwrap();
    for _ in 0..5 {
        store.apply(ApplyBatch { applied: "c".into(), ..ApplyBatch::default() }).unwrap();
    }
}

fn chunks(mut snapshot: Snapshot) -> Vec<Bytes> {
    std::iter::from_fn(|| snapshot.next_chunk().unwrap()).collect()
}

fn install(store: &Store, chunks: &[Bytes]) -> Result<Revision, StoreError> {
    let mut installer = store.begin_install()?;
    for chunk in chunks {
        installer.push(chunk)?;
    }
    installer.finish()
}

fn state_at(store: &Store, revision: Revision) -> Result<BTreeMap<Bytes, Bytes>, KvError> {
    let request = RangeRequest { revision: Some(revision), ..RangeRequest::new(KeyRange::all()) };
    Ok(store.range(&request)?.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

/// A store with a past: about 300 revisions of keys of different sizes, some deleted.
fn lived() -> (Arc<MemoryEngine>, Store) {
    let (engine, store) = store();
    for number in 0..300_usize {
        put(&store, &format!("{}", number % 40), &"v".repeat(number * 40));
    }
    compact(&store, 100);
    (engine, store)
}

#[test]
fn a_reborn_store_has_the_keys_and_leases_at_a_later_revision_and_no_past() {
    let (_, source) = lived();
    let grant = StoreCommand::LeaseGrant { id: 7, ttl_seconds: 60 };
    source
        .apply(ApplyBatch { commands: vec![grant], applied: "c".into(), ..Default::default() })
        .unwrap();
    let (engine, target) = store();
    let mut installer = target.begin_install().unwrap();
    for chunk in chunks(source.snapshot().unwrap()) {
        installer.push(&chunk).unwrap();
    }
    let state = vec![("new".into(), "put there".into())];
    let rebirth = Rebirth { bump: 1000, applied: "begin".into(), state };
    let revision = installer.finish_reborn(rebirth).unwrap();
    assert_eq!(revision.get(), source.revision().get() + 1000);
    let reopened = Store::open(Arc::new(engine.after_crash(0))).unwrap();
    for store in [&target, &reopened] {
        assert_eq!((store.revision(), store.compacted()), (revision, revision));
        assert_eq!(store.applied(), Some("begin".into()));
        assert_eq!(store.lease(7), source.lease(7));
        assert_eq!(state_at(store, revision), state_at(&source, source.revision()));
        let old = state_at(store, source.revision()).unwrap_err();
        assert!(matches!(old, KvError::Compacted { .. }), "{old}");
        assert_eq!(store.engine().get(Tree::State, b"outcome").unwrap(), None);
        assert_eq!(store.engine().get(Tree::State, b"new").unwrap(), Some("put there".into()));
    }
    put(&target, "first", "write");
    assert_eq!(target.revision(), revision.next());
}

#[test]
fn an_inspection_says_what_a_snapshot_holds_and_refuses_a_part_of_one() {
    let (_, source) = lived();
    let chunks = chunks(source.snapshot().unwrap());
    let inspect = |chunks: &[Bytes]| {
        let mut inspection = Inspection::default();
        chunks.iter().try_for_each(|chunk| inspection.push(chunk))?;
        inspection.finish()
    };
    let summary = inspect(&chunks).unwrap();
    assert_eq!((summary.revision, summary.compacted), (source.revision(), source.compacted()));
    assert_eq!(summary.keys, source.len());
    inspect(&chunks[..chunks.len() - 1]).unwrap_err();
    inspect(&chunks[1..]).unwrap_err();
    inspect(&[&chunks[..2], &chunks[3..]].concat()).unwrap_err();
}

#[test]
fn an_installed_snapshot_is_the_store_it_was_taken_of() {
    let (_, source) = lived();
    let snapshot = source.snapshot().unwrap();
    assert_eq!((snapshot.revision(), snapshot.applied()), (source.revision(), Some(&"c".into())));
    let chunks = chunks(snapshot);
    assert!(chunks.len() > 5);
    assert!(chunks.iter().all(|chunk| chunk.len() < 2 * CHUNK_BYTES));
    let (engine, target) = store();
    put(&target, "of the target", "gone afterwards");
    assert_eq!(install(&target, &chunks).unwrap(), source.revision());
    let reopened = Store::open(Arc::new(engine.after_crash(0))).unwrap();
    for store in [&target, &reopened] {
        assert_eq!(store.hash(), source.hash());
        assert_eq!(store.compacted(), source.compacted());
        assert_eq!(store.applied(), source.applied());
        assert_eq!(store.durable_applied(), source.applied());
        let sidecar = store.engine().get(Tree::State, b"outcome").unwrap();
        assert_eq!(sidecar, source.engine().get(Tree::State, b"outcome").unwrap());
        for number in 100..=source.revision().get() {
            let revision = Revision::new(number);
            assert_eq!(state_at(store, revision), state_at(&source, revision));
        }
    }
    put(&target, "1", "after");
    put(&source, "1", "after");
    assert_eq!(target.hash(), source.hash());
}

#[test]
fn a_snapshot_is_of_its_moment_while_writes_and_compactions_go_on() {
    let (_, source) = lived();
    let expected: Vec<_> =
        (100..=301).map(|number| state_at(&source, Revision::new(number)).unwrap()).collect();
    let mut snapshot = source.snapshot().unwrap();
    let mut chunks = vec![snapshot.next_chunk().unwrap().unwrap()];
    let mut number = 0;
    while let Some(chunk) = snapshot.next_chunk().unwrap() {
        chunks.push(chunk);
        put(&source, &format!("{}", number % 40), "later");
        compact(&source, source.revision().get());
        number += 1;
    }
    drop(snapshot);
    let (_, target) = store();
    assert_eq!(install(&target, &chunks).unwrap(), Revision::new(301));
    for (number, expected) in (100..).zip(expected) {
        assert_eq!(state_at(&target, Revision::new(number)).unwrap(), expected);
    }
}

#[test]
fn compaction_goes_on_once_the_snapshot_is_dropped() {
    let (engine, store) = lived();
    let count = || {
        let mut count = 0;
        let visit = &mut |_: &[u8], _| {
            count += 1;
            ControlFlow::Continue(())
        };
        engine.scan(Tree::Versions, Bound::Unbounded, Bound::Unbounded, visit).unwrap();
        count
    };
    let snapshot = store.snapshot().unwrap();
    let before = count();
    compact(&store, 300);
    assert_eq!(count(), before);
    drop(snapshot);
    compact(&store, 301);
    assert_eq!(count(), 40);
}

#[test]
fn a_damaged_missing_repeated_or_reordered_chunk_is_refused_and_changes_nothing() {
    let (_, source) = lived();
    let chunks = chunks(source.snapshot().unwrap());
    let (_, target) = store();
    put(&target, "a", "1");
    let before = (target.hash(), target.applied());
    let mut damaged = chunks.clone();
    let mut bytes = damaged[2].to_vec();
    bytes[1000] ^= 1;
    damaged[2] = bytes.into();
    let mut missing = chunks.clone();
    missing.remove(3);
    let mut repeated = chunks.clone();
    repeated.insert(2, chunks[1].clone());
    let mut reordered = chunks.clone();
    reordered.swap(2, 3);
    let cut = chunks[..chunks.len() - 1].to_vec();
    for wrong in [damaged, missing, repeated, reordered, cut, Vec::new()] {
        let refused = install(&target, &wrong).unwrap_err();
        assert!(matches!(refused, StoreError::Snapshot { .. }), "{refused}");
        assert_eq!((target.hash(), target.applied()), before);
    }
    put(&target, "a", "2");
    install(&target, &chunks).unwrap();
}

#[test]
fn an_older_snapshot_than_the_state_is_refused_and_the_store_goes_on() {
    let (_, source) = store();
    put(&source, "a", "1");
    let chunks = chunks(source.snapshot().unwrap());
    let (_, target) = store();
    put(&target, "b", "1");
    put(&target, "b", "2");
    assert!(matches!(install(&target, &chunks), Err(StoreError::Snapshot { .. })));
    put(&target, "b", "3");
    assert_eq!(target.revision(), Revision::new(4));
}

#[test]
fn a_crash_at_any_point_of_an_installation_leaves_the_old_state_or_the_new_one() {
    let (_, source) = lived();
    let chunks = chunks(source.snapshot().unwrap());
    let (engine, target) = store();
    put(&target, "a", "1");
    target.sync().unwrap();
    let old = target.hash();
    let mut installer = target.begin_install().unwrap();
    let mut survivors = Vec::new();
    for chunk in &chunks {
        installer.push(chunk).unwrap();
        survivors.extend((0..=engine.pending()).step_by(3).map(|kept| engine.after_crash(kept)));
    }
    for survivor in survivors {
        let survivor = Arc::new(survivor);
        let store = Store::open(Arc::clone(&survivor) as Arc<dyn Engine>).unwrap();
        assert_eq!(store.hash(), old);
        assert_eq!(store.len(), 1);
        put(&store, "a", "2");
        install(&store, &chunks).unwrap();
        assert_eq!(store.hash(), source.hash());
    }
    installer.finish().unwrap();
    for kept in 0..=engine.pending() {
        let store = Store::open(Arc::new(engine.after_crash(kept))).unwrap();
        assert_eq!(store.hash(), source.hash());
    }
}

async fn numbers(watcher: &mut crate::watch::Watcher, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let message = tokio::time::timeout(std::time::Duration::from_secs(20), watcher.next());
        if let WatchMessage::Events(events) = message.await.unwrap().unwrap().unwrap() {
            numbers.extend(events.iter().map(|event| event.kv.mod_revision.get()));
        }
    }
    numbers
}

#[tokio::test]
async fn watchers_go_on_over_an_installation_without_gap_or_repetition() {
    let (_, source) = store();
    let (_, target) = store();
    for number in 0..5 {
        put(&source, "a", &number.to_string());
        put(&target, "a", &number.to_string());
    }
    let request = |start| WatchRequest {
        range: KeyRange::key("a"),
        start: Some(Revision::new(start)),
        prev_kv: false,
    };
    let mut live = target.watch(request(2)).unwrap();
    assert_eq!(numbers(&mut live, 5).await, [2, 3, 4, 5, 6]);
    let mut future = target.watch(request(9)).unwrap();
    for number in 5..8 {
        put(&source, "a", &number.to_string());
    }
    install(&target, &chunks(source.snapshot().unwrap())).unwrap();
    put(&target, "a", "after");
    assert_eq!(numbers(&mut live, 4).await, [7, 8, 9, 10]);
    assert_eq!(numbers(&mut future, 2).await, [9, 10]);
}

#[tokio::test]
async fn a_watcher_that_the_snapshot_cannot_carry_over_is_closed_as_compacted() {
    let (_, source) = store();
    let (_, target) = store();
    put(&target, "a", "0");
    for number in 0..9 {
        put(&source, "a", &number.to_string());
    }
    compact(&source, 8);
    let request =
        WatchRequest { range: KeyRange::key("a"), start: Some(Revision::new(3)), prev_kv: false };
    let mut watcher = target.watch(request).unwrap();
    install(&target, &chunks(source.snapshot().unwrap())).unwrap();
    let end = loop {
        match watcher.next().await.unwrap() {
            Ok(WatchMessage::Progress(_)) => {}
            Ok(events) => panic!("{events:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, KvError::Compacted { .. }), "{end}");
}
