//! What a member counts of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Inner;

/// The counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    leader_changes: AtomicU64,
    pending: AtomicU64,
    failed: AtomicU64,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// How often another member was seen to lead.
    pub(crate) leader_changes: u64,
    /// Proposals of this member that await their outcome.
    pub(crate) proposals_pending: u64,
    /// Proposals of this member that came to nothing, or to nothing that is known.
    pub(crate) proposals_failed: u64,
}

/// A proposal under way; it is pending until this is dropped.
pub(super) struct Pending<'a>(&'a Counts);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    pub(super) fn begin(&self) -> Pending<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(self)
    }

    pub(super) fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Counted {
        Counted {
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            proposals_pending: self.pending.load(Ordering::Relaxed),
            proposals_failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// Counts changes of leaders until the node stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut leadership = inner.leadership.clone();
    let mut known = None;
    loop {
        let leader = leadership.borrow().leader;
        if leader.is_some() && leader != known {
            inner.counts.leader_changes.fetch_add(1, Ordering::Relaxed);
            known = leader;
        }
        match inner.token.run_until_cancelled(leadership.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
