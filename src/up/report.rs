//! What `up` says to the person at the terminal: one line a step, with the seconds since its start.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

static STARTED: OnceLock<Instant> = OnceLock::new();
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Leaves standard output to a verb that has a result of its own to print there.
pub fn to_stderr() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Begins to count.
pub fn begin() {
    STARTED.get_or_init(Instant::now);
}

/// Seconds since [`begin`].
pub fn elapsed_s() -> f64 {
    STARTED.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Says that something was done or happened.
pub fn event(text: &str) {
    line(&format!("[{:7.3} s] {text}", elapsed_s()));
}

/// Prints a line as it is. Whoever reads us may have gone; that must not stop a cluster.
pub fn line(text: &str) {
    if TO_STDERR.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    }
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}
