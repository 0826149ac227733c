//! `kontiki status --watch`: the members as they change.
//!
//! ```text
//!  look ──every second──▶ sample ──with the one before──▶ frame: pure ──▶ screen, or plain lines
//! ```

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::members::access::Access;
use crate::members::view::{Row, View};
use crate::shutdown;

mod screen;

/// How many rates are remembered, for the curve.
const CURVE: usize = 240;

/// One look.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    view: View,
}

/// What is shown of one member.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    row: Row,
    /// Log entries applied a second since the last look.
    applied_per_s: Option<f64>,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq)]
struct Frame {
    leader: Option<String>,
    term: u64,
    /// How many times the term has changed since the first look: elections.
    elections: u64,
    /// Revisions made a second since the last look.
    writes_per_s: f64,
    lines: Vec<Line>,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Watcher {
    first_term: Option<u64>,
    last: Option<Sample>,
    /// Writes a second, oldest first.
    curve: VecDeque<f64>,
}

impl Watcher {
    fn take(&mut self, now: Sample) -> Frame {
        let first_term = *self.first_term.get_or_insert(now.view.term);
        let seconds = |last: &Sample| now.at.duration_since(last.at).as_secs_f64().max(1e-3);
        let before = |id: u64| {
            let last = self.last.as_ref()?;
            Some((last, last.view.members.iter().find(|row| row.id == id)?))
        };
        let lines = now.view.members.iter().map(|row| Line {
            row: row.clone(),
            applied_per_s: before(row.id)
                .and_then(|(last, then)| rate(row.applied, then.applied, seconds(last))),
        });
        let revision = |view: &View| view.members.iter().filter_map(|row| row.revision).max();
        let writes_per_s = self
            .last
            .as_ref()
            .and_then(|last| rate(revision(&now.view), revision(&last.view), seconds(last)));
        let frame = Frame {
            leader: now.view.leader.clone(),
            term: now.view.term,
            elections: now.view.term.saturating_sub(first_term),
            writes_per_s: writes_per_s.unwrap_or(0.0),
            lines: lines.collect(),
        };
        if writes_per_s.is_some() {
            self.curve.push_back(frame.writes_per_s);
        }
        if self.curve.len() > CURVE {
            self.curve.pop_front();
        }
        self.last = Some(now);
        frame
    }
}

/// How much a number has grown a second.
#[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
fn rate(now: Option<u64>, then: Option<u64>, seconds: f64) -> Option<f64> {
    Some(now?.saturating_sub(then?) as f64 / seconds)
}

/// Looks and shows until it is told to stop, by a signal or by its reader.
pub async fn run(access: &Access, every: Duration) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let mut ticks = interval(every.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watcher = Watcher::default();
    let mut screen =
        if std::io::stdout().is_terminal() { Some(screen::Screen::open()?) } else { None };
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let looked = access.look().await.map(|view| Sample { at: Instant::now(), view });
        let shown = match (&mut screen, looked) {
            (Some(screen), Ok(sample)) => {
                let frame = watcher.take(sample);
                screen.draw(&frame, watcher.curve.make_contiguous())?
            }
            (Some(screen), Err(error)) => screen.complain(&format!("{error:#}"))?,
            (None, Ok(sample)) => print(&watcher.take(sample))?,
            (None, Err(error)) => {
                eprintln!("error: {error:#}");
                Shown::GoOn
            }
        };
        if shown == Shown::Enough {
            break;
        }
    }
    Ok(())
}

/// Whether the reader wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    GoOn,
    Enough,
}

/// One line for each member. A reader that stops early is no error.
fn print(frame: &Frame) -> anyhow::Result<Shown> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let mut out = std::io::stdout().lock();
    for line in &frame.lines {
        let text = format!("{now} {}\n", plain(frame, line));
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(Shown::Enough);
            }
            written => written.context("print the members")?,
        }
    }
    Ok(Shown::GoOn)
}

fn plain(frame: &Frame, line: &Line) -> String {
    let Line { row, applied_per_s } = line;
    format!(
        "name={} id={} role={} state={} term={} applied={} lag={} applied_per_s={} writes_per_s={:.0} \
         answer_ms={}",
        row.name,
        row.id,
        role(row),
        row.state,
        frame.term,
        number(row.applied),
        number(row.lag),
        applied_per_s.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.0}")),
        frame.writes_per_s,
        row.answered_in_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.1}")),
    )
}

fn role(row: &Row) -> &str {
    if row.leads { "leader" } else { &row.role }
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, applied: Option<u64>, revision: Option<u64>) -> Row {
        Row {
            id,
            name: format!("s{id}"),
            role: "voter".into(),
            leads: id == 1,
            raft: String::new(),
            api: String::new(),
            applied,
            lag: Some(0),
            revision,
            answered_in_ms: Some(0.25),
            state: "running",
            error: None,
        }
    }

    fn sample(at: Instant, term: u64, rows: Vec<Row>) -> Sample {
        let view = View {
            cluster_id: "c".into(),
            term,
            leader: Some("s1".into()),
            last_log_index: 0,
            members: rows,
        };
        Sample { at, view }
    }

    #[test]
    fn rates_are_of_what_happened_between_two_looks() {
        let (begin, mut watcher) = (Instant::now(), Watcher::default());
        let rows = vec![row(1, Some(100), Some(50)), row(2, None, None)];
        let first = watcher.take(sample(begin, 7, rows));
        assert_eq!(first.lines[0].applied_per_s, None, "one look has no rate");
        assert_eq!(watcher.curve.len(), 0);
        let rows = vec![row(1, Some(300), Some(150)), row(2, Some(9), Some(9)), row(3, None, None)];
        let second = watcher.take(sample(begin + Duration::from_secs(2), 9, rows));
        assert_eq!(second.elections, 2);
        let rates: Vec<_> = second.lines.iter().map(|line| line.applied_per_s).collect();
        assert_eq!(rates, [Some(100.0), None, None]);
        assert_eq!(watcher.curve, [50.0]);
    }

    #[test]
    fn without_a_terminal_a_member_is_a_line_that_programs_can_read() {
        let mut watcher = Watcher::default();
        let frame = watcher.take(sample(Instant::now(), 7, vec![row(1, Some(100), Some(50))]));
        assert_eq!(
            plain(&frame, &frame.lines[0]),
            "name=s1 id=1 role=leader state=running term=7 applied=100 lag=0 applied_per_s=? \
             writes_per_s=0 answer_ms=0.2"
        );
    }

    #[test]
    fn the_screen_has_every_member_the_leader_and_the_curve() {
        let mut watcher = Watcher::default();
        let begin = Instant::now();
        watcher.take(sample(begin, 7, vec![row(1, Some(100), Some(50))]));
        let rows = vec![row(1, Some(140), Some(90)), row(2, None, None)];
        let frame = watcher.take(sample(begin + Duration::from_secs(1), 7, rows));
        let text = screen::rendered(&frame, watcher.curve.make_contiguous(), 100, 20);
        for expected in ["leader s1", "term 7", "40 writes/s", "s1", "s2", "LAG", "140"] {
            assert!(text.contains(expected), "{expected:?} is not on the screen:\n{text}");
        }
    }
}
