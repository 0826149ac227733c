//! [`WatchHub`]: every watcher of a store, and what they are sent as it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::audience::{Audience, WatcherId};
use super::recent::Recent;
use super::{MESSAGE_EVENTS, Revised};
use crate::kv::{Event, KeyRange, KvError, Revision, WatchMessage, WatchRequest};

/// The watchers of a store.
#[derive(Debug)]
pub(crate) struct WatchHub {
    inner: Mutex<Hub>,
    /// Wakes the replay's thread, or its task.
    work: Condvar,
    task_work: Notify,
}

#[derive(Debug)]
pub(super) struct Hub {
    /// Everything up to here has been published.
    pub(super) revision: Revision,
    pub(super) recent: Recent,
    live: Audience,
    watchers: HashMap<WatcherId, Subscription>,
    /// Those that the replay thread must bring up to date.
    pub(super) behind: BTreeSet<WatcherId>,
    next_id: WatcherId,
    pub(super) stopped: bool,
}

/// One watcher as its hub knows it.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) range: KeyRange,
    pub(super) prev_kv: bool,
    /// The first revision of which it has not been sent what there is.
    pub(super) next: Revision,
    pub(super) sender: mpsc::Sender<WatchMessage>,
    verdict: Arc<OnceLock<KvError>>,
    /// Progress was asked for and not sent yet.
    progress: bool,
    /// The last revision it was told of, by events or as progress.
    told: Revision,
}

impl Subscription {
    /// Those of a revision's events that it watches.
    pub(super) fn select(&self, revised: &Revised) -> Vec<Event> {
        let watched = revised.events.iter().filter(|event| self.range.contains(&event.kv.key));
        watched.map(|event| dressed(event, self.prev_kv)).collect()
    }

    /// It has been sent everything before `next`.
    pub(super) fn advance(&mut self, next: Revision) {
        self.told = Revision::new(next.get() - 1);
        self.next = next;
    }
}

/// An event for a watcher that wants to know, or not, what was there before.
fn dressed(event: &Event, prev_kv: bool) -> Event {
    let prev_kv = if prev_kv { event.prev_kv.clone() } else { None };
    Event { kind: event.kind, kv: event.kv.clone(), prev_kv }
}

impl WatchHub {
    pub(crate) fn new(revision: Revision) -> Self {
        let hub = Hub {
            revision,
            recent: Recent::after(revision),
            live: Audience::default(),
            watchers: HashMap::new(),
            behind: BTreeSet::new(),
            next_id: 0,
            stopped: false,
        };
        Self { inner: Mutex::new(hub), work: Condvar::new(), task_work: Notify::new() }
    }

    pub(super) fn add(
        &self,
        request: WatchRequest,
        start: Revision,
        sender: mpsc::Sender<WatchMessage>,
        verdict: Arc<OnceLock<KvError>>,
    ) -> WatcherId {
        let mut hub = self.inner.lock();
        let id = hub.next_id;
        hub.next_id += 1;
        let WatchRequest { range, prev_kv, .. } = request;
        let (progress, told) = (false, Revision::ZERO);
        let next = start;
        let subscription = Subscription { range, prev_kv, next, sender, verdict, progress, told };
        hub.watchers.insert(id, subscription);
        hub.behind.insert(id);
        if !hub.become_live(id) {
            self.wake();
        }
        id
    }

    pub(super) fn remove(&self, id: WatcherId) {
        self.inner.lock().remove(id);
    }

    /// Sends what was applied to those who watch it. `revised` must follow on what was published
    /// before, and `revision` be the last of it.
    pub(crate) fn publish(&self, revision: Revision, revised: Vec<Arc<Revised>>) {
        let mut hub = self.inner.lock();
        if revised.is_empty() {
            return;
        }
        assert_eq!(revised[0].revision, hub.revision.next(), "R5: no revision may be left out");
        hub.revision = revision;
        for (id, events) in hub.deliveries(&revised) {
            hub.deliver(id, events);
        }
        for revised in revised {
            hub.recent.push(revised);
        }
    }

    /// The state was replaced by a snapshot at `revision`: everybody must catch up from history.
    pub(crate) fn reset(&self, revision: Revision) {
        let mut hub = self.inner.lock();
        assert!(hub.revision <= revision, "R3: a snapshot must not lead back");
        let unsent = hub.revision.next();
        hub.revision = revision;
        hub.recent = Recent::after(revision);
        hub.live = Audience::default();
        let Hub { watchers, behind, .. } = &mut *hub;
        for (id, one) in watchers.iter_mut() {
            if behind.insert(*id) {
                one.next = one.next.max(unsent); // a live one has been sent all before
            }
        }
        let all = hub.ids();
        for id in all {
            hub.become_live(id);
        }
        self.wake();
    }

    /// Ends every watch: the store has failed.
    pub(crate) fn close_all(&self, error: &KvError) {
        let mut hub = self.inner.lock();
        let all = hub.ids();
        for id in all {
            hub.close(id, error.clone());
        }
    }

    pub(super) fn request_progress(&self, id: WatcherId) {
        let mut hub = self.inner.lock();
        if let Some(subscription) = hub.watchers.get_mut(&id) {
            subscription.progress = true;
            hub.send_progress(id);
        }
    }

