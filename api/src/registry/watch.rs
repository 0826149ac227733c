//! Watching objects: the store's events as a client sees them through its selectors (R5).
//!
//! An object that begins to be selected is ADDED, one that ceases to be is DELETED, whatever
//! happened to its key. A watcher that the store closed for being slow resumes by itself; one that
//! cannot resume ends with 410.

use std::collections::VecDeque;

use kontiki_storage::kv::{
    Event, EventKind, KeyRange, KeyValue, KvError, RangeRequest, Revision, WatchMessage,
    WatchRequest, Watcher,
};

use super::options::Freshness;
use super::read::consistency;
use super::strategy::Kind;
use super::{Registry, key, stored};
use crate::context::RequestContext;
use crate::object::Object;
use crate::selectors::Selection;
use crate::status::Status;

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// After this revision.
    After(u64),
    /// With what is there, each object as ADDED, then what happens.
    State(Freshness),
    /// The same, with a bookmark after the last object that was there (`sendInitialEvents`).
    MarkedState(Freshness),
    /// With what happens from now on.
    Now,
}

/// An object of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// As the kind shows it.
    Object(Object),
    /// As the store has it, which is as the kind shows it.
    Stored {
        /// The object.
        kv: KeyValue,
        /// The event's revision, which is the object's resourceVersion.
        revision: Revision,
    },
}

impl Shown {
    /// The object, decoded.
    pub fn object(self, kind: &Kind) -> Result<Object, Status> {
        match self {
            Self::Object(object) => Ok(object),
            Self::Stored { kv, revision } => stored::decode_at(kind, &kv, revision),
        }
    }
}

/// What a client sees.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// An object is there, or begins to be selected.
    Added(Shown),
    /// A selected object changed.
    Modified(Shown),
    /// An object is gone, or ceases to be selected: its last state, with the revision of the event.
    Deleted(Shown),
    /// Everything up to this revision was sent.
    Bookmark {
        /// The revision.
        revision: u64,
        /// Whether this ends the objects that were there at the start.
        ends_initial: bool,
    },
}

/// A watch under way. Dropping it ends it.
pub struct ObjectWatch {
    registry: std::sync::Arc<Registry>,
    range: KeyRange,
    selection: Selection,
    watcher: Watcher,
    /// The store has closed the watcher, and it must be resumed.
    is_closed: bool,
    /// Everything up to here is in `pending` or sent.
    seen: Revision,
    pending: VecDeque<Pending>,
}

/// An event not looked at yet.
enum Pending {
    Initial(KeyValue),
    EndOfInitial(Revision),
    Event(Event),
    Progress(Revision),
}

impl Registry {
    /// Begins a watch.
    pub async fn watch(
        self: &std::sync::Arc<Self>,
        _ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        selection: Selection,
        start: WatchStart,
    ) -> Result<ObjectWatch, Status> {
        let range = match (selection.single_name(), kind.is_namespaced() && namespace.is_empty()) {
            (Some(name), false) => KeyRange::key(key::object(kind, namespace, name)),
            _ => KeyRange::prefix(key::folder(kind, namespace)),
        };
        let (mut pending, mut after) = (VecDeque::new(), None);
        match start {
            WatchStart::After(revision) => after = Some(Revision::new(revision)),
            WatchStart::Now => {}
            WatchStart::State(freshness) | WatchStart::MarkedState(freshness) => {
                let request = RangeRequest {
                    consistency: consistency(freshness),
                    ..RangeRequest::new(range.clone())
                };
                let response = self.range(request).await?;
                pending.extend(response.kvs.into_iter().map(Pending::Initial));
                if matches!(start, WatchStart::MarkedState(_)) {
                    pending.push_back(Pending::EndOfInitial(response.revision));
                }
                after = Some(response.revision);
            }
        }
        let seen = after.unwrap_or_else(|| self.kv.revision());
        let watcher = self.open(&range, seen).await?;
        Ok(ObjectWatch {
            registry: std::sync::Arc::clone(self),
            range,
            selection,
            watcher,
            is_closed: false,
            seen,
            pending,
        })
    }

    async fn open(&self, range: &KeyRange, after: Revision) -> Result<Watcher, KvError> {
        let request =
            WatchRequest { range: range.clone(), start: Some(after.next()), prev_kv: true };
        self.kv.watch(request).await
    }
}

