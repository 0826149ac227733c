//! Snapshots: the whole store at one revision, read in chunks beside apply.
//!
//! ```text
//!  chunk 0          chunks 1…n                     last chunk
//!  Header           up to CHUNK_BYTES of versions  End: how many versions there were
//!  head, sidecar    as (key, record) pairs
//! ```
//!
//! Each chunk is a record of `codec`, with its number, so that a missing, repeated or damaged one is
//! found. The view costs nothing while it is open, except that nothing is removed from history:
//! versions are never changed, so those up to the snapshot's revision are its contents.
//!
//! Installation writes the new state under a new epoch beside the old one, which stands and serves
//! until one durable batch makes the new head count. A crash on the way leaves the old state, and
//! `open` removes the rest.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Place};
use crate::engine::{Batch, Durability, EngineError, Tree};
use crate::error::StoreError;
use crate::kv::Revision;
use crate::layout::{Head, VersionId, epoch_start};
use crate::lease::{self, Leases};
use crate::store::{Shared, Store, open};

mod inspect;

pub use inspect::{Inspection, Summary};

/// How large a chunk grows before the next one begins; a single larger version is one chunk.
pub const CHUNK_BYTES: usize = 256 << 10;

/// How many snapshots are being read; while there are any, nothing is removed from history.
#[derive(Debug, Default)]
pub(crate) struct Pins(AtomicUsize);

impl Pins {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

/// Keeps history whole for as long as it is held.
pub(crate) struct Pin(Arc<Shared>);

impl Pin {
    /// With the writer's lock held, or before anything is read.
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        shared.pins.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One chunk: its number, and what it holds.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    number: u64,
    part: Part,
}

#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Header { head: Head, sidecar: Vec<(Bytes, Bytes)> },
    Versions(Vec<(Bytes, Bytes)>),
    End { versions: u64 },
}

impl Chunk {
    fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    fn decode(bytes: &[u8], number: u64) -> Result<Part, StoreError> {
        let place = Place { tree: "snapshot chunk", key: &number.to_be_bytes() };
        let chunk: Self = codec::decode(bytes, place)
            .map_err(|error| StoreError::Snapshot { reason: error.to_string() })?;
        if chunk.number != number {
            let reason = format!("chunk {} came where {number} was due", chunk.number);
            return Err(StoreError::Snapshot { reason });
        }
        Ok(chunk.part)
    }
}

/// A consistent view of a store, read chunk by chunk. Reading blocks.
pub struct Snapshot {
    shared: Arc<Shared>,
    head: Head,
    next: u64,
    progress: Progress,
}

/// How far a snapshot has been read.
enum Progress {
    Header { sidecar: Vec<(Bytes, Bytes)> },
    Versions { from: Bytes, versions: u64 },
    Done,
}

impl Snapshot {
    fn of(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        // With the writer's lock held nobody applies: the sidecar is that of this very head.
        let _writer = shared.writer.lock();
        let head = shared.state.read().head.clone();
        let mut sidecar = Vec::new();
        shared.engine.scan(
            Tree::State,
            Bound::Unbounded,
            Bound::Unbounded,
            &mut |key, value| {
                sidecar.push((Bytes::copy_from_slice(key), value));
                ControlFlow::Continue(())
            },
        )?;
        shared.pins.0.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        Ok(Self { shared, head, next: 0, progress: Progress::Header { sidecar } })
    }

    /// The revision it shows.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// The position in the log that it contains.
    pub fn applied(&self) -> Option<&Bytes> {
        self.head.applied.as_ref()
    }

    /// The same view from its beginning, as long as nothing of this one has been read.
    ///
    /// # Panics
    /// When it has.
    #[must_use]
    pub fn again(&self) -> Self {
        let Progress::Header { sidecar } = &self.progress else {
            panic!("a snapshot must be read again before it is read");
        };
        self.shared.pins.0.fetch_add(1, Ordering::SeqCst);
        Self {
            shared: Arc::clone(&self.shared),
            head: self.head.clone(),
            next: 0,
            progress: Progress::Header { sidecar: sidecar.clone() },
        }
    }

