//! [`Journal`]: what is acknowledged stands here first.
//!
//! A record holds what one group of callers committed together; it is written and synced before the
//! next one is begun. So of all records only the last can be torn by a crash, and it was never
//! acknowledged: it is cut off at open. A record that does not hold although a later one does was
//! damaged afterwards: the journal is refused.
//!
//! ```text
//!  journal/0000000000000007.seg        preallocated, so that a sync need not write metadata
//!  +----------------------------------------------------+
//!  | header, 64 bytes                                   |
//!  |   "KTKJ" format  number  first  salt  CRC          |   first: sequence of its first record
//!  +----------------------------------------------------+   salt: new at each reuse; checksums begin
//!  | record: "RCRD" CRC sequence length | writes | pad 8|         with it, so that what the file
//!  | record: …                                          |         held before never looks valid
//!  | what the file held before, or zeros                |
//!  +----------------------------------------------------+
//!  journal/spare-0.free                segments to be used again
//! ```
//!
//! Once sled has everything up to some record on stable storage, the segments before it are spare.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::room::SPARES_MIN;
use super::{EngineError, io_error};

pub(super) mod record;
mod recover;
mod segment;

use record::RECORD_HEADER_BYTES;
use segment::Segment;

/// The size of a segment; a record that is larger gets a segment of its own size.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// How many spare segments are kept; more are removed.
const SPARES_MAX: usize = 4;

/// The format of segments and records.
pub(super) const FORMAT: u32 = 1;

/// The number of a record in the journal, from 1 on, without gaps.
pub(super) type Sequence = u64;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    /// For syncing renames.
    directory_file: File,
    active: Segment,
    /// Full segments, oldest first, with the sequence of the last record of each.
    sealed: VecDeque<(Segment, Sequence)>,
    spares: Vec<PathBuf>,
    spare_number: u64,
    next: Sequence,
}

impl Journal {
    /// Opens the journal in `directory` and replays the records after `checkpoint`. `None` means
    /// that there has never been one; then it is created.
    pub(super) fn open(
        directory: &Path,
        checkpoint: Option<Sequence>,
        replay: &mut dyn FnMut(&[u8]) -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        recover::open(directory, checkpoint, replay)
    }

    /// The sequence of the last record.
    pub(super) fn last(&self) -> Sequence {
        self.next - 1
    }

    /// Writes one record and syncs it. `record` begins with [`RECORD_HEADER_BYTES`] bytes of room,
    /// the writes follow. After an error the journal must not be written to any more, except that a
    /// record for which there was no room may be tried again.
    pub(super) fn append(&mut self, record: &mut Vec<u8>) -> Result<Sequence, EngineError> {
        assert!(record.len() >= RECORD_HEADER_BYTES, "a record must have room for its header");
        let sequence = self.next;
        let size = record::padded(record.len()) as u64;
        if !self.active.has_room(size) {
            self.roll(size)?;
        }
        let length = record.len();
        record::seal(record, self.active.salt(), sequence);
        self.active.append(record).inspect_err(|_| record.truncate(length))?;
        self.next += 1;
        Ok(sequence)
    }

    /// Makes the segments spare whose records all have sequences up to `upto`.
    pub(super) fn release(&mut self, upto: Sequence) -> Result<(), EngineError> {
        while let Some((segment, last)) = self.sealed.front()
            && *last <= upto
        {
            let (path, size) = (segment.path().to_owned(), segment.size());
            self.sealed.pop_front();
            self.retire(&path, size)?;
        }
        Ok(())
    }

    /// Makes sure that the next segment need not be allocated by whoever fills this one.
    pub(super) fn spare_path(&mut self) -> Option<PathBuf> {
        (self.spares.len() < SPARES_MIN).then(|| self.new_spare_path())
    }

    /// Adds a file that was allocated at [`Journal::spare_path`].
    pub(super) fn add_spare(&mut self, path: PathBuf) {
        self.spares.push(path);
    }

    fn new_spare_path(&mut self) -> PathBuf {
        let number = self.spare_number;
        self.spare_number += 1;
        self.directory.join(format!("spare-{number}.free"))
    }

    fn retire(&mut self, path: &Path, size: u64) -> Result<(), EngineError> {
        if size != SEGMENT_BYTES || self.spares.len() >= SPARES_MAX {
            return std::fs::remove_file(path).map_err(io_error("remove", path));
        }
        let spare = self.new_spare_path();
        // If a crash undoes this rename, the segment is found and made spare again.
        std::fs::rename(path, &spare).map_err(io_error("rename", path))?;
        self.spares.push(spare);
        Ok(())
    }

    /// Begins the next segment, with room for a record of `size` bytes.
    fn roll(&mut self, size: u64) -> Result<(), EngineError> {
        let number = self.active.number() + 1;
        let spare = if size <= segment::capacity(SEGMENT_BYTES) { self.spares.pop() } else { None };
        let spare = if let Some(spare) = spare {
            spare
        } else {
            let path = self.new_spare_path();
            allocate_spare(&path, segment::size_for(size).max(SEGMENT_BYTES))?;
            path
        };
        let next =
            Segment::begin(&self.directory, &self.directory_file, &spare, number, self.next)?;
        let full = std::mem::replace(&mut self.active, next);
        self.sealed.push_back((full, self.next - 1));
        Ok(())
    }
}

/// Allocates a spare segment on disk.
pub(super) fn allocate_spare(path: &Path, size: u64) -> Result<(), EngineError> {
    segment::allocate(path, size)
}

#[cfg(test)]
mod tests;
