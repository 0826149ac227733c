//! Waits are on conditions, with a deadline, and say what they waited for.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `condition` until it gives something.
///
/// # Panics
/// When `deadline` passes first; the message has `what` and the last `Err` that was seen.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if started.elapsed() > deadline => {
                panic!("waited {deadline:?} for {what}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}
