//! The rows of the matrix are the ways in which other stores have lost, repeated or reordered
//! events: starts in the past, the present and the future, with compaction, restart, snapshots and
//! slow readers in between.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;
use crate::kv::{EventKind, KeyRange, Op, RangeEnd, Txn};
use crate::store::{ApplyBatch, Store, StoreCommand};

fn revision(number: u64) -> Revision {
    Revision::new(number)
}

fn store() -> Store {
    Store::open(Arc::new(MemoryEngine::new())).unwrap()
}

fn apply(store: &Store, txns: Vec<Vec<Op>>) {
    let txn = |success| StoreCommand::Txn(Txn { success, ..Txn::default() });
    let commands = txns.into_iter().map(txn).collect();
    store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap();
}

fn put(store: &Store, key: &str, value: &str) {
    apply(store, vec![vec![Op::put(key.to_owned(), value.to_owned())]]);
}

fn delete(store: &Store, key: &str) {
    apply(store, vec![vec![Op::delete(key.to_owned())]]);
}

fn compact(store: &Store, number: u64) {
    let commands = vec![StoreCommand::Compact(revision(number))];
    store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap();
    for _ in 0..3 {
        apply(store, Vec::new());
    }
}

fn from(range: KeyRange, start: u64) -> WatchRequest {
    WatchRequest { range, start: Some(revision(start)), prev_kv: false }
}

/// The next message, which must come.
async fn next(watcher: &mut Watcher) -> Result<WatchMessage, KvError> {
    let message = tokio::time::timeout(Duration::from_secs(20), watcher.next());
    message.await.expect("a message must come").expect("the watch must go on")
}

/// The next events, as `revision key`, with a cross for a deletion.
async fn events(watcher: &mut Watcher) -> Vec<String> {
    loop {
        match next(watcher).await.unwrap() {
            WatchMessage::Events(events) => return events.iter().map(said).collect(),
            WatchMessage::Progress(_) => {}
        }
    }
}

fn said(event: &Event) -> String {
    let cross = if event.kind == EventKind::Delete { "†" } else { "" };
    let key = String::from_utf8_lossy(&event.kv.key).into_owned();
    format!("{} {key}{cross}", event.kv.mod_revision)
}

/// The next events until there are `count` of them.
async fn collect(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(events(watcher).await);
    }
    all
}

#[tokio::test]
async fn a_watch_from_now_on_sees_only_what_comes() {
    let store = store();
    put(&store, "a", "1");
    let request = WatchRequest { range: KeyRange::all(), start: None, prev_kv: false };
    let mut watcher = store.watch(request).unwrap();
    put(&store, "a", "2");
    delete(&store, "a");
    assert_eq!(collect(&mut watcher, 2).await, ["3 a", "4 a†"]);
}

#[tokio::test]
async fn a_watch_from_the_past_replays_and_goes_on_without_gap_or_repetition() {
    for start in 1..=6 {
        let store = store();
        for number in 0..4 {
            put(&store, "a", &number.to_string());
        }
        let mut watcher = store.watch(from(KeyRange::key("a"), start)).unwrap();
        put(&store, "a", "live");
        let expected: Vec<String> =
            (start.max(2)..=6).map(|number| format!("{number} a")).collect();
        assert_eq!(collect(&mut watcher, expected.len()).await, expected, "from {start}");
    }
}

#[tokio::test]
async fn a_replay_from_history_after_a_restart_is_the_same_as_from_memory() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine)).unwrap();
    put(&store, "a", "1");
    apply(&store, vec![vec![Op::put("a", "2"), Op::put("b", "1"), Op::put("other", "1")]]);
    delete(&store, "a");
    let request = |prev_kv| WatchRequest {
        range: KeyRange::between("a", "c"),
        start: Some(revision(2)),
        prev_kv,
    };
    for prev_kv in [false, true] {
        let mut from_memory = store.watch(request(prev_kv)).unwrap();
        let expected = next(&mut from_memory).await.unwrap();
        let reopened = Store::open(Arc::clone(&engine)).unwrap();
        let mut from_history = reopened.watch(request(prev_kv)).unwrap();
        assert_eq!(next(&mut from_history).await.unwrap(), expected);
        let WatchMessage::Events(events) = expected else { panic!("{expected:?}") };
        let before: Vec<_> =
            events.iter().map(|event| event.prev_kv.as_ref().map(|kv| kv.value.clone())).collect();
        let known = |value: &'static str| prev_kv.then(|| Bytes::from(value));
        assert_eq!(before, [None, known("1"), None, known("2")]);
    }
}

