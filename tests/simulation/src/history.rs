//! What clients saw, in the words in which it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kontiki_storage::kv::Event;
use kontiki_storage::testing::linearizability::Operation;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) revision: u64,
    pub(super) called: u64,
    pub(super) returned: u64,
    /// Keys with their values.
    pub(super) values: Vec<(String, String)>,
}

/// A change of a key, as a watcher was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) revision: u64,
    pub(super) key: String,
    /// `None` where it was deleted.
    pub(super) value: Option<String>,
}

impl Told {
    pub(super) fn of(event: &Event) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let exists = event.kv.version > 0;
        Self {
            revision: event.kv.mod_revision.get(),
            key: text(&event.kv.key),
            value: exists.then(|| text(&event.kv.value)),
        }
    }
}

/// One watcher's notes, over all the members that it watched at.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) told: Vec<Told>,
    /// How many of `told` were there when a progress notice of that revision came.
    pub(super) progress: Vec<(usize, u64)>,
    /// How often it went on at another member.
    pub(super) resumed: u64,
}

/// A lease that a client held, and until when it was promised to live.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) key: String,
    /// In microseconds; of the last renewal that was acknowledged, from when it was asked for.
    pub(super) promised_until: u64,
}

/// All of it.
pub(super) struct History {
    begun: Instant,
    pub(super) operations: Mutex<Vec<Operation>>,
    pub(super) written: Mutex<Vec<Written>>,
    /// Values of writes that were refused: nothing was done.
    pub(super) refused: Mutex<BTreeSet<String>>,
    /// Fenced writes that were acknowledged: revision and term (R9).
    pub(super) fenced: Mutex<Vec<(u64, u64)>>,
    pub(super) watched: Mutex<BTreeMap<u64, Watched>>,
    pub(super) held: Mutex<Vec<Held>>,
    /// When keys of leases were first seen to be gone.
    pub(super) gone: Mutex<BTreeMap<String, u64>>,
    /// What each writer waits for: since when, at which member, and what it asked.
    pub(super) waits: Mutex<BTreeMap<u64, (u64, u64, String)>>,
    /// The longest that a member was silent towards a client (R11).
    pub(super) silence: Mutex<Duration>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            operations: Mutex::default(),
            written: Mutex::default(),
            refused: Mutex::default(),
            fenced: Mutex::default(),
            watched: Mutex::default(),
            held: Mutex::default(),
            gone: Mutex::default(),
            waits: Mutex::default(),
            silence: Mutex::default(),
        }
    }

    /// Microseconds of virtual time since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Every change, by revision, as far as any watcher was told.
    pub(super) fn changes(&self) -> BTreeMap<u64, Vec<Told>> {
        let mut changes: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
        for watched in self.watched.lock().values() {
            let mut by_revision: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
            for told in &watched.told {
                by_revision.entry(told.revision).or_default().push(told.clone());
            }
            for (revision, told) in by_revision {
                let known = changes.entry(revision).or_insert_with(|| told.clone());
                assert_eq!(*known, told, "R5: watchers were told differently of {revision}");
            }
        }
        changes
    }
}
