//! A snapshot as a file: what the etcd API streams to who asks for one, and what `kontiki snapshot`
//! reads.
//!
//! ```text
//! "kontiki snapshot 1\n"
//! frames:    length u32 BE | chunk of storage/src/snapshot.rs
//! end:       0 u32 | zeros up to a multiple of 512 bytes
//! checksum:  SHA-256 of all before
//! ```
//!
//! etcd streams its database file with a checksum behind it. Its clients look at neither, except
//! that what they have received must be a checksum longer than some number of 512-byte blocks.

use std::io::{self, Read};

use bytes::{BufMut as _, Bytes, BytesMut};
use kontiki_storage::error::StoreError;
use kontiki_storage::snapshot::{Inspection, Snapshot, Summary};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const MAGIC: &[u8] = b"kontiki snapshot 1\n";

const LENGTH_BYTES: usize = 4;

const BLOCK_BYTES: u64 = 512;

const CHECKSUM_BYTES: usize = 32;

/// Why a file is no snapshot that can be used.
#[derive(Debug, Error)]
pub enum SnapshotFileError {
    /// It cannot be read.
    #[error("read the snapshot")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is not a snapshot that kontiki has saved; etcd's own files cannot be read")]
    Foreign,
    /// It is not as it was written.
    #[error("the snapshot is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// What it holds is no state of a store, or cannot be put into one.
    #[error("the snapshot cannot be used")]
    Store(#[from] StoreError),
}

fn damaged(reason: impl ToString) -> SnapshotFileError {
    SnapshotFileError::Damaged { reason: reason.to_string() }
}

/// A snapshot being written, part by part. Reading blocks.
pub struct Export {
    snapshot: Snapshot,
    hash: Sha256,
    total_bytes: u64,
    written_bytes: u64,
    ended: bool,
}

impl Export {
    /// Measures the snapshot, which reads it once.
    pub fn of(snapshot: Snapshot) -> Result<Self, StoreError> {
        let mut bytes = (MAGIC.len() + LENGTH_BYTES) as u64;
        let mut measured = snapshot.again();
        while let Some(chunk) = measured.next_chunk()? {
            bytes += (LENGTH_BYTES + chunk.len()) as u64;
        }
        let total_bytes = bytes.next_multiple_of(BLOCK_BYTES) + CHECKSUM_BYTES as u64;
        Ok(Self { snapshot, hash: Sha256::new(), total_bytes, written_bytes: 0, ended: false })
    }

    /// How many bytes are still to come.
    pub fn remaining_bytes(&self) -> u64 {
        self.total_bytes - self.written_bytes
    }

    /// The next part; `None` after the last.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let mut part = BytesMut::new();
        if self.written_bytes == 0 {
            part.put_slice(MAGIC);
        }
        match self.snapshot.next_chunk()? {
            Some(chunk) => {
                let length = u32::try_from(chunk.len()).map_err(|_| StoreError::Snapshot {
                    reason: format!("a chunk has {} bytes", chunk.len()),
                })?;
                part.put_u32(length);
                part.put_slice(&chunk);
                self.hash.update(&part);
            }
            None => self.end(&mut part),
        }
        self.written_bytes += part.len() as u64;
        Ok(Some(part.freeze()))
    }

    fn end(&mut self, part: &mut BytesMut) {
        part.put_u32(0);
        let at = self.written_bytes + part.len() as u64;
        let padding = at.next_multiple_of(BLOCK_BYTES) - at;
        part.put_bytes(0, usize::try_from(padding).expect("it must be less than a block"));
        self.hash.update(&*part);
        part.put_slice(&std::mem::take(&mut self.hash).finalize());
        self.ended = true;
    }
}

/// Reads and adds up what is read.
struct Summed<R> {
    reader: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Summed<R> {
    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, SnapshotFileError> {
        let mut taken = Vec::new();
        let count = self.reader.by_ref().take(bytes).read_to_end(&mut taken)? as u64;
        if count < bytes {
            return Err(damaged("it is cut short"));
        }
        self.hash.update(&taken);
        self.bytes += bytes;
        Ok(taken)
    }

    fn length(&mut self) -> Result<u64, SnapshotFileError> {
        let bytes = self.take(LENGTH_BYTES as u64)?;
        let bytes = bytes.try_into().expect("as many bytes must have been read");
        Ok(u64::from(u32::from_be_bytes(bytes)))
    }

    fn end(mut self) -> Result<(), SnapshotFileError> {
        let padding = self.bytes.next_multiple_of(BLOCK_BYTES) - self.bytes;
        if self.take(padding)?.iter().any(|byte| *byte != 0) {
            return Err(damaged("its padding holds something"));
        }
        let sum = std::mem::take(&mut self.hash).finalize();
        if self.take(CHECKSUM_BYTES as u64)? != sum.as_slice() {
            return Err(damaged("it fails its checksum"));
        }
        match self.reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(damaged("something stands behind its checksum")),
        }
    }
}

/// Reads a file, calling `each` with every chunk. What was called counts only if all went well: the
/// checksum comes last.
pub fn read(
    reader: impl Read,
    each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), SnapshotFileError> {
    let mut file = Summed { reader, hash: Sha256::new(), bytes: 0 };
    match file.take(MAGIC.len() as u64) {
        Ok(magic) if magic == MAGIC => {}
        Ok(_) | Err(SnapshotFileError::Damaged { .. }) => return Err(SnapshotFileError::Foreign),
        Err(error) => return Err(error),
    }
    loop {
        match file.length()? {
            0 => return file.end(),
            length => {
                let chunk = file.take(length)?;
                each(&chunk).map_err(damaged)?;
            }
        }
    }
}

/// Checks all of a file and says what it holds.
pub fn verify(reader: impl Read) -> Result<Summary, SnapshotFileError> {
    let mut inspection = Inspection::default();
    read(reader, &mut |chunk| inspection.push(chunk))?;
    inspection.finish().map_err(damaged)
}

#[cfg(test)]
mod tests;
