//! How long the disk takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds of the buckets in seconds: each twice the one before, as etcd has them for its disk.
pub const BOUNDS_S: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Of each bucket alone; the last is of what is above all bounds.
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// How many were within each bound.
    pub within: [u64; BOUNDS_S.len()],
    /// How many there were.
    pub count: u64,
    /// How long all took together, in seconds.
    pub sum_s: f64,
}

/// What an engine measures of itself.
#[derive(Debug, Default)]
pub struct Timings {
    /// Appending what is acknowledged, with its sync.
    pub append: Histogram,
    /// Moving what was appended to where it stays, with its sync.
    pub step: Histogram,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_S.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let (mut within, mut count) = ([0; BOUNDS_S.len()], 0);
        for (position, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(within) = within.get_mut(position) {
                *within = count;
            }
        }
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed));
        Counted { within, count, sum_s: sum.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_than_all_bounds_is_counted_too() {
        let histogram = Histogram::default();
        for micros in [500, 1_000, 1_001, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counted = histogram.counted();
        assert_eq!((counted.within[0], counted.within[1], counted.within[13]), (2, 3, 3));
        assert_eq!(counted.count, 4);
        assert!((counted.sum_s - 20.002_501).abs() < 1e-9, "{}", counted.sum_s);
    }
}
