//! What a chaos run tells its user.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::Outcome;
use super::history::{self, Record};

/// How many broken promises are shown; the history has all.
const SHOWN_MAX: usize = 20;

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

/// For each kill the milliseconds until the first acknowledged write that was begun after it. Writes
/// under way at the kill do not count: some were decided before it. A kill after which nothing more
/// was acknowledged counts for nothing here; the checks and the wait for a whole cluster find it.
pub fn first_writes(history: &[Record]) -> Vec<f64> {
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
    history
        .iter()
        .filter_map(|record| match record {
            Record::Kill { at_us, .. } => first_after(*at_us),
            _ => None,
        })
        .map(|us| std::time::Duration::from_micros(us).as_secs_f64() * 1e3)
        .collect()
}

/// The outcome for people.
pub fn table(outcome: &Outcome) -> String {
    let spread = outcome.first_write_ms;
    let ms = |value: f64| format!("{value:.0} ms");
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.add_row(["leaders killed".to_owned(), outcome.kills.to_string()]);
    table.add_row([
        "first write after a kill".to_owned(),
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
    let mut lines = vec![table.to_string()];
    lines.extend(outcome.violations.iter().take(SHOWN_MAX).map(|v| format!("VIOLATION {v}")));
    if outcome.violations.len() > SHOWN_MAX {
        lines.push(format!("… and {} more", outcome.violations.len() - SHOWN_MAX));
    }
    let kept = outcome.violations.is_empty();
    lines.push(if kept { "all promises kept" } else { "PROMISES BROKEN" }.into());
    if let Some(path) = &outcome.history {
        lines.push(format!("history: {}", path.display()));
    }
    lines.join("\n")
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

    #[test]
    fn a_write_under_way_at_the_kill_does_not_count_as_the_first_after_it() {
        let history = [
            Record::Kill { at_us: 1_000, server: "server-1".into() },
            acknowledged(900, 1_100),
            acknowledged(1_050, 401_000),
            acknowledged(1_200, 301_000),
            Record::Kill { at_us: 500_000, server: "server-2".into() },
        ];
        assert_eq!(first_writes(&history), [300.0]);
    }

    #[test]
    fn a_distribution_names_ranks_that_are_there() {
        let spread = Distribution::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(spread, Distribution { count: 5, min: 1.0, median: 3.0, p90: 5.0, max: 5.0 });
        assert_eq!(Distribution::of(&[]), Distribution::default());
    }
}
