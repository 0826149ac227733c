//! A stand-in for the crate `base2histogram`, with as much of its interface as openraft uses.
//!
//! openraft counts batch sizes with it, which Kontiki does not read. The original builds lookup tables
//! for all sixteen widths at its first use and keeps them: 29.4 MB of a server's 92 MB (jemalloc's heap
//! profile of an idle server), of which openraft's one width needs 2 KB. This one has no tables. It goes
//! when the original builds a table only for the width that is asked for.
//!
//! Values are counted in buckets of a power of two, each divided into four: a percentile is told as the
//! least value of its bucket, at most a fifth too low.

use std::fmt;
use std::marker::PhantomData;

/// Buckets within a power of two.
const GROUP: usize = 4;
/// `log2(GROUP) + 1`: the bits of a value that choose its bucket.
const WIDTH: usize = 3;
/// The values below `GROUP`, and `GROUP` buckets for each power of two above.
const BUCKETS: usize = GROUP + (64 - WIDTH + 1) * GROUP;

/// How values are spread. `T` is what the original keeps beside a time slot; there are none here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = &mut self.counts[bucket(value)];
        *bucket = bucket.saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// The common percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.per_mille(1),
            p1: self.per_mille(10),
            p5: self.per_mille(50),
            p10: self.per_mille(100),
            p50: self.per_mille(500),
            p90: self.per_mille(900),
            p99: self.per_mille(990),
            p99_9: self.per_mille(999),
        }
    }

    /// The value that `share` of a thousand are not above; zero where nothing was counted.
    fn per_mille(&self, share: u128) -> u64 {
        let rank = (u128::from(self.total) * share).div_ceil(1000).max(1);
        let mut below = 0u128;
        let at = self.counts.iter().position(|count| {
            below += u128::from(*count);
            below >= rank
        });
        at.map_or(0, least)
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(value: u64) -> usize {
    let small = usize::try_from(value).unwrap_or(usize::MAX);
    if small < GROUP {
        return small;
    }
    let power = (u64::BITS - value.leading_zeros()) as usize - WIDTH;
    let within = usize::try_from(value >> power).unwrap_or(0) % GROUP;
    GROUP + power * GROUP + within
}

/// The least value of a bucket.
fn least(bucket: usize) -> u64 {
    if bucket < GROUP {
        return bucket as u64;
    }
    let (power, within) = ((bucket - GROUP) / GROUP, (bucket - GROUP) % GROUP);
    ((GROUP + within) as u64) << power
}

/// The common percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were counted.
    pub samples: u64,
    /// One of a thousand is not above it.
    pub p0_1: u64,
    /// One of a hundred.
    pub p1: u64,
    /// One of twenty.
    pub p5: u64,
    /// One of ten.
    pub p10: u64,
    /// Half.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of a hundred.
    pub p99: u64,
    /// 999 of a thousand.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, P50: {p50}, \
             P90: {p90}, P99: {p99}, P99.9: {p99_9}]"
        )
    }
}

/// Histograms side by side, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram under a name.
    #[must_use]
    pub fn add<T>(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }

    /// As text.
    pub fn detailed(&self) -> &Self {
        self
    }

    /// As text.
    pub fn compact(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_between_the_least_of_its_bucket_and_that_of_the_next() {
        let powers = (0..64).map(|power| 1u64 << power);
        for value in (0..4096).chain(powers).chain([u64::MAX, u64::MAX - 1]) {
            let bucket = bucket(value);
            assert!(least(bucket) <= value, "{value}");
            assert!(bucket + 1 == BUCKETS || value < least(bucket + 1), "{value}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record_n(1, 90);
        histogram.record_n(64, 9);
        histogram.record(1024);
        let stats = histogram.percentile_stats();
        let told = (stats.samples, stats.p50, stats.p90, stats.p99, stats.p99_9);
        assert_eq!(told, (100, 1, 1, 64, 1024));
    }
}
