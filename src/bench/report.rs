//! Figures, for people and for programs.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies in milliseconds; zero where nothing was answered.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// Half are not above it.
    pub p50: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
    /// 999 of 1000 are not above it.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Of a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| us_to_ms(histogram.value_at_quantile(quantile));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: us_to_ms(histogram.max()) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 µs")]
fn us_to_ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// One load that was run.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What was done.
    pub workload: String,
    /// By how many clients.
    pub clients: u64,
    /// For how long.
    pub seconds: f64,
    /// How many requests were answered.
    pub done: u64,
    /// The same, a second.
    pub per_second: f64,
    /// How long answers took.
    pub latency_ms: Latency,
    /// How many requests failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
}

/// The figures for people.
pub fn table(all: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "WORKLOAD",
        "CLIENTS",
        "PER SECOND",
        "P50 MS",
        "P99 MS",
        "P99.9 MS",
        "MAX MS",
        "ERRORS",
    ]);
    for one in all {
        let latency = one.latency_ms;
        table.add_row([
            one.workload.clone(),
            one.clients.to_string(),
            format!("{:.0}", one.per_second),
            format!("{:.2}", latency.p50),
            format!("{:.2}", latency.p99),
            format!("{:.2}", latency.p999),
            format!("{:.2}", latency.max),
            match &one.first_error {
                Some(first) => format!("{} ({first})", one.errors),
                None => one.errors.to_string(),
            },
        ]);
    }
    table.to_string()
}
