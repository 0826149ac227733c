//! [`ReplayThread`], or [`Replay`] as a task: brings watchers that start in the past up to the present.
//!
//! It goes round those that are behind and gives each one message at a time, as long as it has room,
//! so that none waits for another. What the hub still has in memory comes from there; what is older
//! is read from the engine.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::audience::WatcherId;
use super::hub::Subscription;
use super::{MESSAGE_EVENTS, Revised};
use crate::engine::{EngineError, Tree};
use crate::error::StoreError;
use crate::kv::{Event, EventKind, KeyRange, KeyValue, KvError, Revision, WatchMessage};
use crate::layout::{self, VersionId};
use crate::store::Shared;
use crate::store::state::read_version;

/// How many revisions one step of a replay goes over.
const STEP_REVISIONS: usize = 1024;

/// How long to leave watchers alone that have no room for what they are behind.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// How often watchers of which nothing changes are told how far they are.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The thread; it is joined when the store is dropped.
pub(crate) struct ReplayThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ReplayThread {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let weak = Arc::downgrade(shared);
        let thread = std::thread::Builder::new()
            .name("store-replay".to_owned())
            .spawn(move || run(&weak))
            .map_err(|source| EngineError::Io {
                act: "start a thread",
                path: "store-replay".to_owned(),
                source,
            })?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for ReplayThread {
    fn drop(&mut self) {
        self.shared.hub.stop();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the replay thread of the store panicked");
        }
    }
}

fn run(shared: &Weak<Shared>) {
    let mut rounds = Rounds::new();
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if shared.hub.wait(rounds.pause(), rounds.found_room) {
            return;
        }
        rounds.go(&shared);
    }
}

/// What the thread does, for whoever opened a store by [`Store::open_with_replay`] to run as a task:
/// under its runtime's clock, and where a simulation can stop it.
///
/// [`Store::open_with_replay`]: crate::store::Store::open_with_replay
pub struct Replay {
    shared: Arc<Shared>,
}

impl Replay {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// Serves watchers that start in the past for as long as it is polled.
    pub async fn run(self) {
        let mut rounds = Rounds::new();
        while !self.shared.hub.wait_as_task(rounds.pause(), rounds.found_room).await {
            rounds.go(&self.shared);
        }
    }
}

/// One round after another.
struct Rounds {
    progress_at: Instant,
    /// Whether the last one could send something, or had nothing to send.
    found_room: bool,
}

impl Rounds {
    fn new() -> Self {
        Self { progress_at: Instant::now() + PROGRESS_EVERY, found_room: true }
    }

    /// How long to wait at most before the next.
    fn pause(&self) -> Duration {
        let idle = self.progress_at.saturating_duration_since(Instant::now());
        if self.found_room { idle } else { idle.min(ROOM_WAIT) }
    }

    fn go(&mut self, shared: &Shared) {
        self.found_room = round(shared);
        if Instant::now() >= self.progress_at {
            shared.hub.tick();
            self.progress_at = Instant::now() + PROGRESS_EVERY;
        }
    }
}

/// Gives each watcher that is behind one step; whether any could take it, or none is behind.
fn round(shared: &Shared) -> bool {
    let behind: Vec<WatcherId> = shared.hub.locked(|hub| hub.behind.iter().copied().collect());
    let mut found_room = behind.is_empty();
    for id in behind {
        match step(shared, id) {
            Ok(took) => found_room |= took,
            Err(error) => {
                found_room = true;
                shared.hub.locked(|hub| hub.close(id, error));
            }
        }
    }
    found_room
}

/// What a watcher that is behind needs next.
struct Want {
    start: Revision,
    upto: Revision,
    range: KeyRange,
    prev_kv: bool,
    recent: Option<Vec<Arc<Revised>>>,
}

/// Sends one watcher its next message; `false` when it has no room for one.
fn step(shared: &Shared, id: WatcherId) -> Result<bool, KvError> {
    let want = shared.hub.locked(|hub| {
        if hub.become_live(id) {
            return None;
        }
        let one = hub.watcher(id)?;
        let recent = hub.recent.from(one.next, STEP_REVISIONS);
        let (start, range, prev_kv) = (one.next, one.range.clone(), one.prev_kv);
        let room = one.sender.capacity() > 0;
        Some((room, Want { start, upto: hub.revision, range, prev_kv, recent }))
    });
    let Some((room, want)) = want else { return Ok(true) };
    if !room {
        return Ok(false);
    }
    let revised = match &want.recent {
        Some(recent) => recent.clone(),
        None => match history(shared, &want)? {
            Some(revised) => revised,
            None => return Ok(true),
        },
    };
    let went = shared.hub.locked(|hub| {
        let Some(one) = hub.watcher_mut(id) else { return true };
        let went = send(one, &want, &revised);
        hub.become_live(id);
        went
    });
    Ok(went)
}

