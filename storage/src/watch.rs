//! Watches: every change after a revision, in order, each once (invariant R5).
//!
//! ```text
//!  apply ──publish──▶ WatchHub ──▶ Audience: who watches this key? ──▶ live watchers' queues
//!                       │ Recent: the last revisions                          ▲
//!                       ▼                                                     │ caught up
//!  begin, start in the past ──▶ ReplayThread: Recent, or history from the engine
//! ```
//!
//! A watcher is either *behind*, when only the replay thread sends to it, or *live*, when only the
//! hub does. It changes from one to the other under the hub's lock at the moment when nothing lies
//! between what it was sent and what the hub sends next: so there is no gap and no repetition.
//! Progress is queued behind the events it speaks of.
//!
//! A live watcher that lets its queue fill up is closed as [`KvError::SlowWatcher`]; apply never
//! waits for one. A watcher that is behind is sent more only as it makes room.

use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::kv::{Event, KvError, Revision, WatchMessage, WatchRequest};
use crate::store::Shared;
use crate::txn::{Mutation, check_range};

mod audience;
mod hub;
mod recent;
mod replay;

pub(crate) use hub::WatchHub;
pub use replay::Replay;
pub(crate) use replay::ReplayThread;

/// How many messages a watcher may lag behind before it is closed as [`KvError::SlowWatcher`].
pub const WATCHER_QUEUE: usize = if cfg!(test) { 64 } else { 1024 };

/// The most events of a message, except that those of one revision are never divided.
pub const MESSAGE_EVENTS: usize = 256;

/// The receiving end of a watch. Dropping it ends the watch.
pub struct Watcher {
    id: u64,
    messages: mpsc::Receiver<WatchMessage>,
    /// Why the sender went away, if not because the store was shut down.
    verdict: Arc<OnceLock<KvError>>,
    reported: bool,
    reader: Option<Reader>,
    store: Weak<Shared>,
}

/// Changes events as they are received.
type Reader = Box<dyn Fn(&mut Event) + Send + Sync>;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Watcher {
    /// The same, with every event shown to `reader` before it is received: for who keeps something
    /// else in the store than it shows.
    #[must_use]
    pub fn read_by(mut self, reader: impl Fn(&mut Event) + Send + Sync + 'static) -> Self {
        self.reader = Some(Box::new(reader));
        self
    }

    fn read(&self, mut message: WatchMessage) -> WatchMessage {
        if let (Some(reader), WatchMessage::Events(events)) = (&self.reader, &mut message) {
            events.iter_mut().for_each(reader);
        }
        message
    }

    /// The next message; `None` when the store has shut down. After an error there is nothing more.
    /// Cancel-safe: a message is either returned or still queued.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, KvError>> {
        match self.messages.recv().await {
            Some(message) => Some(Ok(self.read(message))),
            None => self.report(),
        }
    }

    /// [`Watcher::next`] for who polls.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<WatchMessage, KvError>>> {
        self.messages.poll_recv(cx).map(|message| match message {
            Some(message) => Some(Ok(self.read(message))),
            None => self.report(),
        })
    }

    /// The next message if one is there already.
    pub fn try_next(&mut self) -> Option<Result<WatchMessage, KvError>> {
        match self.messages.try_recv() {
            Ok(message) => Some(Ok(self.read(message))),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.report(),
        }
    }

    /// Asks for a [`WatchMessage::Progress`]. It comes behind all events that happened before; a
    /// watcher that starts in the future gets it once it has begun.
    pub fn request_progress(&self) {
        self.progress().request();
    }

    /// What asks for progress while somebody else waits for messages.
    pub fn progress(&self) -> ProgressHandle {
        ProgressHandle { id: self.id, store: self.store.clone() }
    }

    fn report(&mut self) -> Option<Result<WatchMessage, KvError>> {
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        self.verdict.get().cloned().map(Err)
    }
}

/// Asks a [`Watcher`]'s hub for progress. It does not keep the watch open.
#[derive(Debug, Clone)]
pub struct ProgressHandle {
    id: u64,
    store: Weak<Shared>,
}

impl ProgressHandle {
    /// See [`Watcher::request_progress`].
    pub fn request(&self) {
        if let Some(shared) = self.store.upgrade() {
            shared.hub.request_progress(self.id);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(shared) = self.store.upgrade() {
            shared.hub.remove(self.id);
        }
    }
}

/// The changes of one revision.
#[derive(Debug)]
pub(crate) struct Revised {
    pub(crate) revision: Revision,
    /// With what each key held before; who did not ask for it gets them without.
    pub(crate) events: Vec<Event>,
}

impl Revised {
    pub(crate) fn new(revision: Revision, mutations: Vec<Mutation>) -> Self {
        let events = mutations
            .into_iter()
            .map(|Mutation { kind, kv, prev }| Event { kind, kv, prev_kv: prev })
            .collect();
        Self { revision, events }
    }
}

/// Begins a watch: live at once where it starts at the next revision or later, else behind.
pub(crate) fn begin(shared: &Arc<Shared>, request: WatchRequest) -> Result<Watcher, KvError> {
    check_range(&request.range)?;
    let (current, compacted) = {
        let state = shared.state.read();
        (state.head.revision, state.head.compacted)
    };
    let start = request.start.unwrap_or_else(|| current.next());
    if start < compacted {
        return Err(KvError::Compacted { requested: start, compacted });
    }
    let (sender, messages) = mpsc::channel(WATCHER_QUEUE);
    let verdict = Arc::new(OnceLock::new());
    let id = shared.hub.add(request, start, sender, Arc::clone(&verdict));
    Ok(Watcher {
        id,
        messages,
        verdict,
        reported: false,
        reader: None,
        store: Arc::downgrade(shared),
    })
}

#[cfg(test)]
mod tests;
