//! What the clients of a chaos run did and saw, in the order in which it ended: JSON lines on disk.

use std::io::{BufRead, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::scenario::FaultKind;

/// When an operation ran, on the one clock of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Microseconds from the start of the run to the request.
    pub start_us: u64,
    /// Microseconds from the start of the run to the answer.
    pub end_us: u64,
}

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since its start.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Acknowledged: it is there for good.
    Acknowledged {
        /// The revision that it made.
        revision: u64,
    },
    /// Refused: it must never have an effect.
    Refused {
        /// What the server said.
        reason: String,
    },
    /// No answer, or one that leaves it open: it may have an effect, at most once.
    Unknown {
        /// What was seen.
        reason: String,
    },
}

/// A value as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The revision that wrote it.
    pub revision: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Record {
    /// A write of a value that no other write has.
    Write {
        /// Who.
        client: u32,
        /// When.
        #[serde(flatten)]
        span: Span,
        /// To which key.
        key: String,
        /// The value.
        value: String,
        /// The revision that the key had to be at.
        base: u64,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A read of one key that was answered.
    Read {
        /// Who.
        client: u32,
        /// When.
        #[serde(flatten)]
        span: Span,
        /// What.
        item: Item,
    },
    /// A read of all keys that was answered.
    List {
        /// Who.
        client: u32,
        /// When.
        #[serde(flatten)]
        span: Span,
        /// The revision of the whole answer.
        revision: u64,
        /// All keys.
        items: Vec<Item>,
    },
    /// A watch begins, from the state of a list.
    WatchStart {
        /// Which watcher.
        watcher: u32,
        /// Events after this revision are due.
        revision: u64,
        /// All keys at that revision.
        items: Vec<Item>,
    },
    /// A watcher was told of a change.
    Event {
        /// Which watcher.
        watcher: u32,
        /// What it was told.
        #[serde(flatten)]
        item: Item,
    },
    /// A watcher could not go on where it was: its watch has a gap.
    WatchGap {
        /// Which watcher.
        watcher: u32,
        /// After which revision it wanted to go on.
        revision: u64,
        /// What it was told instead.
        reason: String,
    },
    /// Something was done to a server.
    Fault {
        /// When.
        at_us: u64,
        /// What.
        fault: FaultKind,
        /// Whom.
        server: String,
    },
    /// What was done is over.
    Heal {
        /// When.
        at_us: u64,
        /// Whom.
        server: String,
        /// What was seen.
        detail: String,
    },
}

impl Record {
    /// When it was over; watch records have no time that matters.
    pub fn end_us(&self) -> u64 {
        match self {
            Self::Write { span, .. } | Self::Read { span, .. } | Self::List { span, .. } => {
                span.end_us
            }
            Self::Fault { at_us, .. } | Self::Heal { at_us, .. } => *at_us,
            Self::WatchStart { .. } | Self::Event { .. } | Self::WatchGap { .. } => 0,
        }
    }
}

/// Writes a history, a line each.
pub fn write(path: &Path, history: &[Record]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for record in history {
            serde_json::to_writer(&mut file, record)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    };
    write().with_context(|| format!("write the history to {}", path.display()))
}

/// Reads a history back, to check it again.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let read = || -> anyhow::Result<Vec<Record>> {
        let file = std::io::BufReader::new(std::fs::File::open(path)?);
        file.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    };
    read().with_context(|| format!("read the history {}", path.display()))
}
