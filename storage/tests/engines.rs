//! Every engine against the one contract (`kontiki_storage::testing`).

#![allow(clippy::unwrap_used)] // the helpers of tests may

use std::path::PathBuf;

use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::engine::{Batch, Durability, Engine};
use kontiki_storage::testing::{Fixture, Step, TREES, check_contract, check_history};
use proptest::prelude::*;

struct Memory(MemoryEngine);

impl Fixture for Memory {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn reopen(&mut self) {
        self.0.sync().unwrap();
        self.0 = self.0.after_crash(0);
    }

    fn settle(&self) {}
}

struct Disk {
    directory: tempfile::TempDir,
    engine: Option<DiskEngine>,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = Some(DiskEngine::open(directory.path()).unwrap());
        Self { directory, engine }
    }

    fn disk(&self) -> &DiskEngine {
        self.engine.as_ref().unwrap()
    }
}

impl Fixture for Disk {
    fn engine(&self) -> &dyn Engine {
        self.disk()
    }

    fn reopen(&mut self) {
        drop(self.engine.take());
        self.engine = Some(DiskEngine::open(self.directory.path()).unwrap());
    }

    fn settle(&self) {
        self.disk().settle().unwrap();
        assert_eq!(self.disk().blobs().unwrap(), Vec::<PathBuf>::new(), "sled must make no blobs");
    }
}

#[test]
fn the_memory_engine_keeps_the_contract() {
    check_contract(&mut Memory(MemoryEngine::new()));
}

#[test]
fn the_disk_engine_keeps_the_contract() {
    check_contract(&mut Disk::new());
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4_u8, 0..4)
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        2 => (1000..6000_usize, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
        1 => (14_000..40_000_usize, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
    ]
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let tree = || prop::sample::select(&TREES[..2]);
    let put = (tree(), any_key(), any_value()).prop_map(|(tree, key, value)| {
        let mut batch = Batch::default();
        batch.put(tree, key, value);
        batch
    });
    let delete = (tree(), any_key()).prop_map(|(tree, key)| {
        let mut batch = Batch::default();
        batch.delete(tree, key);
        batch
    });
    let clear = (tree(), any_key(), any_key()).prop_map(|(tree, start, before)| {
        let mut batch = Batch::default();
        batch.delete_range(tree, start, before);
        batch
    });
    let write = prop_oneof![8 => put, 2 => delete, 2 => clear];
    prop::collection::vec(write, 0..12).prop_map(|batches| Batch {
        writes: batches.into_iter().flat_map(|batch| batch.writes).collect(),
    })
}

fn any_history() -> impl Strategy<Value = Vec<Step>> {
    let durability = prop::sample::select(vec![Durability::Now, Durability::Later]);
    let step = prop_oneof![
        12 => (any_batch(), durability).prop_map(|(batch, durability)| Step::Write(batch, durability)),
        1 => Just(Step::Sync),
        3 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_the_memory_engine_is_that_of_the_model(history in any_history()) {
        check_history(&mut Memory(MemoryEngine::new()), &history);
    }

    #[test]
    fn any_history_of_the_disk_engine_is_that_of_the_model(history in any_history()) {
        check_history(&mut Disk::new(), &history);
    }
}
