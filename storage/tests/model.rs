//! Random histories of a store against a model that keeps every state whole: what each command
//! answers, every past revision, every watch, over reopens, crashes and snapshots.

#![allow(clippy::unwrap_used)] // the helpers of tests may

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{
    Compare, Event, EventKind, KeyRange, KeyValue, KvError, Op, RangeRequest, Revision, Txn,
    WatchMessage, WatchRequest,
};
use kontiki_storage::store::{ApplyBatch, ApplyOutcome, Store, StoreCommand};
use proptest::prelude::*;

/// Every state there has been, by revision, and how each came about.
struct Model {
    states: BTreeMap<u64, BTreeMap<Bytes, KeyValue>>,
    events: BTreeMap<u64, Vec<Event>>,
    revision: u64,
    compacted: u64,
}

#[derive(Debug, Clone)]
enum Act {
    /// Puts and deletes of different keys in one transaction, if the key has not changed.
    Write {
        guard: Option<(u8, u64)>,
        puts: Vec<u8>,
        deletes: Vec<u8>,
        value: u8,
    },
    DeletePrefix(u8),
    Compact(u64),
    Reopen,
    Crash {
        kept: usize,
    },
    Snapshot,
}

fn key(number: u8) -> Bytes {
    format!("{}/{number}", number % 3).into()
}

impl Model {
    fn new() -> Self {
        let states = BTreeMap::from([(1, BTreeMap::new())]);
        Self { states, events: BTreeMap::new(), revision: 1, compacted: 0 }
    }

    fn latest(&self) -> &BTreeMap<Bytes, KeyValue> {
        &self.states[&self.revision]
    }

    fn write(&mut self, puts: &[(Bytes, Bytes)], deletes: &[Bytes]) {
        let mut state = self.latest().clone();
        let revision = Revision::new(self.revision + 1);
        let mut events = Vec::new();
        for (key, value) in puts {
            let prev_kv = state.get(key).cloned();
            let kv = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: prev_kv.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: prev_kv.as_ref().map_or(1, |kv| kv.version + 1),
                lease: 0,
            };
            state.insert(key.clone(), kv.clone());
            events.push(Event { kind: EventKind::Put, kv, prev_kv });
        }
        for key in deletes {
            let Some(prev) = state.remove(key) else { continue };
            let kv = KeyValue {
                key: key.clone(),
                value: Bytes::new(),
                create_revision: Revision::ZERO,
                mod_revision: revision,
                version: 0,
                lease: 0,
            };
            events.push(Event { kind: EventKind::Delete, kv, prev_kv: Some(prev) });
        }
        if !events.is_empty() {
            self.revision += 1;
            self.states.insert(self.revision, state);
            self.events.insert(self.revision, events);
        }
    }

    /// Forgets what a crash has lost.
    fn go_back(&mut self, revision: u64, compacted: u64) {
        self.states.retain(|number, _| *number <= revision);
        self.events.retain(|number, _| *number <= revision);
        (self.revision, self.compacted) = (revision, compacted);
    }
}

fn apply(store: &Store, command: StoreCommand) -> ApplyOutcome {
    let batch = ApplyBatch { commands: vec![command], ..ApplyBatch::default() };
    store.apply(batch).unwrap().remove(0)
}

