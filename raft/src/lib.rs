//! Replication: one store over three servers, or any odd number, through Raft.
//!
//! ```text
//!  Kv::txn ──▶ node ── leads? ──▶ raft ──▶ log_store ── one writer, one sync ──▶ Engine
//!               │  no: forward      │
//!               ▼                   ├──▶ network ──▶ peers' log_store
//!             leader                │
//!                                   ▼  committed
//!                             state_machine ──▶ Store::apply ──▶ watchers
//!
//!  Kv::range ──▶ read_index (one round for all that wait) ──▶ applied? ──▶ Store
//! ```
//!
//! Only this crate names openraft. Any server takes any request: writes go to the leader by
//! themselves, reads learn from it how far they must wait.
//!
//! # Invariants
//!
//! - **R1 Durable before acknowledged**: [`log_store`] reports an entry as flushed after a real
//!   sync, and Raft counts only flushed entries, also with one member.
//! - **R2 Applied index and data move together**: the position, the memory of outcomes and the data
//!   are one batch; the log is purged only below what the store has synced.
//! - **R4 Linearizable reads**: a read index from a quorum in the leader's term, in a round that
//!   began after the read; no lease.
//! - **R7 Lease expiry is decided in the log**: an expiry is a proposal like any other, fenced by
//!   the term of who proposes it.
//! - **R8 A node identity is used once**: the data directory carries it, a member's number or
//!   address is not given to another.
//! - **R9 Leader-only tasks are fenced by term**: an entry logged in another term than its fence
//!   is refused, from the log alone.
//! - **R10 A proposal is applied at most once**: it carries an identity, and the state machine
//!   remembers outcomes until nobody waits for them.
//! - **R11 Silence is bounded**: every call has a deadline, every connection is kept alive or
//!   dropped, and calls after a failure use a new one.

pub mod config;
pub mod status;
pub mod types;

pub mod node;

pub mod command;
pub mod log_store;
pub mod member_ids;
pub mod peer;
pub mod proposals;
pub mod recover;
pub mod restore;
pub mod runtime;
pub mod snapshot;
pub mod snapshot_file;
pub mod state_machine;
pub mod transport;

mod forward;
mod lessor;
mod local;
mod membership;
mod network;
mod read_index;
mod space;

pub mod etcd;

pub mod grpc;
pub mod proto;

mod blocking;
mod codec;
pub mod error;
mod wire;
