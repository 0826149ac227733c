//! [`Engine`]: atomic batches over a few named trees, durable now or later.
//!
//! Everything that must survive goes through here: the Raft log and vote (`raft/src/log_store.rs`)
//! and the multi-version store. [`disk`] keeps it in sled with a journal in front, [`memory`] keeps the
//! same contract without a disk, for simulation.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

pub mod disk;
mod held;
mod journal;
mod lock;
pub mod memory;
mod overlay;
mod page;
mod pages;
mod room;
mod running;
mod sled;
pub mod timing;

pub use room::Room;

/// The longest key that an engine takes, in bytes.
pub const KEY_MAX: usize = 4 << 10;

/// The largest value that an engine takes, in bytes.
pub const VALUE_MAX: usize = 16 << 20;

/// The named trees; each is an ordered map of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Format version, node identity (R8), applied index.
    Meta,
    /// The Raft log.
    Log,
    /// Vote, committed and purged index: small records of `raft`.
    Raft,
    /// Every version of every key.
    Versions,
    /// What the state machine keeps beside the keys: outcomes of recent proposals (R10), leases.
    State,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Set a key.
    Put {
        /// Where.
        tree: Tree,
        /// The key.
        key: Bytes,
        /// Its value; any size up to the engine's bound, split inside where need be.
        value: Bytes,
    },
    /// Remove one key.
    Delete {
        /// Where.
        tree: Tree,
        /// The key.
        key: Bytes,
    },
    /// Remove all keys from `start` up to `before`, excluded.
    DeleteRange {
        /// Where.
        tree: Tree,
        /// The first.
        start: Bytes,
        /// The first that stays.
        before: Bytes,
    },
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order: a later one wins over an earlier one of the same key.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Sets `key` in `tree`.
    pub fn put(&mut self, tree: Tree, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write::Put { tree, key: key.into(), value: value.into() });
    }

    /// Removes `key` from `tree`.
    pub fn delete(&mut self, tree: Tree, key: impl Into<Bytes>) {
        self.writes.push(Write::Delete { tree, key: key.into() });
    }

    /// Removes the keys of `tree` from `start` up to `before`, excluded.
    pub fn delete_range(&mut self, tree: Tree, start: impl Into<Bytes>, before: impl Into<Bytes>) {
        self.writes.push(Write::DeleteRange { tree, start: start.into(), before: before.into() });
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// When a batch must be on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before `write` returns: a real `fdatasync` (R1).
    Now,
    /// By the next [`Engine::sync`] or `Durability::Now`, in the order of the writes.
    Later,
}

/// Why the engine could not do it. All are fatal to this member: it stops serving (R6).
#[derive(Debug, Error)]
pub enum EngineError {
    /// The operating system refused.
    #[error("{act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A record fails its checksum or cannot be what it claims to be.
    #[error("{path}: damaged record at {offset}: {reason}")]
    Damaged {
        /// The file or tree.
        path: String,
        /// Where in it: a byte offset, or the key in hexadecimal.
        offset: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files were written by another format version.
    #[error("{path}: format version {found}; this binary reads version {expected}")]
    Version {
        /// The file or tree.
        path: String,
        /// What is there.
        found: u32,
        /// What is understood.
        expected: u32,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process{}", holder(*.pid))]
    InUse {
        /// The directory.
        path: String,
        /// Who has it, where known.
        pid: Option<u32>,
    },
    /// An earlier error made the engine stop.
    #[error("the engine has stopped after an earlier error: {reason}")]
    Stopped {
        /// That error.
        reason: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// What a scan calls with each key and value; it ends the scan with [`ControlFlow::Break`].
pub type Visit<'a> = dyn FnMut(&[u8], Bytes) -> ControlFlow<()> + 'a;

/// Atomic batches over named trees. Calls block: never make them on an async worker.
///
/// An implementation must
/// - apply a batch whole or not at all, through any crash;
/// - return from a `Durability::Now` write only when that batch, and every batch written before it,
///   is on stable storage;
/// - after a crash, show a prefix of the written batches that holds at least all that were durable;
/// - let reads see every batch whose `write` has returned;
/// - refuse damaged or unknown records with their place, and never guess;
/// - take keys up to [`KEY_MAX`] and values up to [`VALUE_MAX`] bytes, and panic on larger ones: who
///   writes must have refused them before;
/// - after one failed write or sync, refuse all later ones (a failed fsync cannot be retried).
pub trait Engine: Send + Sync + 'static {
    /// Applies a batch.
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), EngineError>;

    /// Makes every batch written so far durable.
    fn sync(&self) -> Result<(), EngineError>;

    /// Reads one key.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the keys between two bounds in ascending order.
    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError>;

    /// How many bytes it takes: of the disk, where it is on one.
    fn size_bytes(&self) -> Result<u64, EngineError> {
        let mut bytes = 0;
        for tree in [Tree::Meta, Tree::Log, Tree::Raft, Tree::Versions, Tree::State] {
            self.scan(tree, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
                bytes += (key.len() + value.len()) as u64;
                ControlFlow::Continue(())
            })?;
        }
        Ok(bytes)
    }

    /// How much room there is for more. Where it is not ample, callers must refuse what makes the
    /// store grow; other writes are done, or wait.
    fn room(&self) -> Room {
        Room::Ample
    }

    /// How long its disk takes, where it has one.
    fn timings(&self) -> Option<&timing::Timings> {
        None
    }

    /// The greatest key of a tree with its value.
    fn last(&self, tree: Tree) -> Result<Option<(Bytes, Bytes)>, EngineError>;
}

/// Holds a batch against the bounds of every engine.
fn check_bounds(batch: &Batch) {
    for write in &batch.writes {
        let (key, value) = match write {
            Write::Put { key, value, .. } => (key, value.len()),
            Write::Delete { key, .. } => (key, 0),
            Write::DeleteRange { start, .. } => (start, 0),
        };
        assert!(key.len() <= KEY_MAX, "a key of {} bytes; at most {KEY_MAX}", key.len());
        assert!(value <= VALUE_MAX, "a value of {value} bytes; at most {VALUE_MAX}");
    }
}

/// What the files below a directory take. One that goes away meanwhile counts for nothing.
fn directory_bytes(directory: &Path) -> Result<u64, EngineError> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => bytes += directory_bytes(&path)?,
            Ok(found) => bytes += found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("look at", &path)(error)),
        }
    }
    Ok(bytes)
}

/// The error of an act on a path, for `map_err`.
pub(crate) fn io_error(
    act: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> EngineError {
    move |source| EngineError::Io { act, path: path.display().to_string(), source }
}

/// Whether no key can lie between two bounds (`BTreeMap::range` panics on some of these).
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