impl ObjectWatch {
    /// The next event; `None` when the server shuts down. After an error there is nothing more.
    /// Cancel-safe: events are queued in `self` before they are looked at.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Status>> {
        loop {
            while let Some(pending) = self.pending.front() {
                let looked = self.look(pending).await;
                self.pending.pop_front();
                match looked {
                    Ok(None) => {}
                    Ok(Some(event)) => return Some(Ok(event)),
                    Err(status) => return Some(Err(status)),
                }
            }
            if self.is_closed {
                match self.registry.open(&self.range, self.seen).await {
                    Ok(watcher) => self.watcher = watcher,
                    Err(error) => return Some(Err(error.into())),
                }
                self.is_closed = false;
            }
            match self.watcher.next().await? {
                Ok(WatchMessage::Events(events)) => {
                    if let Some(last) = events.last() {
                        self.seen = last.kv.mod_revision;
                    }
                    self.pending.extend(events.into_iter().map(Pending::Event));
                }
                Ok(WatchMessage::Progress(revision)) => {
                    self.seen = self.seen.max(revision);
                    self.pending.push_back(Pending::Progress(revision));
                }
                Err(KvError::SlowWatcher { .. }) => self.is_closed = true,
                Err(error) => return Some(Err(error.into())),
            }
        }
    }

    /// Asks for a bookmark soon, also when nothing happens.
    pub fn request_progress(&self) {
        self.watcher.request_progress();
    }

    /// The object of a key, as the kind has it, at a revision.
    async fn object(&self, kv: &KeyValue, revision: Revision) -> Result<Object, Status> {
        let kind = self.selection.kind();
        let object = stored::decode_at(kind, kv, revision)?;
        if kind.strategy.definition().is_none_or(|version| version.conversion.is_none()) {
            return Ok(object);
        }
        let object = self.registry.converted(kind, vec![object]).await?.pop();
        object.ok_or_else(|| Status::internal("one object must give one"))
    }

    async fn look(&self, pending: &Pending) -> Result<Option<WatchEvent>, Status> {
        match pending {
            Pending::Initial(kv) if self.selection.kind().strategy.shows_as_stored() => {
                let shown = Shown::Stored { kv: kv.clone(), revision: kv.mod_revision };
                Ok(self.selects(kv)?.then_some(WatchEvent::Added(shown)))
            }
            Pending::Initial(kv) => {
                let object = self.object(kv, kv.mod_revision).await?;
                Ok(self
                    .selection
                    .matches(&object)
                    .then_some(WatchEvent::Added(Shown::Object(object))))
            }
            Pending::EndOfInitial(revision) => {
                Ok(Some(WatchEvent::Bookmark { revision: revision.get(), ends_initial: true }))
            }
            Pending::Progress(revision) => {
                Ok(Some(WatchEvent::Bookmark { revision: revision.get(), ends_initial: false }))
            }
            Pending::Event(event) if self.selection.kind().strategy.shows_as_stored() => {
                self.see_stored(event)
            }
            Pending::Event(event) => self.see(event).await,
        }
    }

    /// Whether an object that is shown as it is stored is selected.
    fn selects(&self, kv: &KeyValue) -> Result<bool, Status> {
        if self.selection.is_everything() {
            return Ok(true);
        }
        let object = self.registry.decoded.get(self.selection.kind(), kv)?;
        Ok(self.selection.matches(&object))
    }

    /// The same as [`Self::see`], of such an object.
    fn see_stored(&self, event: &Event) -> Result<Option<WatchEvent>, Status> {
        let revision = event.kv.mod_revision;
        let selected = |kv: &KeyValue| {
            Ok::<_, Status>(self.selects(kv)?.then(|| Shown::Stored { kv: kv.clone(), revision }))
        };
        let before = event.prev_kv.as_ref().map(selected).transpose()?.flatten();
        let after = match event.kind {
            EventKind::Put => selected(&event.kv)?,
            EventKind::Delete => None,
        };
        Ok(seen(before, after))
    }

    async fn see(&self, event: &Event) -> Result<Option<WatchEvent>, Status> {
        let revision = event.kv.mod_revision;
        let before = match &event.prev_kv {
            Some(kv) => Some(self.object(kv, revision).await?)
                .filter(|object| self.selection.matches(object)),
            None => None,
        };
        let after = match event.kind {
            EventKind::Put => Some(self.object(&event.kv, revision).await?)
                .filter(|object| self.selection.matches(object)),
            EventKind::Delete => None,
        };
        Ok(seen(before.map(Shown::Object), after.map(Shown::Object)))
    }
}

/// What a client sees of a change, by what of it is selected.
fn seen(before: Option<Shown>, after: Option<Shown>) -> Option<WatchEvent> {
    match (before, after) {
        (None, None) => None,
        (None, Some(object)) => Some(WatchEvent::Added(object)),
        (Some(_), Some(object)) => Some(WatchEvent::Modified(object)),
        (Some(object), None) => Some(WatchEvent::Deleted(object)),
    }
}