#[tokio::test]
async fn a_watch_that_starts_in_the_future_gets_nothing_before() {
    let store = store();
    put(&store, "a", "1");
    let mut watcher = store.watch(from(KeyRange::all(), 5)).unwrap();
    watcher.request_progress();
    put(&store, "a", "2"); // 3
    apply(&store, vec![vec![Op::put("a", "3")], vec![Op::put("a", "4")], vec![Op::put("a", "5")]]);
    watcher.request_progress();
    match next(&mut watcher).await.unwrap() {
        WatchMessage::Events(events) => {
            assert_eq!(events.iter().map(said).collect::<Vec<_>>(), ["5 a", "6 a"]);
        }
        WatchMessage::Progress(revision) => panic!("progress {revision} before the start"),
    }
    assert_eq!(next(&mut watcher).await.unwrap(), WatchMessage::Progress(revision(6)));
}

#[tokio::test]
async fn a_start_below_the_compacted_revision_is_refused_and_one_at_it_is_whole() {
    let store = store();
    put(&store, "a", "1"); // 2
    put(&store, "gone", "1"); // 3
    delete(&store, "gone"); // 4
    put(&store, "a", "2"); // 5
    compact(&store, 4);
    let refused = store.watch(from(KeyRange::all(), 3)).err();
    let expected = KvError::Compacted { requested: revision(3), compacted: revision(4) };
    assert_eq!(refused, Some(expected));
    let reopened = Store::open(Arc::clone(store.engine())).unwrap();
    for store in [store, reopened] {
        let mut watcher = store.watch(from(KeyRange::all(), 4)).unwrap();
        assert_eq!(collect(&mut watcher, 2).await, ["4 gone†", "5 a"]);
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_a_compaction_on_a_delete_loses_neither_it_nor_the_revision() {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    put(&store, "a", "1"); // 2
    put(&store, "gone", "1"); // 3
    delete(&store, "gone"); // 4, the last
    store.sync().unwrap();
    compact(&store, 4);
    let pending = engine.pending();
    assert!(pending > 1, "the compaction and its scrub must be apart: {pending}");
    for kept in 0..=pending {
        let survivor: Arc<dyn Engine> = Arc::new(engine.after_crash(kept));
        let store = Store::open(survivor).unwrap();
        assert_eq!(store.revision(), revision(4), "after {kept} of {pending}");
        let mut watcher = store.watch(from(KeyRange::all(), 4)).unwrap();
        put(&store, "a", "2");
        assert_eq!(collect(&mut watcher, 2).await, ["4 gone†", "5 a"], "after {kept}");
    }
}

#[tokio::test]
async fn a_replay_that_a_compaction_overtakes_ends_as_compacted_and_never_with_a_gap() {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    let many = WATCHER_QUEUE * MESSAGE_EVENTS + 20_000;
    for _ in 0..many / 1000 {
        apply(&store, vec![vec![Op::put("a", "1")]; 1000]);
    }
    let store = Store::open(engine).unwrap();
    // Its reader is slow, so the replay stops when its queue is full: far from the end.
    let mut watcher = store.watch(from(KeyRange::all(), 2)).unwrap();
    let filled = async {
        while watcher.messages.len() < WATCHER_QUEUE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), filled).await.unwrap();
    compact(&store, store.revision().get());
    let mut due = 2;
    let end = loop {
        match next(&mut watcher).await {
            Ok(WatchMessage::Events(events)) => {
                for event in events {
                    assert_eq!(event.kv.mod_revision, revision(due));
                    due += 1;
                }
            }
            Ok(WatchMessage::Progress(at)) => panic!("progress {at} of a watch that is behind"),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, KvError::Compacted { .. }), "{end}");
    assert!(due < store.revision().get());
    assert!(watcher.next().await.is_none(), "there must be nothing after the error");
}

#[tokio::test]
async fn a_transaction_is_never_divided_however_large_a_replay_is() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine)).unwrap();
    let txn = |n: u32| (0..100).map(|part| Op::put(format!("{part}"), format!("{n}"))).collect();
    apply(&store, (0..10).map(txn).collect());
    for store in [store.clone(), Store::open(engine).unwrap()] {
        let mut watcher = store.watch(from(KeyRange::all(), 2)).unwrap();
        let mut seen = 0;
        while seen < 1000 {
            let WatchMessage::Events(events) = next(&mut watcher).await.unwrap() else { continue };
            assert_eq!(events.len() % 100, 0, "whole transactions");
            assert!(events.len() < MESSAGE_EVENTS + 100, "a bounded message");
            assert!(events.is_sorted_by_key(|event| event.kv.mod_revision));
            seen += events.len();
        }
    }
}

