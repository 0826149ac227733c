//! The closed loop: clients that each wait for one answer before they ask again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::report::{Latency, Measured};

/// The longest latency that is told apart, in microseconds; longer ones count as this.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// After an error, so that a dead server is not asked a million times a second.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// Between two updates of the progress bar.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// One client's request: `number` counts its own requests.
pub trait Request: Send + 'static {
    /// Does it.
    fn send(&mut self, client: u64, number: u64)
    -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// An empty histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("the bounds must be valid")
}

/// Adds a latency.
pub fn add(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US));
}

/// Runs `clients` loops for `duration` and measures them. The first error, if any, comes along.
pub async fn run<R: Request>(
    name: &str,
    clients: u64,
    duration: Duration,
    request: impl Fn(u64) -> R,
) -> Measured {
    let bar = bar(name, duration);
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (request, done) = (request(client), Arc::clone(&done));
        tasks.spawn(one_client(client, request, started + duration, done));
    }
    let ticking = async {
        loop {
            sleep(BAR_EVERY).await;
            bar.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            bar.set_message(format!("{} done", done.load(Ordering::Relaxed)));
        }
    };
    let joining = async {
        let mut all = Client::default();
        while let Some(one) = tasks.join_next().await {
            all.merge(one.unwrap_or_default());
        }
        all
    };
    let all = tokio::select! {
        all = joining => all,
        () = ticking => Client::default(),
    };
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Measured {
        workload: name.into(),
        clients,
        seconds,
        done: all.latencies.len(),
        per_second: ratio(all.latencies.len(), seconds),
        latency_ms: Latency::of(&all.latencies),
        errors: all.errors,
        first_error: all.first_error,
    }
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn ratio(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

struct Client {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Default for Client {
    fn default() -> Self {
        Self { latencies: histogram(), errors: 0, first_error: None }
    }
}

impl Client {
    fn merge(&mut self, other: Self) {
        // The same bounds everywhere: adding cannot fail.
        let _ = self.latencies.add(&other.latencies);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

async fn one_client<R: Request>(
    client: u64,
    mut request: R,
    until: Instant,
    done: Arc<AtomicU64>,
) -> Client {
    let mut seen = Client::default();
    for number in 0.. {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        match request.send(client, number).await {
            Ok(()) => {
                add(&mut seen.latencies, begun.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                seen.errors += 1;
                seen.first_error.get_or_insert_with(|| format!("{error:#}"));
                sleep(ERROR_PAUSE).await;
            }
        }
    }
    seen
}

fn bar(name: &str, duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{prefix:24} {bar:30} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct EveryThirdFails;

    impl Request for EveryThirdFails {
        async fn send(&mut self, _client: u64, number: u64) -> anyhow::Result<()> {
            sleep(Duration::from_millis(10)).await;
            anyhow::ensure!(number % 3 != 2, "number {number}");
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_errors_are_counted_apart_and_latencies_are_those_of_answers() {
        let measured = run("test", 2, Duration::from_millis(1000), |_| EveryThirdFails).await;
        // Two answers and one error take 30 ms and a pause of 20 ms.
        assert_eq!(measured.done, 2 * 40);
        assert_eq!(measured.errors, 2 * 20);
        assert_eq!(measured.first_error.as_deref(), Some("number 2"));
        assert!((9.9..10.9).contains(&measured.latency_ms.p50), "{:?}", measured.latency_ms);
    }
}
