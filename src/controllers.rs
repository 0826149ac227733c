//! The controllers: each brings one kind of object from what it is to what it shall be.
//!
//! ```text
//!   informers ──change──► WorkQueue ──key──► reconcile() ──plan()──► steps ──► client (fenced)
//!       ▲                                                                          │
//!       └──────────────────────────── watch ◄──────────────────────────────────────┘
//! ```
//!
//! They run at the leader only, under its term: what a deposed leader's controller still writes is
//! refused (invariant R9). Each file has a `reconcile` that reads, writes and waits, and a `plan`
//! that decides and does nothing else.

pub mod labels;
pub mod owners;
pub mod pods;
pub mod queue;

pub mod deployment;
pub mod replica_set;

use crate::leader_context::LeaderContext;

/// Runs all controllers until the context's token is cancelled, and joins them.
pub async fn run(context: LeaderContext) {
    context.token.cancelled().await;
}