#[tokio::test]
async fn a_live_batch_of_many_revisions_is_cut_between_revisions() {
    let store = store();
    let mut watcher = store.watch(from(KeyRange::all(), 2)).unwrap();
    apply(&store, vec![vec![Op::put("a", "1"), Op::put("b", "1")]; 300]);
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 600 {
        sizes.push(events(&mut watcher).await.len());
    }
    assert_eq!(sizes, [256, 256, 88]);
}

#[tokio::test]
async fn a_slow_watcher_is_closed_after_what_it_was_sent_and_can_resume() {
    let store = store();
    let mut slow = store.watch(from(KeyRange::all(), 2)).unwrap();
    let mut other = store.watch(from(KeyRange::key("other"), 2)).unwrap();
    for number in 0..=WATCHER_QUEUE {
        put(&store, "a", &number.to_string());
    }
    put(&store, "other", "1");
    let mut last = revision(0);
    let end = loop {
        match next(&mut slow).await {
            Ok(WatchMessage::Events(events)) => last = events[0].kv.mod_revision,
            Ok(WatchMessage::Progress(_)) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end, KvError::SlowWatcher { last });
    assert_eq!(last, revision(1 + WATCHER_QUEUE as u64));
    let mut resumed = store.watch(from(KeyRange::key("a"), last.get() + 1)).unwrap();
    assert_eq!(events(&mut resumed).await, [format!("{} a", last.next())]);
    assert_eq!(events(&mut other).await.len(), 1, "others must not suffer");
}

#[tokio::test]
async fn progress_comes_on_request_behind_all_events_before_it() {
    let store = store();
    let mut watcher = store.watch(from(KeyRange::key("a"), 2)).unwrap();
    put(&store, "a", "1");
    put(&store, "b", "1");
    watcher.request_progress();
    assert_eq!(events(&mut watcher).await, ["2 a"]);
    assert_eq!(next(&mut watcher).await.unwrap(), WatchMessage::Progress(revision(3)));
}

#[tokio::test]
async fn progress_comes_by_itself_to_a_watcher_of_which_nothing_changes() {
    let store = store();
    let mut watcher = store.watch(from(KeyRange::key("a"), 2)).unwrap();
    put(&store, "b", "1");
    assert_eq!(next(&mut watcher).await.unwrap(), WatchMessage::Progress(revision(2)));
}

#[tokio::test]
async fn progress_asked_for_during_a_replay_comes_after_it() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine)).unwrap();
    apply(&store, vec![vec![Op::put("a", "1")]; 3000]);
    let store = Store::open(engine).unwrap();
    let mut watcher = store.watch(from(KeyRange::all(), 2)).unwrap();
    watcher.request_progress();
    let mut seen = 1;
    loop {
        match next(&mut watcher).await.unwrap() {
            WatchMessage::Events(events) => {
                seen = events.last().unwrap().kv.mod_revision.get();
            }
            WatchMessage::Progress(at) => {
                assert_eq!((at, seen), (revision(3001), 3001));
                break;
            }
        }
    }
}

#[tokio::test]
async fn prev_kv_is_sent_only_to_those_who_ask() {
    let store = store();
    put(&store, "a", "1");
    let mut with =
        store.watch(WatchRequest { prev_kv: true, ..from(KeyRange::key("a"), 3) }).unwrap();
    let mut without = store.watch(from(KeyRange::key("a"), 3)).unwrap();
    delete(&store, "a");
    let WatchMessage::Events(events) = next(&mut with).await.unwrap() else { panic!() };
    assert_eq!(events[0].prev_kv.as_ref().unwrap().value, "1");
    let WatchMessage::Events(events) = next(&mut without).await.unwrap() else { panic!() };
    assert_eq!(events[0].prev_kv, None);
}

