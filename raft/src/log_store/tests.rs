//! openraft's own suite, over every engine, and what it does not ask.

use std::sync::Arc;

use kontiki_storage::engine::Engine;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::store::Store;
use openraft::storage::RaftLogStorage as _;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, RaftLogReader as _, StorageError};
use tempfile::TempDir;

use super::*;
use crate::command::Command;
use crate::state_machine::StateMachine;
use crate::types::LeaderId;
use crate::wire;

struct OnMemory(Blocking);

struct OnDisk;

fn open(engine: Arc<dyn Engine>, blocking: Blocking) -> (LogStore, StateMachine) {
    let log = LogStore::open(Arc::clone(&engine), blocking).unwrap();
    let store = Store::open(engine).unwrap();
    // The suite purges what no state machine has applied: it gets a log of its own.
    let apart: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let machine_log = LogStore::open(apart, blocking).unwrap();
    (log, StateMachine::open(store, machine_log, blocking).unwrap())
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, ()> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let (log, machine) = open(Arc::new(MemoryEngine::new()), self.0);
        Ok(((), log, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(directory.path()).unwrap();
        let (log, machine) = open(Arc::new(engine), Blocking::Threads);
        Ok((directory, log, machine))
    }
}

#[tokio::test]
async fn openraft_accepts_the_log_in_memory() {
    Suite::test_all(OnMemory(Blocking::Threads)).await.unwrap();
    Suite::test_all(OnMemory(Blocking::Inline)).await.unwrap();
}

#[tokio::test]
async fn openraft_accepts_the_log_on_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let command = Command(bytes::Bytes::from(vec![u8::try_from(index % 251).unwrap(); size]));
    Entry { log_id: wire::log_id(term, index), payload: EntryPayload::Normal(command) }
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) {
    let (done, flushed) = TypeConfig::oneshot();
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.append(entries, IOFlushed::signal(done)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash_and_votes_too() {
    let engine = Arc::new(MemoryEngine::new());
    let mut log = LogStore::open(engine.clone(), Blocking::Threads).unwrap();
    let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: true };
    log.save_vote(&vote).await.unwrap();
    append(&mut log, (0..50).map(|index| entry(3, index, 100))).await;
    let crashed = Arc::new(engine.after_crash(0));
    let mut log = LogStore::open(crashed, Blocking::Threads).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let read = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, (0..50).map(|index| entry(3, index, 100)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_truncation_inside_a_record_keeps_what_is_before_it_through_a_crash() {
    let engine = Arc::new(MemoryEngine::new());
    let mut log = LogStore::open(engine.clone(), Blocking::Threads).unwrap();
    append(&mut log, (0..30).map(|index| entry(1, index, 10))).await;
    log.truncate_after(Some(wire::log_id(1, 9))).await.unwrap();
    append(&mut log, (10..12).map(|index| entry(2, index, 10))).await;
    let mut log = LogStore::open(Arc::new(engine.after_crash(0)), Blocking::Threads).unwrap();
    let ids: Vec<_> =
        log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id).collect();
    let kept = (0..10).map(|index| wire::log_id(1, index));
    assert_eq!(ids, kept.chain((10..12).map(|index| wire::log_id(2, index))).collect::<Vec<_>>());
}

#[tokio::test]
async fn entries_that_left_memory_are_read_from_the_engine() {
    let mut log = LogStore::open(Arc::new(MemoryEngine::new()), Blocking::Threads).unwrap();
    for index in 0..40 {
        append(&mut log, [entry(1, index, 512 << 10)]).await;
    }
    let read = log.try_get_log_entries(0..40).await.unwrap();
    assert!(read.iter().map(|entry| entry.log_id.index).eq(0..40));
    let limited = log.limited_get_log_entries(3, 40).await.unwrap();
    assert!((1..=3).contains(&limited.len()) && limited[0].log_id.index == 3);
}

/// Lets the log's task, in this very thread, do all that it has to do.
async fn turn() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_purge_stops_at_what_the_state_has_synced() {
    let engine = Arc::new(MemoryEngine::new());
    let mut log = LogStore::open(engine.clone(), Blocking::Inline).unwrap();
    for index in 0..20 {
        append(&mut log, [entry(1, index, 10)]).await;
    }
    log.set_durable_applied(4);
    log.purge(wire::log_id(1, 15)).await.unwrap();
    turn().await;
    let first = |log: &LogStore| log.shared.records.lock().first().copied();
    assert_eq!(first(&log), Some(5), "R2: what is not synced must stay in the log");
    log.set_durable_applied(15);
    append(&mut log, [entry(1, 20, 10)]).await;
    turn().await;
    assert_eq!(first(&log), Some(16));
    assert!(log.try_get_log_entries(..).await.unwrap()[0].log_id.index == 16);
    let mut log = LogStore::open(Arc::new(engine.after_crash(9)), Blocking::Inline).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(wire::log_id(1, 15)));
    assert_eq!(state.last_log_id, Some(wire::log_id(1, 20)));
}

#[tokio::test]
async fn a_damaged_record_is_refused_with_its_place() {
    use kontiki_storage::engine::{Batch, Durability, Tree};
    let engine = Arc::new(MemoryEngine::new());
    let mut log = LogStore::open(engine.clone(), Blocking::Inline).unwrap();
    append(&mut log, [entry(1, 0, 10)]).await;
    let key = records::key(0);
    let mut record = engine.get(Tree::Log, &key).unwrap().unwrap().to_vec();
    record[8] ^= 1;
    let mut batch = Batch::default();
    batch.put(Tree::Log, key, record);
    engine.write(batch, Durability::Now).unwrap();
    let error = LogStore::open(engine, Blocking::Inline).err().unwrap();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("damaged record at 0000000000000000"), "{error}: {source}");
}