fn perform(store: &Store, model: &mut Model, act: &Act) {
    match act {
        Act::Write { guard, puts, deletes, value } => {
            let compare: Vec<_> = guard
                .iter()
                .map(|(number, at)| Compare::unchanged_since(key(*number), Revision::new(*at)))
                .collect();
            let holds = guard.is_none_or(|(number, at)| {
                model.latest().get(&key(number)).map_or(0, |kv| kv.mod_revision.get()) == at
            });
            let puts: Vec<_> =
                puts.iter().map(|number| (key(*number), vec![*value; 3].into())).collect();
            let deletes: Vec<_> = deletes.iter().map(|number| key(*number)).collect();
            let put = |(key, value): &(Bytes, Bytes)| Op::put(key.clone(), value.clone());
            let delete = |key: &Bytes| Op::delete(key.clone());
            let success = puts.iter().map(put).chain(deletes.iter().map(delete)).collect();
            let txn = Txn { compare, success, failure: Vec::new() };
            let outcome = apply(store, StoreCommand::Txn(txn));
            if holds {
                model.write(&puts, &deletes);
            }
            let ApplyOutcome::Txn(Ok(response)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(response.succeeded, holds);
            assert_eq!(response.revision, Revision::new(model.revision));
        }
        Act::DeletePrefix(number) => {
            let range = KeyRange::prefix(format!("{}/", number % 3));
            let gone: Vec<_> =
                model.latest().keys().filter(|key| range.contains(key)).cloned().collect();
            model.write(&[], &gone);
            let success = vec![Op::DeleteRange { range, prev_kv: false }];
            apply(store, StoreCommand::Txn(Txn { success, ..Txn::default() }));
        }
        Act::Compact(back) => {
            let at = model.revision.saturating_sub(*back).max(1);
            let outcome = apply(store, StoreCommand::Compact(Revision::new(at)));
            let allowed = at > model.compacted;
            assert_eq!(matches!(outcome, ApplyOutcome::Compact(Ok(()))), allowed, "{outcome:?}");
            model.compacted = model.compacted.max(at);
        }
        Act::Reopen | Act::Crash { .. } | Act::Snapshot => unreachable!("done by the caller"),
    }
}

fn compare(store: &Store, model: &Model) {
    assert_eq!(store.revision(), Revision::new(model.revision));
    assert_eq!(store.compacted(), Revision::new(model.compacted));
    for (number, state) in &model.states {
        let at = RangeRequest {
            revision: Some(Revision::new(*number)),
            ..RangeRequest::new(KeyRange::all())
        };
        match store.range(&at) {
            Ok(response) => {
                assert!(*number >= model.compacted);
                assert!(response.kvs.iter().eq(state.values()), "revision {number}");
                assert_eq!(response.count, state.len() as u64);
            }
            Err(KvError::Compacted { .. }) => assert!(*number < model.compacted),
            Err(error) => panic!("{error}"),
        }
    }
    for prefix in 0..3 {
        let range = KeyRange::prefix(format!("{prefix}/"));
        let found = store.range(&RangeRequest::new(range.clone())).unwrap();
        let expected = model.latest().values().filter(|kv| range.contains(&kv.key));
        assert!(found.kvs.iter().eq(expected), "prefix {prefix}");
    }
}

/// Watches everything from the oldest revision there is, and one prefix, up to the present.
async fn compare_watches(store: &Store, model: &Model) {
    let start = model.compacted.max(2);
    for range in [KeyRange::all(), KeyRange::prefix("1/")] {
        let request =
            WatchRequest { range: range.clone(), start: Some(Revision::new(start)), prev_kv: true };
        let mut watcher = store.watch(request).unwrap();
        watcher.request_progress();
        let mut found = Vec::new();
        loop {
            let message = tokio::time::timeout(std::time::Duration::from_secs(30), watcher.next());
            match message.await.unwrap().unwrap().unwrap() {
                WatchMessage::Events(events) => found.extend(events),
                WatchMessage::Progress(at) => {
                    assert_eq!(at, Revision::new(model.revision));
                    break;
                }
            }
        }
        let mut expected = Vec::new();
        for (number, events) in model.events.range(start..) {
            for event in events.iter().filter(|event| range.contains(&event.kv.key)) {
                let mut event = event.clone();
                if *number == model.compacted {
                    // What was before the compacted revision is forgotten, or not yet.
                    event.prev_kv = None;
                }
                expected.push(event);
            }
        }
        for event in &mut found {
            if event.kv.mod_revision == Revision::new(model.compacted) {
                event.prev_kv = None;
            }
        }
        assert_eq!(found, expected);
    }
}

fn installed(source: &Store) -> (Arc<MemoryEngine>, Store) {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    let mut snapshot = source.snapshot().unwrap();
    let mut installer = store.begin_install().unwrap();
    while let Some(chunk) = snapshot.next_chunk().unwrap() {
        installer.push(&chunk).unwrap();
    }
    installer.finish().unwrap();
    (engine, store)
}

fn run(acts: &[Act]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut model = Model::new();
    let mut engine = Arc::new(MemoryEngine::new());
    let mut store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    for act in acts {
        let hash = store.hash();
        match act {
            Act::Reopen => store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap(),
            Act::Snapshot => {
                (engine, store) = installed(&store);
                assert_eq!(store.hash(), hash);
            }
            Act::Crash { kept } => {
                engine = Arc::new(engine.after_crash(*kept));
                store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
                assert!(store.revision() <= Revision::new(model.revision));
                model.go_back(store.revision().get(), store.compacted().get());
            }
            act => perform(&store, &mut model, act),
        }
        compare(&store, &model);
    }
    runtime.block_on(compare_watches(&store, &model));
}

fn any_act() -> impl Strategy<Value = Act> {
    let keys = || prop::collection::btree_set(0..12_u8, 0..4);
    let guard = prop::option::weighted(0.3, (0..12_u8, 0..8_u64));
    let write = (guard, keys(), keys(), any::<u8>()).prop_map(|(guard, puts, deletes, value)| {
        let deletes = deletes.difference(&puts).copied().collect();
        Act::Write { guard, puts: puts.into_iter().collect(), deletes, value }
    });
    prop_oneof![
        20 => write,
        2 => (0..3_u8).prop_map(Act::DeletePrefix),
        3 => (0..10_u64).prop_map(Act::Compact),
        1 => Just(Act::Reopen),
        1 => (0..40_usize).prop_map(|kept| Act::Crash { kept }),
        1 => Just(Act::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_a_store_is_that_of_the_model(
        acts in prop::collection::vec(any_act(), 1..60),
    ) {
        run(&acts);
    }
}
