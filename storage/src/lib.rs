//! The multi-version store: what etcd's `mvcc` is to etcd. It knows nothing of Raft, HTTP or
//! Kubernetes.
//!
//! Every write transaction takes the next revision and adds versions to history; nothing is changed
//! in place. A reader names a revision or takes the latest, a watcher names the revision from which
//! on it wants every change.
//!
//! ```text
//!        Kv (trait)                       what everything above sees
//!          │  LocalKv here, `raft` over three servers
//!          ▼
//!        Store ── apply ── Txn::evaluate ─▶ mutations
//!          │         │
//!          │         ├─▶ State: latest keys, index, hashes     (memory)
//!          │         └─▶ WatchHub ─▶ watchers
//!          ▼
//!        Engine (trait): atomic batches over named trees
//!          ├─ DiskEngine: journal (acknowledged) ─▶ overlay ─▶ pages in sled
//!          └─ MemoryEngine: the same contract without a disk, for simulation
//! ```
//!
//! # Invariants
//!
//! - **R1 Durable before acknowledged**: [`engine::Durability::Now`] returns after a real
//!   `fdatasync`.
//! - **R2 Applied index and data move together**: [`store::ApplyBatch`] is one batch of the engine.
//! - **R3 Revisions only grow**, also through compaction, restart and the installation of a snapshot.
//! - **R5 Watch**: every event once, in order, transactions whole, progress never ahead of events, a
//!   start below the compacted revision refused.
//! - **R6 Replicas are equal**: a rolling hash for every revision; a damaged record is refused with
//!   its place.
//! - **R8 A node identity is used once**: [`layout::Identity`].
//!
//! Apply uses no clock, no randomness and no order of a hash map.

// What is asked of a store.
pub mod revision;

pub mod range;

pub mod kv;

pub mod lease;

pub mod latest;
pub mod local;

// How it is done.
pub mod store;

pub(crate) mod txn;

mod index;

mod compact;

mod hash;

pub mod watch;

pub mod snapshot;

// What it stands on.
pub mod layout;

pub mod codec;

pub mod engine;

pub mod error;

pub mod testing;
