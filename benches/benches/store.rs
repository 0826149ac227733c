//! The store alone, on the memory engine: what it costs besides disk and network.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kontiki_benches::{key, puts};
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{KeyRange, RangeRequest, WatchRequest};
use kontiki_storage::store::Store;

/// Entries of the log that are applied together.
const BATCH: usize = 64;
/// Keys that are there when reads are measured.
const KEYS: usize = 10_000;

fn store() -> Store {
    Store::open(Arc::new(MemoryEngine::new())).expect("a fresh memory engine must open")
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH as u64));
    for watchers in [0, 1_000] {
        let store = store();
        let _watchers: Vec<_> = (0..watchers)
            .map(|number| {
                let range = KeyRange::prefix(format!("/registry/pods/namespace-{number}/"));
                let request = WatchRequest { range, start: None, prev_kv: false };
                store.watch(request).expect("a watch of the future must begin")
            })
            .collect();
        let mut next = 0;
        group.bench_function(format!("{BATCH} puts of 1 KiB, {watchers} other watchers"), |b| {
            b.iter(|| {
                let outcomes = store.apply(puts(next % KEYS, BATCH)).expect("it must apply");
                next += BATCH;
                black_box(outcomes)
            });
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let store = store();
    for first in (0..KEYS).step_by(BATCH) {
        store.apply(puts(first, BATCH)).expect("it must apply");
    }
    let one = RangeRequest::new(KeyRange::key(key(KEYS / 2)));
    criterion.bench_function("get one key", |b| b.iter(|| black_box(store.range(&one))));
    let mut page = RangeRequest::new(KeyRange::prefix("/registry/configmaps/"));
    page.limit = 500;
    criterion.bench_function("list 500 keys", |b| b.iter(|| black_box(store.range(&page))));
}

criterion_group!(store_alone, apply, read);
criterion_main!(store_alone);
