//! How long a DaemonSet waits before it replaces a pod that has failed again on the same node: a
//! second, then twice as long each time, up to a quarter of an hour.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_mins(15);

/// The waits of one DaemonSet, by node.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    nodes: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    since: Timestamp,
    wait: Duration,
}

impl Entry {
    fn elapsed(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.since)
    }

    /// After twice the longest wait a failure is the first one again.
    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.elapsed(now) > SignedDuration::try_from(2 * MAX).unwrap_or(SignedDuration::MAX)
    }
}

impl Backoff {
    /// How long to wait still before the failed pod on `node` may be replaced.
    pub fn left(&self, node: &str, now: Timestamp) -> Option<Duration> {
        let entry = self.nodes.get(node).filter(|entry| !entry.is_forgotten(now))?;
        let wait = SignedDuration::try_from(entry.wait).unwrap_or(SignedDuration::MAX);
        Duration::try_from(wait - entry.elapsed(now)).ok().filter(|left| !left.is_zero())
    }

    /// Notes that the failed pod on `node` is replaced now.
    pub fn note(&mut self, node: &str, now: Timestamp) {
        let before = self.nodes.get(node).filter(|entry| !entry.is_forgotten(now));
        let wait = before.map_or(FIRST, |entry| (entry.wait * 2).min(MAX));
        self.nodes.insert(node.to_owned(), Entry { since: now, wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_on_a_node_doubles_the_wait_until_it_is_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::constant(1_700_000_000, 0);
        assert_eq!(backoff.left("a", now), None, "the first is replaced at once");
        for wait in [1, 2, 4] {
            backoff.note("a", now);
            assert_eq!(backoff.left("a", now), Some(Duration::from_secs(wait)));
            assert_eq!(backoff.left("b", now), None, "each node on its own");
            now += SignedDuration::from_secs(i64::try_from(wait).unwrap());
            assert_eq!(backoff.left("a", now), None);
        }
        now += SignedDuration::from_mins(31);
        backoff.note("a", now);
        assert_eq!(backoff.left("a", now), Some(FIRST));
    }
}
