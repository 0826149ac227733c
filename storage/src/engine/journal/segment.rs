//! [`Segment`]: one file of the journal.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::{FORMAT, Sequence};
use crate::engine::{EngineError, io_error};

const MAGIC: [u8; 4] = *b"KTKJ";

pub(super) const SEGMENT_HEADER_BYTES: u64 = 64;
const HEADER_BYTES: usize = 64;

/// Where the checksum stands in the header; it covers what is before it.
const CHECKSUM_AT: usize = 32;

/// How much is written at a time when a file is allocated.
const ALLOCATION_BYTES: u64 = 1 << 20;

/// A segment that records are read from or written to.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    number: u64,
    salt: u64,
    size: u64,
    /// Where the next record goes.
    end: u64,
}

/// How large a file must be for a record of this size.
pub(super) const fn size_for(record: u64) -> u64 {
    SEGMENT_HEADER_BYTES + record
}

/// The largest record that a file of this size takes.
pub(super) const fn capacity(size: u64) -> u64 {
    size - SEGMENT_HEADER_BYTES
}

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) first: Sequence,
    pub(super) salt: u64,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&FORMAT.to_le_bytes());
        header[8..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..24].copy_from_slice(&self.first.to_le_bytes());
        header[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32fast::hash(&header[..CHECKSUM_AT]);
        header[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// The header at the beginning of a segment's bytes.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, EngineError> {
        let damaged = |reason| super::recover::damaged(path, 0, reason);
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| damaged("shorter than a header"))?;
        let word = |from: usize| {
            let bytes = header[from..from + 8].try_into();
            u64::from_le_bytes(bytes.expect("a range of eight must have eight bytes"))
        };
        let half = |from: usize| {
            let bytes = header[from..from + 4].try_into();
            u32::from_le_bytes(bytes.expect("a range of four must have four bytes"))
        };
        if header[..4] != MAGIC {
            return Err(damaged("not a segment of a journal"));
        }
        if crc32fast::hash(&header[..CHECKSUM_AT]) != half(CHECKSUM_AT) {
            return Err(damaged("the checksum of the header does not match"));
        }
        if half(4) != FORMAT {
            let path = path.display().to_string();
            return Err(EngineError::Version { path, found: half(4), expected: FORMAT });
        }
        Ok(Self { number: word(8), first: word(16), salt: word(24) })
    }
}

/// Where the segment with this number is.
pub(super) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.seg"))
}

/// The number of the segment at `path`; `None` where it is no segment.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    u64::from_str_radix(name, 16).ok()
}

/// Allocates a file on disk, with zeros, synced, and out of the page cache: small appends to pages
/// that were cached in large folios would dirty all of a folio.
pub(super) fn allocate(path: &Path, size: u64) -> Result<(), EngineError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; usize::try_from(ALLOCATION_BYTES).unwrap_or(1 << 20)];
        let mut left = size;
        while left > 0 {
            let bytes = left.min(ALLOCATION_BYTES);
            file.write_all(&zeros[..usize::try_from(bytes).unwrap_or(zeros.len())])?;
            left -= bytes;
        }
        file.sync_all()?;
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(())
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(path); // half a file would only take room
        io_error("allocate", path)(source)
    })
}

impl Segment {
    /// Makes a spare file the segment `number`, whose first record is to be `first`. The header is
    /// on disk before the file has the name of a segment: a segment without one is damaged.
    pub(super) fn begin(
        directory: &Path,
        directory_file: &File,
        spare: &Path,
        number: u64,
        first: Sequence,
    ) -> Result<Self, EngineError> {
        let salt = RandomState::new().hash_one((number, first, std::process::id()));
        let file = OpenOptions::new().read(true).write(true).open(spare);
        let file = file.map_err(io_error("open", spare))?;
        let header = Header { number, first, salt }.encode();
        file.write_all_at(&header, 0).map_err(io_error("write", spare))?;
        file.sync_data().map_err(io_error("sync", spare))?;
        let size = file.metadata().map_err(io_error("read", spare))?.len();
        let path = path_of(directory, number);
        std::fs::rename(spare, &path).map_err(io_error("rename", spare))?;
        directory_file.sync_all().map_err(io_error("sync", directory))?;
        Ok(Self { file, path, number, salt, size, end: SEGMENT_HEADER_BYTES })
    }

    /// A segment that was found, to be continued at `end`.
    pub(super) fn resume(path: PathBuf, header: Header, end: u64) -> Result<Self, EngineError> {
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        let size = file.metadata().map_err(io_error("read", &path))?.len();
        let Header { number, salt, .. } = header;
        Ok(Self { file, path, number, salt, size, end })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn salt(&self) -> u64 {
        self.salt
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn has_room(&self, bytes: u64) -> bool {
        self.end + bytes <= self.size
    }

    /// Writes a record and waits until it is on stable storage (R1).
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), EngineError> {
        self.file.write_all_at(record, self.end).map_err(io_error("write", &self.path))?;
        self.sync()?;
        self.end += record.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }
}
