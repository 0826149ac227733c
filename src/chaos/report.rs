//! What a chaos run tells its user.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::Outcome;
use super::history::{self, Record};
use super::scenario::{FaultKind, Scenario};

/// How many broken promises are shown; the history has all.
const SHOWN_MAX: usize = 20;
/// What the throughput is counted over.
const BUCKET: Duration = Duration::from_millis(100);

/// How figures are spread; all zero where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// Half are not above it.
    pub median: f64,
    /// Nine of ten are not above it.
    pub p90: f64,
    /// The most.
    pub max: f64,
}

impl Distribution {
    /// That of some figures.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self { count: sorted.len(), min: at(0), median: at(50), p90: at(90), max: at(100) }
    }
}

/// One fault and how the cluster took it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultReport {
    /// Seconds from the start of the run.
    pub at_s: f64,
    /// What was done.
    pub fault: FaultKind,
    /// To whom.
    pub server: String,
    /// Milliseconds to the end of the first acknowledged write begun after it; none when nothing
    /// more was acknowledged.
    pub first_write_ms: Option<f64>,
    /// How it ended, where it had an end of its own.
    pub healed: Option<String>,
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

/// Every fault of a history. Writes under way at a fault do not count as the first after it: some
/// were decided before it. A fault after which nothing more was acknowledged has no first write; the
/// checks and the wait for a whole cluster find it.
pub fn faults(history: &[Record]) -> Vec<FaultReport> {
    let acknowledged: Vec<_> = history
        .iter()
        .filter_map(|record| match record {
            Record::Write { span, outcome: history::Outcome::Acknowledged { .. }, .. } => {
                Some(*span)
            }
            _ => None,
        })
        .collect();
    let first_after = |at_us: u64| {
        let begun_after = acknowledged.iter().filter(|span| span.start_us >= at_us);
        begun_after.map(|span| span.end_us - at_us).min()
    };
    let healed = |victim: &str, fault_us: u64| {
        history.iter().find_map(|record| match record {
            Record::Heal { at_us, server, detail } if server == victim && *at_us >= fault_us => {
                Some(format!("{detail} after {:.1} s", seconds(at_us - fault_us)))
            }
            _ => None,
        })
    };
    history
        .iter()
        .filter_map(|record| match record {
            Record::Fault { at_us, fault, server } => Some(FaultReport {
                at_s: seconds(*at_us),
                fault: *fault,
                server: server.clone(),
                first_write_ms: first_after(*at_us).map(|us| seconds(us) * 1e3),
                healed: fault.lasts().then(|| healed(server, *at_us)).flatten(),
            }),
            _ => None,
        })
        .collect()
}

/// Acknowledged writes a second over the seconds of a run.
pub fn throughput(history: &[Record]) -> Vec<(f64, f64)> {
    let bucket_us = u64::try_from(BUCKET.as_micros()).unwrap_or(u64::MAX);
    let mut counts: Vec<u32> = Vec::new();
    for record in history {
        let Record::Write { span, outcome: history::Outcome::Acknowledged { .. }, .. } = record
        else {
            continue;
        };
        let bucket = usize::try_from(span.end_us / bucket_us).unwrap_or(usize::MAX);
        counts.resize(counts.len().max(bucket + 1), 0);
        counts[bucket] += 1;
    }
    let rate = |count: u32| f64::from(count) / BUCKET.as_secs_f64();
    (0u32..)
        .zip(counts)
        .map(|(at, count)| (f64::from(at) * BUCKET.as_secs_f64(), rate(count)))
        .collect()
}

