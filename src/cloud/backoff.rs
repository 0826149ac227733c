//! How long a cloud is left alone after it failed: a second at first, and longer each time.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

use super::provider::CloudError;

/// The wait after a first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait, as upstream.
const MAX: Duration = Duration::from_mins(5);

/// The failures in a row of each key.
#[derive(Debug)]
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Backoff<K> {
    /// Counts a failure. Returns how long to wait; no less than the cloud asks for.
    pub fn failed(&self, key: &K, error: &CloudError) -> Duration {
        let mut all = self.0.lock();
        let count = all.entry(key.clone()).or_default();
        let wait = FIRST.saturating_mul(1 << (*count).min(16)).min(MAX);
        *count = count.saturating_add(1);
        match error {
            CloudError::Throttled { after: Some(after), .. } => wait.max(*after),
            _ => wait,
        }
    }

    /// Forgets the failures of a key.
    pub fn reset(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_no_shorter_than_the_cloud_asks_for() {
        let backoff = Backoff::default();
        let failed = |error: &CloudError| backoff.failed(&"key", error).as_secs();
        let broken = CloudError::Unreachable(String::new());
        assert_eq!([0; 3].map(|_| failed(&broken)), [1, 2, 4]);
        let after = Some(Duration::from_secs(60));
        assert_eq!(failed(&CloudError::Throttled { message: String::new(), after }), 60);
        let last = [0; 40].map(|_| failed(&broken))[39];
        assert_eq!(last, 300);
        backoff.reset(&"key");
        assert_eq!(failed(&broken), 1);
    }
}