/// Sends what of `revised` is watched, as one message, and moves the watcher's start behind it.
fn send(one: &mut Subscription, want: &Want, revised: &[Arc<Revised>]) -> bool {
    let mut events = Vec::new();
    // Fewer than were asked for are all there are.
    let mut next = if revised.len() < STEP_REVISIONS { want.upto.next() } else { want.start };
    for revised in revised {
        if events.len() >= MESSAGE_EVENTS {
            next = revised.revision;
            break;
        }
        events.extend(one.select(revised));
        next = next.max(revised.revision.next());
    }
    let sent =
        if events.is_empty() { Ok(()) } else { one.sender.try_send(WatchMessage::Events(events)) };
    match sent {
        Ok(()) => {
            one.advance(next);
            true
        }
        Err(TrySendError::Full(_)) => false,
        Err(TrySendError::Closed(_)) => true, // its receiver removes it
    }
}

/// Reads the revisions from `want.start` on from the engine, at most [`STEP_REVISIONS`] of them;
/// `None` where the state was replaced meanwhile, and it must be done again.
fn history(shared: &Shared, want: &Want) -> Result<Option<Vec<Arc<Revised>>>, KvError> {
    let epoch = shared.state.read().head.epoch;
    let read = || -> Result<Vec<Arc<Revised>>, EngineError> {
        let mut revised = Vec::new();
        for (revision, mut events) in changes(shared, want, epoch)? {
            if want.prev_kv {
                for event in &mut events {
                    event.prev_kv = previous(shared, epoch, &event.kv)?;
                }
            }
            revised.push(Arc::new(Revised { revision, events }));
        }
        Ok(revised)
    };
    let revised = read().map_err(|error| {
        let error = StoreError::from(error);
        shared.fail(&error); // a record that cannot be read must not be passed over (R6)
        KvError::from(error)
    })?;
    // Read first, then checked: had anything of it been forgotten, the compaction would show now.
    let state = shared.state.read();
    let compacted = state.head.compacted;
    if want.start < compacted {
        return Err(KvError::Compacted { requested: want.start, compacted });
    }
    Ok((state.head.epoch == epoch).then_some(revised))
}

/// The watched changes of each revision. A revision without any is there too, empty, so that a
/// step's length says how far it went.
fn changes(
    shared: &Shared,
    want: &Want,
    epoch: u32,
) -> Result<BTreeMap<Revision, Vec<Event>>, EngineError> {
    let from = VersionId::first_of(want.start).key(epoch);
    let to = VersionId::first_of(want.upto.next()).key(epoch);
    let mut found: BTreeMap<Revision, Vec<Event>> = BTreeMap::new();
    let mut failure = None;
    shared.engine.scan(
        Tree::Versions,
        Bound::Included(&from),
        Bound::Excluded(&to),
        &mut |key, record| {
            let version = match layout::decode_version(key, &record) {
                Ok(version) => version,
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let revision = version.kv.mod_revision;
            if found.len() == STEP_REVISIONS && !found.contains_key(&revision) {
                return ControlFlow::Break(());
            }
            let events = found.entry(revision).or_default();
            if want.range.contains(&version.kv.key) {
                events.push(Event { kind: version.kind, kv: version.kv, prev_kv: None });
            }
            ControlFlow::Continue(())
        },
    )?;
    failure.map_or(Ok(found), Err)
}

/// What a key held before a change; `None` where it did not exist, or that is forgotten.
fn previous(shared: &Shared, epoch: u32, kv: &KeyValue) -> Result<Option<KeyValue>, EngineError> {
    if kv.create_revision == kv.mod_revision {
        // It may have been deleted in the very transaction that created it anew.
        return Ok(None);
    }
    let before = Revision::new(kv.mod_revision.get() - 1);
    let id = {
        let state = shared.state.read();
        state.index.get(&kv.key).and_then(|history| history.at(before))
    };
    let Some(id) = id else { return Ok(None) };
    let version = read_version(&*shared.engine, epoch, id)?;
    Ok(version.filter(|version| version.kind == EventKind::Put).map(|version| version.kv))
}
