//! [`SledRecords`]: the one door to sled 0.34.
//!
//! What must be known of it:
//! - Its `flush` is `sync_file_range`, which does not survive a power cut: [`SledRecords::sync`]
//!   syncs the file itself afterwards, through a handle of its own.
//! - A leaf that outgrows a quarter of a segment becomes a blob file, which is never synced. Leaves
//!   are split by count, above 16 records, so the largest record bounds the largest leaf.
//! - Batches of more than a hundred or so records are slow inside it.
//! - Its cache limit is honoured only if its own flush thread runs.
//! - On some damaged files it panics: every call is guarded. Others it takes for good and serves older
//!   pages: `segments.rs` looks through the file before.
//! - Its threads hold its file for a moment after it is dropped: opening waits for them.
//! - `flush_async` deadlocks: only the blocking call is used, on the engine's own thread.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::page::RECORD_MAX;
use super::room::Reserve;
use super::{EngineError, io_error};
use crate::codec::hex;

pub(super) mod segments;

const SEGMENT_BYTES: usize = 2 << 20;
const CACHE_BYTES: u64 = 32 << 20;
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// How long sled's threads may hold its file after it was dropped, and how often that is looked at.
const RELEASE_MAX: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// How many records sled puts into a leaf before it splits it, and one more.
const LEAF_RECORDS_MAX: usize = 17;

/// The longest batch that sled takes well.
pub(super) const BATCH_MAX: usize = 96;

const _: () = assert!(LEAF_RECORDS_MAX * RECORD_MAX < SEGMENT_BYTES / 4 - 20);

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordWrite {
    Put(Vec<u8>, Bytes),
    Delete(Vec<u8>),
}

/// An ordered map of small records in sled.
#[derive(Debug)]
pub(super) struct SledRecords {
    db: sled::Db,
    /// sled's only data file.
    file: File,
    path: PathBuf,
}

impl SledRecords {
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let every = u64::try_from(FLUSH_EVERY.as_millis()).ok();
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(every);
        let file_path = path.join("db");
        await_release(&file_path).map_err(io_error("lock", &file_path))?;
        let db = guarded("open", path, || config.open())?;
        let file = File::open(&file_path).map_err(io_error("open", &file_path))?;
        Ok(Self { db, file, path: path.to_owned() })
    }

    /// Where sled keeps its records.
    pub(super) fn file_path(&self) -> PathBuf {
        self.path.join("db")
    }

    /// What keeps room for more of them.
    pub(super) fn reserve(&self) -> Result<Box<dyn Reserve>, EngineError> {
        let path = self.file_path();
        let file = File::options().write(true).open(&path).map_err(io_error("open", &path))?;
        Ok(Box::new(file))
    }

    /// The record with the greatest key that is not above `key`.
    pub(super) fn floor(&self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let mut above = key.to_vec();
        above.push(0);
        self.previous(&above)
    }

    /// The record with the greatest key below `key`.
    pub(super) fn previous(&self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let found = self.guarded("read", || self.db.get_lt(key))?;
        Ok(found.map(|(key, record)| (to_bytes(&key), to_bytes(&record))))
    }

    /// The record with the smallest key above `key`.
    pub(super) fn next(&self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let found = self.guarded("read", || self.db.get_gt(key))?;
        Ok(found.map(|(key, record)| (to_bytes(&key), to_bytes(&record))))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.guarded("read", || self.db.get(key))?;
        Ok(found.as_ref().map(to_bytes))
    }

    /// Changes records together. They are durable after the next [`SledRecords::sync`].
    pub(super) fn apply(&self, writes: &[RecordWrite]) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for write in writes {
            match write {
                RecordWrite::Put(key, record) => {
                    assert!(record.len() <= RECORD_MAX, "record {} would be a blob", hex(key));
                    batch.insert(&key[..], &record[..]);
                }
                RecordWrite::Delete(key) => batch.remove(&key[..]),
            }
        }
        self.guarded("write", || self.db.apply_batch(batch))
    }

    /// Puts everything on stable storage.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.guarded("flush", || self.db.flush())?;
        self.file.sync_data().map_err(io_error("sync", &self.path.join("db")))?;
        for blob in self.blobs()? {
            let file = File::open(&blob).map_err(io_error("open", &blob))?;
            file.sync_all().map_err(io_error("sync", &blob))?;
        }
        Ok(())
    }

    /// The blob files that sled has made, against all precautions.
    pub(super) fn blobs(&self) -> Result<Vec<PathBuf>, EngineError> {
        let directory = self.path.join("blobs");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &directory)(error)),
        };
        let path = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.path());
        let blobs: Result<Vec<_>, _> = entries.map(path).collect();
        blobs.map_err(io_error("list", &directory))
    }

    fn guarded<T>(
        &self,
        act: &'static str,
        call: impl FnOnce() -> sled::Result<T>,
    ) -> Result<T, EngineError> {
        guarded(act, &self.path, call)
    }
}

/// Waits until sled's threads have let go of the file after an earlier engine of this process was
/// dropped: sled locks it, and does not wait itself. Nobody else can have it, since the engine has
/// locked the directory.
fn await_release(path: &Path) -> std::io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let deadline = Instant::now() + RELEASE_MAX;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(RELEASE_POLL);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Calls sled, which panics on some damaged files: that too is an error here.
fn guarded<T>(
    act: &'static str,
    path: &Path,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, EngineError> {
    // Nothing of this engine is left half done by a call: after an error it is not called again.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| failed(act, path, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).to_owned()));
            Err(EngineError::Damaged {
                path: path.display().to_string(),
                offset: "an unknown place".to_owned(),
                reason: format!("sled panics to {act} it: {}", text.unwrap_or_default()),
            })
        }
    }
}

fn to_bytes(bytes: &sled::IVec) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn failed(act: &'static str, path: &Path, error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(source) => io_error(act, path)(source),
        sled::Error::Corruption { at, .. } => EngineError::Damaged {
            path: path.display().to_string(),
            offset: at.map_or_else(|| "an unknown place".to_owned(), |at| format!("{at:?}")),
            reason: "sled finds it corrupted".to_owned(),
        },
        other => io_error(act, path)(std::io::Error::other(other.to_string())),
    }
}