    /// The next chunk; `None` after the last.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let part = match std::mem::replace(&mut self.progress, Progress::Done) {
            Progress::Header { sidecar } => {
                let from = epoch_start(self.head.epoch);
                self.progress = Progress::Versions { from, versions: 0 };
                Part::Header { head: Head { epoch: 0, ..self.head.clone() }, sidecar }
            }
            Progress::Versions { from, versions } => self.versions(&from, versions)?,
            Progress::Done => return Ok(None),
        };
        let chunk = Chunk { number: self.next, part }.encode();
        self.next += 1;
        Ok(Some(chunk))
    }

    fn versions(&mut self, from: &Bytes, sent: u64) -> Result<Part, StoreError> {
        let end = VersionId::first_of(self.head.revision.next()).key(self.head.epoch);
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let from = if sent == 0 { Bound::Included(&from[..]) } else { Bound::Excluded(&from[..]) };
        let engine = &self.shared.engine;
        engine.scan(Tree::Versions, from, Bound::Excluded(&end), &mut |key, record| {
            bytes += key.len() + record.len();
            pairs.push((Bytes::copy_from_slice(key), record));
            if bytes < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let Some((last, _)) = pairs.last() else { return Ok(Part::End { versions: sent }) };
        let versions = sent + pairs.len() as u64;
        self.progress = Progress::Versions { from: last.clone(), versions };
        Ok(Part::Versions(pairs))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.pins.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A snapshot being received. Dropped before [`Installer::finish`], it changes nothing.
pub struct Installer {
    shared: Arc<Shared>,
    epoch: u32,
    next: u64,
    versions: u64,
    header: Option<(Head, Vec<(Bytes, Bytes)>)>,
    complete: bool,
}

impl Installer {
    fn new(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let epoch = shared.state.read().head.epoch + 1;
        let mut batch = Batch::default();
        // What an installation that was given up has left there.
        batch.delete_range(Tree::Versions, epoch_start(epoch), epoch_start(u32::MAX));
        shared.engine.write(batch, Durability::Later)?;
        let shared = Arc::clone(shared);
        Ok(Self { shared, epoch, next: 0, versions: 0, header: None, complete: false })
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let part = Chunk::decode(chunk, self.next)?;
        self.next += 1;
        match part {
            Part::Header { head, sidecar } if self.header.is_none() => {
                self.header = Some((head, sidecar));
            }
            Part::Versions(pairs) if self.header.is_some() && !self.complete => {
                self.versions += pairs.len() as u64;
                let mut batch = Batch::default();
                for (key, record) in pairs {
                    let id = VersionId::of_key(&key);
                    let id = id.map_err(|error| snapshot_error(&error.to_string()))?;
                    batch.put(Tree::Versions, id.key(self.epoch), record);
                }
                self.shared.engine.write(batch, Durability::Later)?;
            }
            Part::End { versions } if self.header.is_some() && versions == self.versions => {
                self.complete = true;
            }
            _ => return Err(snapshot_error("its parts are not in order or some are missing")),
        }
        Ok(())
    }

    /// Makes the snapshot the store's state, durably, and tells the watchers to catch up with it.
    pub fn finish(self) -> Result<Revision, StoreError> {
        self.finish_with(|head, sidecar| (head, sidecar))
    }

    /// [`Installer::finish`] in a new life: see [`Rebirth`].
    pub fn finish_reborn(self, rebirth: Rebirth) -> Result<Revision, StoreError> {
        self.finish_with(|head, sidecar| {
            let revision = Revision::new(head.revision.get().saturating_add(rebirth.bump));
            let applied = Some(rebirth.applied);
            let kept = sidecar.into_iter().filter(|(key, _)| lease::owns(key));
            let sidecar = kept.chain(rebirth.state).collect();
            (Head { revision, compacted: revision, applied, ..head }, sidecar)
        })
    }

    fn finish_with(
        self,
        becomes: impl FnOnce(Head, Vec<(Bytes, Bytes)>) -> (Head, Vec<(Bytes, Bytes)>),
    ) -> Result<Revision, StoreError> {
        let Self { shared, epoch, header, complete: true, .. } = self else {
            return Err(snapshot_error("its last chunk is missing"));
        };
        let Some((head, sidecar)) = header else {
            return Err(snapshot_error("its first chunk is missing"));
        };
        let (head, sidecar) = becomes(Head { epoch, ..head }, sidecar);
        install(&shared, &head, sidecar).inspect_err(|error| {
            if !matches!(error, StoreError::Snapshot { .. }) {
                shared.fail(error);
            }
        })
    }
}

/// What a snapshot becomes in the store of a cluster that begins with it.
///
/// Its revision jumps ahead, beyond what any client of the old cluster can have seen, and all before
/// that counts as compacted: whoever comes with an older revision is told to read anew (R3). Keys
/// and leases are kept; what else the old cluster's log had left in [`Tree::State`] is not.
#[derive(Debug, Clone)]
pub struct Rebirth {
    /// How far the revision jumps.
    pub bump: u64,
    /// The position in the new log that the state is of.
    pub applied: Bytes,
    /// What to put into [`Tree::State`].
    pub state: Vec<(Bytes, Bytes)>,
}

fn snapshot_error(reason: &str) -> StoreError {
    StoreError::Snapshot { reason: reason.to_owned() }
}

fn install(
    shared: &Shared,
    head: &Head,
    sidecar: Vec<(Bytes, Bytes)>,
) -> Result<Revision, StoreError> {
    let mut writer = shared.writer.lock();
    let before = shared.state.read().head.clone();
    if head.revision < before.revision {
        return Err(snapshot_error("it is older than the state it would replace (R3)"));
    }
    let state = Leases::of(&sidecar)
        .and_then(|leases| open::load_epoch(&*shared.engine, head.clone(), leases))
        .map_err(|error| snapshot_error(&error.to_string()))?;
    let mut batch = Batch::default();
    batch.delete_range(Tree::State, Bytes::new(), Bytes::from_static(&[u8::MAX; 32]));
    for (key, value) in sidecar {
        batch.put(Tree::State, key, value);
    }
    head.put_into(&mut batch);
    shared.engine.write(batch, Durability::Now)?;

    writer.scrub = crate::compact::Scrub::of(head.compacted);
    *shared.state.write() = state;
    shared.set_durable(head.applied.clone());
    shared.hub.reset(head.revision);
    shared.announce(head.revision);
    shared.announce_leases();
    remove_replaced(shared, before.epoch, head.epoch)?;
    Ok(head.revision)
}

/// Removes the replaced state, unless a snapshot of it is being read: then `open` will.
fn remove_replaced(shared: &Shared, from: u32, before: u32) -> Result<(), EngineError> {
    if !shared.pins.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.delete_range(Tree::Versions, epoch_start(from), epoch_start(before));
    shared.engine.write(batch, Durability::Later)
}

impl Store {
    /// A consistent view of everything applied, to be read beside apply.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.shared.refuse_if_failed()?;
        Snapshot::of(&self.shared)
    }

    /// Begins to receive a snapshot, which replaces everything once it is finished. Apply must not
    /// be called meanwhile, and only one may be received at a time.
    pub fn begin_install(&self) -> Result<Installer, StoreError> {
        self.shared.refuse_if_failed()?;
        Installer::new(&self.shared)
    }
}

#[cfg(test)]
mod tests;
