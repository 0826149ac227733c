//! Workloads for the benchmarks of this crate, and a map of what is measured where.
//!
//! ```text
//! benches/store.rs       the store alone, in memory: apply, read, publish to watchers
//! kontiki bench          a running cluster, through its Kubernetes API or its etcd API
//! kontiki bench compare  a real etcd beside three servers, in one run: the README's figures
//! ```
//!
//! Times of single runs drift on a shared machine; compare with `cargo bench -- --baseline`.

use kontiki_storage::engine::Batch;
use kontiki_storage::kv::{Op, Txn};
use kontiki_storage::store::{ApplyBatch, StoreCommand};

/// The size of a value, in bytes: what Kubernetes objects and the etcd benchmark are about.
pub const VALUE_BYTES: usize = 1024;

/// One batch of the log that puts `count` keys, the first of them number `first`.
pub fn puts(first: usize, count: usize) -> ApplyBatch {
    let commands = (first..first + count)
        .map(|number| {
            let put = Op::put(key(number), vec![b'v'; VALUE_BYTES]);
            StoreCommand::Txn(Txn { success: vec![put], ..Txn::default() })
        })
        .collect();
    ApplyBatch { commands, applied: vec![0].into(), sidecar: Batch::default() }
}

/// The key with that number.
pub fn key(number: usize) -> String {
    format!("/registry/configmaps/default/object-{number:08}")
}
