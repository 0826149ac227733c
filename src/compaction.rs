//! Automatic compaction: history that nobody will ask for any more is forgotten, by age or by number
//! of revisions, as etcd's `--auto-compaction-mode` and `--auto-compaction-retention` say.
//!
//! Every server notes which revision it had when, and the one that leads compacts: a new leader knows
//! the past as well as the old one did. It notes that on disk, too: were it forgotten by who is started
//! again, nothing would ever be old enough where no server lives that long.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use kontiki_raft::node::Node;
use kontiki_storage::kv::{KvError, Revision};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the number of revisions is looked at.
const REVISIONS_EVERY: Duration = Duration::from_secs(60);
/// An age is looked at so many times while it passes.
const LOOKS_PER_AGE: u32 = 10;
/// Where a server keeps which revision it had when, in its data directory.
const PAST_FILE: &str = "revisions-by-time";
/// The least time between two looks.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    Everything,
    /// What is younger than this.
    Age(Duration),
    /// So many revisions.
    Revisions(u64),
}

/// What the number in a retention means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Time: `5m`, `1h`, or hours.
    Periodic,
    /// Revisions.
    Revision,
}

impl Retention {
    /// From the words of etcd's flags; 0 keeps everything.
    pub fn parse(mode: Mode, text: &str) -> anyhow::Result<Self> {
        let number = text.parse::<u64>();
        match (mode, number) {
            (_, Ok(0)) => Ok(Self::Everything),
            (Mode::Revision, Ok(revisions)) => Ok(Self::Revisions(revisions)),
            (Mode::Revision, Err(_)) => {
                bail!("--auto-compaction-retention {text}: expected a number of revisions")
            }
            (Mode::Periodic, Ok(hours)) => {
                let seconds = hours.checked_mul(3600).with_context(|| {
                    format!("--auto-compaction-retention {text}: that many hours cannot be counted")
                })?;
                Ok(Self::Age(Duration::from_secs(seconds)))
            }
            (Mode::Periodic, Err(_)) => {
                let age = duration(text).with_context(|| {
                    format!("--auto-compaction-retention {text}: expected a time such as 5m, 1h30m or 72 (hours)")
                })?;
                Ok(if age.is_zero() { Self::Everything } else { Self::Age(age) })
            }
        }
    }

    fn every(self) -> Option<Duration> {
        match self {
            Self::Everything => None,
            Self::Age(age) => Some((age / LOOKS_PER_AGE).max(EVERY_MIN)),
            Self::Revisions(_) => Some(REVISIONS_EVERY),
        }
    }
}