    /// Tells every live watcher that has been told nothing of the last revisions how far they are.
    pub(super) fn tick(&self) {
        let mut hub = self.inner.lock();
        let revision = hub.revision;
        // Progress that was asked for while the queue was full is due as well.
        let idle = hub.watchers.iter_mut().filter(|(_, one)| one.told < revision || one.progress);
        let mut ids: Vec<_> = idle
            .map(|(id, one)| {
                one.progress = true;
                *id
            })
            .collect();
        ids.sort_unstable(); // a simulation repeats itself
        for id in ids {
            hub.send_progress(id);
        }
    }

    /// Runs `with` under the hub's lock.
    pub(super) fn locked<T>(&self, with: impl FnOnce(&mut Hub) -> T) -> T {
        with(&mut self.inner.lock())
    }

    /// Waits for work, at most `most`; whether the hub has been stopped.
    pub(super) fn wait(&self, most: Duration, wants_work: bool) -> bool {
        let mut hub = self.inner.lock();
        let has_work = wants_work && !hub.behind.is_empty();
        if !hub.stopped && !has_work {
            self.work.wait_for(&mut hub, most);
        }
        hub.stopped
    }

    /// [`WatchHub::wait`] for a task.
    pub(super) async fn wait_as_task(&self, most: Duration, wants_work: bool) -> bool {
        let has_work = |hub: &Hub| hub.stopped || (wants_work && !hub.behind.is_empty());
        if !self.locked(|hub| has_work(hub)) {
            // Cancel-safe: that it was woken or that it was not, it looks itself what there is to do.
            let _ = tokio::time::timeout(most, self.task_work.notified()).await;
        }
        self.locked(|hub| hub.stopped)
    }

    pub(super) fn stop(&self) {
        self.inner.lock().stopped = true;
        self.work.notify_all();
        self.task_work.notify_one();
    }

    fn wake(&self) {
        self.work.notify_one();
        self.task_work.notify_one();
    }
}

impl Hub {
    pub(super) fn watcher(&self, id: WatcherId) -> Option<&Subscription> {
        self.watchers.get(&id)
    }

    pub(super) fn watcher_mut(&mut self, id: WatcherId) -> Option<&mut Subscription> {
        self.watchers.get_mut(&id)
    }

    /// All watchers, in the order in which they came.
    fn ids(&self) -> Vec<WatcherId> {
        let mut ids: Vec<_> = self.watchers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Moves a watcher that has been sent all there is to those that the hub sends to itself.
    pub(super) fn become_live(&mut self, id: WatcherId) -> bool {
        let Some(one) = self.watchers.get(&id) else { return false };
        if one.next <= self.revision {
            return false;
        }
        self.live.insert(id, &one.range);
        self.behind.remove(&id);
        self.send_progress(id);
        true
    }

    /// Ends a watch with an error.
    pub(super) fn close(&mut self, id: WatcherId, error: KvError) {
        if let Some(one) = self.watchers.get(&id) {
            let _ = one.verdict.set(error);
        }
        self.remove(id);
    }

    fn remove(&mut self, id: WatcherId) {
        if let Some(one) = self.watchers.remove(&id)
            && !self.behind.remove(&id)
        {
            self.live.remove(id, &one.range);
        }
    }

    /// What each live watcher is to be sent, in messages that divide no revision.
    fn deliveries(&self, revised: &[Arc<Revised>]) -> BTreeMap<WatcherId, Vec<Vec<Event>>> {
        let mut deliveries: BTreeMap<WatcherId, Vec<Vec<Event>>> = BTreeMap::new();
        for revised in revised {
            for event in &revised.events {
                self.live.of(&event.kv.key, |id| {
                    let Some(one) = self.watchers.get(&id) else { return };
                    if one.next > revised.revision {
                        return; // it starts in the future
                    }
                    let messages = deliveries.entry(id).or_default();
                    let last = messages.last().and_then(|message| message.last());
                    let begins = last.is_none_or(|last| last.kv.mod_revision != revised.revision);
                    let full = messages.last().is_none_or(|m| m.len() >= MESSAGE_EVENTS);
                    if begins && full {
                        messages.push(Vec::new());
                    }
                    if let Some(message) = messages.last_mut() {
                        message.push(dressed(event, one.prev_kv));
                    }
                });
            }
        }
        deliveries
    }

    fn deliver(&mut self, id: WatcherId, messages: Vec<Vec<Event>>) {
        let Some(one) = self.watchers.get_mut(&id) else { return };
        for events in messages {
            let last = events.last().map_or(one.told, |event| event.kv.mod_revision);
            match one.sender.try_send(WatchMessage::Events(events)) {
                Ok(()) => one.told = last,
                Err(TrySendError::Full(_)) => {
                    let last = one.told;
                    return self.close(id, KvError::SlowWatcher { last });
                }
                Err(TrySendError::Closed(_)) => return self.remove(id),
            }
        }
    }

    /// Sends progress to a live watcher that has begun, if it is wanted and there is room.
    fn send_progress(&mut self, id: WatcherId) {
        let revision = self.revision;
        if self.behind.contains(&id) {
            return;
        }
        let Some(one) = self.watchers.get_mut(&id) else { return };
        let begun = one.next <= revision.next();
        if one.progress && begun && one.sender.try_send(WatchMessage::Progress(revision)).is_ok() {
            one.progress = false;
            one.told = revision;
        }
    }
}
