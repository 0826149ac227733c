//! A whole cluster in one thread, under virtual time: members on machines that pause, crash and lose
//! what they had not synced, on disks that are slow or fail, over a network that delays, reorders,
//! repeats, loses and cuts; clients that write, read, watch and hold leases all the while; and the
//! members themselves replaced. What was seen is judged, each invariant in a file of its own.
//!
//! ```text
//!  clients ──▶ world: machines (host), each with a member of `raft` on a disk in memory
//!     │          │        ▲
//!     │          │        └── faults: one after another, then calm
//!     ▼          ▼
//!  history    observer                 network: everything between members
//!     │          │
//!     └────▶ invariants ◀── linearizability (storage's testing)
//! ```
//!
//! # Invariants
//!
//! - Every choice comes from one number, and the same number gives the same run, message by message,
//!   in any build. What would differ from run to run is kept out: members draw random numbers from
//!   their machine, nothing has a thread of its own, every `select!` is biased, and those who wait
//!   are woken in order ([`kontiki_storage::latest`]).
//! - What is found stays findable: [`Bug`] puts in a bug on purpose, and a test of each must fail to
//!   keep it from being found.
//!
//! `cargo run -p kontiki-simulation -- --hours 1` runs fresh seeds for a simulated hour, `--seed n`
//! one of them again.

#![allow(clippy::unwrap_used, reason = "a harness of tests fails where it stands")]

mod scenario;

mod clients;
mod faults;
mod network;
mod world;

mod history;
mod observer;

mod invariants;

mod seeded;

#[cfg(test)]
mod bugs;

pub use scenario::{Summary, run};
pub use seeded::Bug;
