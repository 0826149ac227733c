//! What the controllers count. The server exports it; a new term goes on counting where the last
//! one stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::runtime::{Next, ReconcileError};

/// The counts of all the leader's tasks on this server.
#[derive(Debug, Default)]
pub struct LeaderMetrics {
    controllers: Mutex<BTreeMap<&'static str, Arc<ControllerMetrics>>>,
}

impl LeaderMetrics {
    /// The counts of the controller of that name.
    pub fn controller(&self, name: &'static str) -> Arc<ControllerMetrics> {
        Arc::clone(self.controllers.lock().entry(name).or_default())
    }

    /// All controllers' counts as they are now.
    pub fn snapshot(&self) -> Vec<(&'static str, Counts)> {
        self.controllers.lock().iter().map(|(name, metrics)| (*name, metrics.counts())).collect()
    }
}

/// The counts of one controller.
#[derive(Debug, Default)]
pub struct ControllerMetrics {
    depth: AtomicUsize,
    reconciles: AtomicU64,
    retries: AtomicU64,
    panics: AtomicU64,
    busy_micros: AtomicU64,
}

/// A controller's counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Keys that wait.
    pub depth: usize,
    /// Reconciles that came to an end, well or not.
    pub reconciles: u64,
    /// Those that must be tried again.
    pub retries: u64,
    /// Those that panicked.
    pub panics: u64,
    /// The time spent in all of them.
    pub busy: Duration,
}

impl ControllerMetrics {
    pub(super) fn set_depth(&self, depth: usize) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    pub(super) fn record(&self, took: Duration, outcome: &Result<Next, ReconcileError>) {
        self.reconciles.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.busy_micros.fetch_add(micros, Ordering::Relaxed);
        if outcome.is_err() {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(outcome, Err(ReconcileError::Panicked(_))) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts as they are now.
    pub fn counts(&self) -> Counts {
        Counts {
            depth: self.depth.load(Ordering::Relaxed),
            reconciles: self.reconciles.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            busy: Duration::from_micros(self.busy_micros.load(Ordering::Relaxed)),
        }
    }
}
