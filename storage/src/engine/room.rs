//! Room on the disk that is kept aside, so that a full disk stops nothing but growth.
//!
//! Behind the end of sled's file some blocks are allocated beforehand, and the journal has segments
//! to spare. As long as both can be had there is ample room. When they cannot, [`Room::Reserve`] is
//! told to those who would make the store grow, who are to refuse that; what is under way, and what
//! is deleted and compacted from then on, lives on the reserve. Nobody needs to disarm anything: it
//! is tried again all the time.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::EngineError;

/// How much is allocated behind the end of sled's file.
pub(super) const RESERVE_BYTES: u64 = 32 << 20;

/// How many segments the journal has to spare.
pub(super) const SPARES_MIN: usize = 2;

/// How much room an engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Ample,
    /// What was kept aside: nothing should be written that makes it grow.
    Reserve,
    /// Not even that: writes wait until there is some.
    Exhausted,
}

/// The room of an engine, told by those who allocate and read by all.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU8);

impl Gauge {
    pub(super) fn get(&self) -> Room {
        match self.0.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Reserve,
            _ => Room::Exhausted,
        }
    }

    /// Says so in the log where it is news.
    pub(super) fn set(&self, room: Room) {
        let before = self.get();
        self.0.store(room as u8, Ordering::Relaxed);
        match (before, room) {
            (before, now) if before == now => {}
            (_, Room::Ample) => tracing::info!("there is room on the disk again"),
            (_, Room::Reserve) => {
                tracing::warn!("the disk is full: what makes the store grow is refused");
            }
            (_, Room::Exhausted) => {
                tracing::error!("the disk is full, and so is what was kept aside: writes wait");
            }
        }
    }
}

/// Whether a write failed for want of room, and may be done again. A failed sync may not.
pub(super) fn is_for_want_of_room(error: &EngineError) -> bool {
    let EngineError::Io { act, source, .. } = error else { return false };
    *act != "sync" && is_full(source)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Where blocks can be allocated ahead of their use.
pub(super) trait Reserve: Send + Sync {
    /// Sees to it that [`RESERVE_BYTES`] more can be written behind the end of the file.
    fn keep(&self) -> io::Result<()>;
}

impl Reserve for File {
    fn keep(&self) -> io::Result<()> {
        let end = self.metadata()?.len();
        match fallocate(self, FallocateFlags::KEEP_SIZE, end, RESERVE_BYTES) {
            // Some file systems cannot: there a full disk is met when it is.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// What came of keeping room.
pub(super) fn judge(kept: io::Result<()>) -> io::Result<Room> {
    match kept {
        Ok(()) => Ok(Room::Ample),
        Err(error) if is_full(&error) => Ok(Room::Reserve),
        Err(error) => Err(error),
    }
}