/// A deletion to the last key may stand beside puts in one transaction.
#[tokio::test]
async fn a_key_that_one_transaction_changes_twice_is_told_live_as_from_history() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let store = Store::open(Arc::clone(&engine)).unwrap();
    let request = || WatchRequest { prev_kv: true, ..from(KeyRange::key("a"), 3) };
    let live = store.watch(request()).unwrap();
    let all = KeyRange { start: "a".into(), end: RangeEnd::Unbounded };
    let delete = || Op::DeleteRange { range: all.clone(), prev_kv: false };
    put(&store, "a", "1");
    apply(&store, vec![vec![delete(), Op::put("a", "2")], vec![Op::put("a", "3"), delete()]]);
    let told = |events: Vec<Event>| {
        let before = |event: &Event| event.prev_kv.as_ref().map(|kv| kv.value.clone());
        events.iter().map(|event| (said(event), before(event))).collect::<Vec<_>>()
    };
    let was = |value: &'static str| Some(Bytes::from_static(value.as_bytes()));
    let expected = [
        ("3 a†".to_owned(), was("1")),
        ("3 a".to_owned(), None),
        ("4 a".to_owned(), was("2")),
        ("4 a†".to_owned(), was("2")),
    ];
    let reopened = Store::open(engine).unwrap();
    for mut watcher in [live, reopened.watch(request()).unwrap()] {
        let WatchMessage::Events(events) = next(&mut watcher).await.unwrap() else { panic!() };
        assert_eq!(told(events), expected);
    }
    assert!(store.is_empty() && reopened.is_empty());
    assert_eq!(store.hash(), reopened.hash());
}

#[tokio::test]
async fn a_watcher_that_is_dropped_leaves_nothing_behind() {
    let store = store();
    let watcher = store.watch(from(KeyRange::key("a"), 2)).unwrap();
    assert!(store.shared.hub.locked(|hub| hub.watcher(watcher.id).is_some()));
    let id = watcher.id;
    drop(watcher);
    assert!(store.shared.hub.locked(|hub| hub.watcher(id).is_none()));
    put(&store, "a", "1");
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_shut_down() {
    let store = store();
    let mut watcher = store.watch(from(KeyRange::all(), 2)).unwrap();
    put(&store, "a", "1");
    drop(store);
    assert_eq!(events(&mut watcher).await, ["2 a"]);
    assert!(watcher.next().await.is_none());
}

#[tokio::test]
async fn an_empty_key_cannot_be_watched() {
    let refused = store().watch(from(KeyRange::key(""), 2)).err();
    assert_eq!(refused, Some(KvError::Invalid(crate::kv::InvalidRequest::EmptyKey)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_begin_anywhere_while_writes_go_on_miss_nothing() {
    let store = store();
    let total = 3000_u64;
    let writer = std::thread::spawn({
        let store = store.clone();
        move || {
            for number in 0..total {
                put(&store, &format!("{}", number % 7), "v");
                if number % 500 == 499 {
                    compact(&store, number.saturating_sub(400).max(1));
                }
            }
        }
    });
    let mut watching = Vec::new();
    while store.revision() < revision(total) {
        let start =
            store.revision().get().saturating_sub(300).max(store.compacted().get() + 1).max(2);
        let Ok(mut watcher) = store.watch(from(KeyRange::prefix("3"), start)) else { continue };
        watching.push(tokio::spawn(async move {
            let first = (start..start + 7).find(|number| (number - 2) % 7 == 3).unwrap();
            for due in (first..total).step_by(7).take(100) {
                loop {
                    match next(&mut watcher).await {
                        Ok(WatchMessage::Progress(at)) => assert!(at < revision(due)),
                        Ok(WatchMessage::Events(events)) => {
                            // One at a time is enough here: the first must be the one that is due.
                            assert_eq!(events[0].kv.mod_revision, revision(due));
                            assert!(events.is_sorted_by_key(|event| event.kv.mod_revision));
                            if events.len() > 1 {
                                return;
                            }
                            break;
                        }
                        // Told where to resume, it has missed nothing; on a busy machine that happens.
                        Err(KvError::SlowWatcher { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
        if watching.len() > 60 {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.join().unwrap();
    for watcher in watching {
        watcher.await.unwrap();
    }
}