/// A time as Go writes it, in hours, minutes and seconds.
fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut digits) = (0u64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// Which revision there was when, oldest first.
#[derive(Debug, Default)]
struct Past(VecDeque<(Instant, Revision)>);

impl Past {
    /// As it was written, a line each: seconds since 1970, a space, the revision. What cannot be, by the
    /// clock or by the store, is left out.
    fn parse(text: &str, clock: Timestamp, now: Instant, current: Revision) -> Self {
        let mut past = Self::default();
        for line in text.lines() {
            let read = || {
                let (at, revision) = line.split_once(' ')?;
                let age = clock.as_second().checked_sub(at.parse().ok()?)?;
                let at = now.checked_sub(Duration::from_secs(u64::try_from(age).ok()?))?;
                Some((at, Revision::new(revision.parse().ok()?)))
            };
            let Some((at, revision)) = read() else { continue };
            let is_next = past.0.back().is_none_or(|last| last.0 <= at && last.1 <= revision);
            if is_next && revision <= current {
                past.0.push_back((at, revision));
            }
        }
        past
    }

    fn write(&self, clock: Timestamp, now: Instant) -> String {
        let mut text = String::new();
        for (at, revision) in &self.0 {
            let age = i64::try_from(now.duration_since(*at).as_secs()).unwrap_or(i64::MAX);
            let at = clock.as_second().saturating_sub(age);
            let _ = writeln!(text, "{at} {}", revision.get());
        }
        text
    }

    async fn load(file: &Path, current: Revision) -> Self {
        let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
        Self::parse(&text, Timestamp::now(), Instant::now(), current)
    }

    async fn save(&self, file: &Path) {
        let draft = file.with_extension("new");
        let text = self.write(Timestamp::now(), Instant::now());
        let saved = async {
            tokio::fs::write(&draft, text).await?;
            tokio::fs::rename(&draft, file).await
        };
        if let Err(error) = saved.await {
            warn!(file = %file.display(), %error, "which revision there was when is not noted");
        }
    }

    /// Notes the revision of now, and returns up to where to compact.
    fn look(&mut self, retention: Retention, now: Instant, current: Revision) -> Option<Revision> {
        match retention {
            Retention::Everything => None,
            Retention::Revisions(kept) => {
                current.get().checked_sub(kept).filter(|upto| *upto > 0).map(Revision::new)
            }
            Retention::Age(age) => {
                self.0.push_back((now, current));
                let mut upto = None;
                while let Some((at, revision)) = self.0.front().copied()
                    && now.duration_since(at) >= age
                {
                    upto = Some(revision);
                    self.0.pop_front();
                }
                upto.filter(|upto| *upto > Revision::ZERO)
            }
        }
    }
}

/// Compacts while this member leads, until `stop` is cancelled. `data_dir` is the server's.
pub async fn run(
    node: Node,
    retention: Retention,
    data_dir: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Some(every) = retention.every() else {
        stop.cancelled().await;
        return Ok(());
    };
    let file = data_dir.join(PAST_FILE);
    let mut past = Past::load(&file, node.kv().revision()).await;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let kv = node.kv();
        let upto = past.look(retention, Instant::now(), kv.revision());
        if matches!(retention, Retention::Age(_)) {
            past.save(&file).await;
        }
        let Some(upto) = upto else { continue };
        let leads = node.leadership().borrow().is_local;
        if !leads || upto <= node.store().compacted() {
            continue;
        }
        match kv.compact(upto).await {
            Ok(()) => info!(revision = upto.get(), "history before it is compacted"),
            // Somebody else was faster.
            Err(KvError::Compacted { .. }) => {}
            Err(error) => warn!("compact up to revision {upto}: {error}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_written_as_for_etcd() {
        let minutes = |minutes: u64| Retention::Age(Duration::from_secs(minutes * 60));
        let table = [
            (Mode::Periodic, "5m", Some(minutes(5))),
            (Mode::Periodic, "1h30m", Some(minutes(90))),
            (Mode::Periodic, "72", Some(minutes(72 * 60))),
            (Mode::Periodic, "0", Some(Retention::Everything)),
            (Mode::Periodic, "0s", Some(Retention::Everything)),
            (Mode::Periodic, "18446744073709551615", None),
            (Mode::Periodic, "5", Some(minutes(300))),
            (Mode::Periodic, "soon", None),
            (Mode::Periodic, "5m3", None),
            (Mode::Periodic, "m", None),
            (Mode::Revision, "1000", Some(Retention::Revisions(1000))),
            (Mode::Revision, "0", Some(Retention::Everything)),
            (Mode::Revision, "5m", None),
        ];
        for (mode, text, expected) in table {
            assert_eq!(Retention::parse(mode, text).ok(), expected, "{mode:?} {text}");
        }
    }

    #[test]
    fn what_is_older_than_the_age_goes_and_what_is_younger_stays() {
        let (begin, mut past) = (Instant::now(), Past::default());
        let age = Retention::Age(Duration::from_secs(100));
        let mut at = |seconds: u64, revision: u64| {
            let now = begin + Duration::from_secs(seconds);
            past.look(age, now, Revision::new(revision)).map(Revision::get)
        };
        assert_eq!(at(0, 5), None);
        assert_eq!(at(50, 20), None);
        assert_eq!(at(99, 30), None);
        assert_eq!(at(100, 40), Some(5));
        assert_eq!(at(160, 50), Some(20));
        assert_eq!(at(500, 60), Some(50));
        assert_eq!(at(501, 60), None);
    }

    #[test]
    fn a_server_that_is_started_again_knows_the_past() {
        let (now, clock) = (Instant::now() + Duration::from_secs(1000), Timestamp::now());
        let age = Retention::Age(Duration::from_secs(100));
        let mut past = Past::default();
        past.look(age, now, Revision::new(5));
        let text = past.write(clock, now);
        let later = clock + Duration::from_secs(90);
        let mut past = Past::parse(&text, later, now, Revision::new(9));
        assert_eq!(past.look(age, now, Revision::new(9)), None);
        let then = now + Duration::from_secs(10);
        assert_eq!(past.look(age, then, Revision::new(9)), Some(Revision::new(5)));
    }

    #[test]
    fn a_past_that_cannot_be_is_left_out() {
        let (now, clock) = (Instant::now() + Duration::from_secs(1000), Timestamp::now());
        let at = |seconds: i64| clock.as_second() - seconds;
        let text =
            format!("{} 3\nx\n{} 9\n{} 2\n{} 4\n{} 5\n", at(50), at(40), at(30), at(20), at(-60));
        let past = Past::parse(&text, clock, now, Revision::new(8));
        let kept: Vec<u64> = past.0.iter().map(|(_, revision)| revision.get()).collect();
        assert_eq!(kept, [3, 4], "no rubbish, no revision to come, none that goes back, no future");
    }

    #[test]
    fn so_many_revisions_are_kept() {
        let kept = |current| {
            Past::default().look(Retention::Revisions(10), Instant::now(), Revision::new(current))
        };
        assert_eq!(kept(10), None);
        assert_eq!(kept(11), Some(Revision::new(1)));
        assert_eq!(kept(1_000), Some(Revision::new(990)));
    }
}