/// The outcome for people.
pub fn table(outcome: &Outcome) -> String {
    let spread = outcome.first_write_ms;
    let ms = |value: f64| format!("{value:.0} ms");
    let mut table = Table::new();
    table.load_style(NOTHING);
    let what = if outcome.scenario == Scenario::LeaderKill { "leaders killed" } else { "faults" };
    table.add_row([what.to_owned(), outcome.faults.len().to_string()]);
    table.add_row([
        "first write after one".to_owned(),
        format!(
            "min {}, median {}, p90 {}, max {} (of {})",
            ms(spread.min),
            ms(spread.median),
            ms(spread.p90),
            ms(spread.max),
            spread.count
        ),
    ]);
    table.add_row([
        "writes".to_owned(),
        format!(
            "{} acknowledged, {} refused, {} of unknown outcome",
            outcome.acknowledged, outcome.refused, outcome.unknown
        ),
    ]);
    table.add_row(["reads".to_owned(), outcome.reads.to_string()]);
    table.add_row(["events watched".to_owned(), outcome.events.to_string()]);
    table.add_row(["seed".to_owned(), outcome.seed.to_string()]);
    let mut lines: Vec<String> = outcome.faults.iter().map(line).collect();
    lines.push(table.to_string());
    lines.extend(outcome.violations.iter().take(SHOWN_MAX).map(|v| format!("VIOLATION {v}")));
    if outcome.violations.len() > SHOWN_MAX {
        lines.push(format!("… and {} more", outcome.violations.len() - SHOWN_MAX));
    }
    let kept = outcome.violations.is_empty();
    lines.push(if kept { "all promises kept" } else { "PROMISES BROKEN" }.into());
    lines.push(format!("history: {}", outcome.history.display()));
    lines.push(format!("picture: {}", outcome.picture.display()));
    lines.join("\n")
}

fn line(fault: &FaultReport) -> String {
    let first = fault.first_write_ms.map_or_else(
        || "no write after it".to_owned(),
        |ms| format!("first write after {ms:.0} ms"),
    );
    let healed = fault.healed.as_ref().map(|healed| format!(", {healed}")).unwrap_or_default();
    format!("{:8.1} s  {} {}: {first}{healed}", fault.at_s, fault.fault.verb(), fault.server)
}

#[cfg(test)]
mod tests {
    use super::super::history::Span;
    use super::*;

    fn acknowledged(start_us: u64, end_us: u64) -> Record {
        Record::Write {
            client: 0,
            span: Span { start_us, end_us },
            key: "a".into(),
            value: start_us.to_string(),
            base: 0,
            outcome: history::Outcome::Acknowledged { revision: start_us },
        }
    }

    fn fault(at_us: u64, fault: FaultKind, server: &str) -> Record {
        Record::Fault { at_us, fault, server: server.into() }
    }

    #[test]
    fn a_write_under_way_at_the_kill_does_not_count_as_the_first_after_it() {
        let history = [
            fault(1_000, FaultKind::Kill, "server-1"),
            acknowledged(900, 1_100),
            acknowledged(1_050, 401_000),
            acknowledged(1_200, 301_000),
            fault(500_000, FaultKind::Kill, "server-2"),
        ];
        let first: Vec<_> = faults(&history).iter().map(|fault| fault.first_write_ms).collect();
        assert_eq!(first, [Some(300.0), None]);
    }

    #[test]
    fn a_fault_that_lasts_is_told_with_its_own_end() {
        let heal =
            |at_us| Record::Heal { at_us, server: "server-1".into(), detail: "healed".into() };
        let history = [
            fault(1_000_000, FaultKind::Pause, "server-1"),
            heal(3_000_000),
            fault(4_000_000, FaultKind::Pause, "server-1"),
            heal(9_000_000),
        ];
        let healed: Vec<_> =
            faults(&history).into_iter().filter_map(|fault| fault.healed).collect();
        assert_eq!(healed, ["healed after 2.0 s", "healed after 5.0 s"]);
    }

    #[test]
    fn throughput_counts_a_tenth_of_a_second_and_shows_the_gap() {
        let history = [acknowledged(0, 10), acknowledged(0, 99_999), acknowledged(0, 250_000)];
        let rates: Vec<f64> = throughput(&history).into_iter().map(|(_, rate)| rate).collect();
        assert_eq!(rates, [20.0, 0.0, 10.0]);
    }

    #[test]
    fn a_distribution_names_ranks_that_are_there() {
        let spread = Distribution::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(spread, Distribution { count: 5, min: 1.0, median: 3.0, p90: 5.0, max: 5.0 });
        assert_eq!(Distribution::of(&[]), Distribution::default());
    }
}
