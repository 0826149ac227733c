//! [`DiskEngine`]: batches on disk, acknowledged by a journal and kept by sled.
//!
//! ```text
//!  write ──▶ buffer ──one leader for all who wait──▶ journal: append, fdatasync ──▶ acknowledged
//!    │                                                  │
//!    └─────▶ overlay in memory ──step, on a thread──▶ sled: pages, flush, fdatasync
//!               ▲                                       │
//!             reads          the journal's segments that nothing needs any more are used again
//! ```
//!
//! A writer that needs its batch durable either finds a commit under way and waits for the next, or
//! leads: it takes all that has been buffered, appends it as one record, syncs once and wakes the
//! others. sled follows in large steps, without the young end of the Raft log (`held.rs`). Opening
//! replays into the overlay what sled may not have.
//!
//! After a failed write or sync nothing is known of what is on disk: the engine stops, refuses every
//! later write, and the process must open it anew. A full disk is no such failure: what the journal
//! has no room for waits (`room.rs`).

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::journal::record::{self, RECORD_HEADER_BYTES};
use super::journal::{Journal, Sequence};
use super::lock::DirectoryLock;
use super::overlay::{Frozen, Layer, Overlay};
use super::pages::Pages;
use super::room::{self, Gauge, Reserve};
use super::running::Running;
use super::sled::segments;
use super::timing::Timings;
use super::{Batch, Durability, Engine, EngineError, Room, Tree, Visit, directory_bytes, io_error};

mod read;
mod step;

/// How much of batches that need not be durable yet is buffered before it is written anyway.
const BUFFER_MAX: usize = 1 << 20;

/// How much may wait for sled before writers wait too.
const OVERLAY_MAX: usize = 48 << 20;

/// How often a writer that waits for room looks whether the engine has stopped.
const ROOM_WAIT: Duration = Duration::from_millis(50);

/// An engine in a directory.
pub struct DiskEngine {
    directory: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// A commit has ended, or the engine has stopped.
    committed: Condvar,
    /// Wakes the thread that steps.
    step_due: Condvar,
    /// A step has ended: there is room in the overlay.
    room: Condvar,
    journal: Mutex<Journal>,
    overlay: RwLock<Overlay>,
    pages: Pages,
    stopped: OnceLock<String>,
    closing: AtomicBool,
    gauge: Gauge,
    timings: Timings,
    /// What keeps room for sled's file.
    reserve: Box<dyn Reserve>,
    running: Running,
    /// Held as long as anything here may still write.
    _lock: DirectoryLock,
}

/// Batches on their way to the journal, numbered from 1 in the order of their writes.
#[derive(Debug)]
struct Queue {
    /// One record: room for its header, then the writes of the batches not yet taken.
    buffer: Vec<u8>,
    /// A buffer to be used again.
    spare: Vec<u8>,
    /// The last batch that was written.
    written: u64,
    /// The last batch that is durable.
    durable: u64,
    /// A leader is appending to the journal.
    committing: bool,
    /// The next leader is to freeze the overlay with what it takes.
    freeze: Freeze,
    /// The journal's last record with anything of the layer that was frozen last.
    frozen_upto: Sequence,
    active_bytes: usize,
    /// How many steps have begun and ended, and how many are asked for.
    steps: Steps,
}

#[derive(Debug, Default)]
struct Steps {
    begun: u64,
    ended: u64,
    wanted: u64,
}

/// The handing over of the overlay to a step.
#[derive(Debug)]
enum Freeze {
    No,
    Wanted,
    /// The layer, and the journal's record up to which sled has everything once it has that.
    Done(Arc<Layer>, Sequence),
}

impl DiskEngine {
    /// Opens the engine in `directory`, or creates it there.
    pub fn open(directory: &Path) -> Result<Self, EngineError> {
        Self::open_with(directory, |pages| pages.records.reserve())
    }

    /// The same with another reserve: a test's.
    fn open_with(
        directory: &Path,
        reserve: impl FnOnce(&Pages) -> Result<Box<dyn Reserve>, EngineError>,
    ) -> Result<Self, EngineError> {
        std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let lock = DirectoryLock::acquire(directory)?;
        let mut running = Running::begin(directory)?;
        let is_whole = check_segments(&directory.join("sled"), running.after_power_cut)?;
        let pages = Pages::open(&directory.join("sled"))?;
        // What the last process wrote may stand in the page cache alone. The journal's segments
        // before the checkpoint are used again: nothing may depend on them after a power cut.
        pages.records.sync()?;
        if is_whole {
            running.settled()?;
        }
        let checkpoint = pages.checkpoint()?;
        let mut overlay = Overlay::default();
        let journal_directory = directory.join("journal");
        let journal = Journal::open(&journal_directory, checkpoint, &mut |writes| {
            let batch = record::decode(writes).ok_or_else(|| EngineError::Damaged {
                path: journal_directory.display().to_string(),
                offset: "a record with a good checksum".to_owned(),
                reason: "its writes cannot be decoded".to_owned(),
            })?;
            overlay.apply(batch);
            Ok(())
        })?;
        sync_names(directory)?;
        let reserve = reserve(&pages)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(overlay.active_bytes(), checkpoint.unwrap_or_default())),
            committed: Condvar::new(),
            step_due: Condvar::new(),
            room: Condvar::new(),
            journal: Mutex::new(journal),
            overlay: RwLock::new(overlay),
            pages,
            stopped: OnceLock::new(),
            closing: AtomicBool::new(false),
            gauge: Gauge::default(),
            timings: Timings::default(),
            reserve,
            running,
            _lock: lock,
        });
        let stepper = step::Stepper::new(Arc::clone(&shared), checkpoint)?;
        let thread = std::thread::Builder::new()
            .name("engine-step".to_owned())
            .spawn(move || stepper.run())
            .map_err(io_error("start a thread for", directory))?;
        Ok(Self { directory: directory.to_owned(), shared, thread: Some(thread) })
    }
}

/// Whether sled's file is whole; one that is damaged is refused. After a power cut, what had not been
/// synced looks like damage, too: then the journal has it, and what it does not have is found by the
/// peers' hashes. It stays in the file until sled uses its segment again, so it is tolerated until then.
fn check_segments(path: &Path, after_power_cut: bool) -> Result<bool, EngineError> {
    match segments::check(&path.join("db")) {
        Ok(()) => Ok(true),
        Err(error @ EngineError::Damaged { .. }) if after_power_cut => {
            tracing::warn!(%error, "taken for what the power cut left unfinished");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Makes the names of the engine's directories and of sled's files durable: a file that was synced
/// is lost in a power cut all the same if its name was not.
fn sync_names(directory: &Path) -> Result<(), EngineError> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    for path in [&directory.join("sled"), directory, parent] {
        match File::open(path) {
            Ok(file) => file.sync_all().map_err(io_error("sync", path))?,
            // Who made the directory for this process need not let it see what lies beside it.
            Err(error) if path == parent && error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(io_error("open", path)(error)),
        }
    }
    Ok(())
}

impl DiskEngine {
    /// Brings all that is written so far into sled, as happens by itself in the background.
    pub fn settle(&self) -> Result<(), EngineError> {
        let mut queue = self.shared.queue.lock();
        let wanted = queue.steps.begun + 1;
        queue.steps.wanted = wanted;
        while queue.steps.ended < wanted {
            self.shared.refuse_if_stopped()?;
            self.shared.step_due.notify_one();
            self.shared.room.wait_for(&mut queue, ROOM_WAIT);
        }
        Ok(())
    }

    /// The blob files that sled has made, against all precautions: there must be none.
    pub fn blobs(&self) -> Result<Vec<PathBuf>, EngineError> {
        self.shared.pages.records.blobs()
    }
}

impl Drop for DiskEngine {
    fn drop(&mut self) {
        // Who waits for room waits no longer.
        self.shared.closing.store(true, Ordering::SeqCst);
        // What was written without need to be durable is made so where that still works.
        let _ = self.shared.sync();
        {
            let _queue = self.shared.queue.lock();
            self.shared.step_due.notify_all();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes to sled panicked");
        }
        if self.shared.stopped.get().is_none() && self.shared.pages.records.sync().is_ok() {
            self.shared.running.end();
        }
    }
}

impl Queue {
    fn new(active_bytes: usize, frozen_upto: Sequence) -> Self {
        Self {
            buffer: vec![0; RECORD_HEADER_BYTES],
            spare: Vec::new(),
            written: 0,
            durable: 0,
            committing: false,
            freeze: Freeze::No,
            frozen_upto,
            active_bytes,
            steps: Steps::default(),
        }
    }
}

impl Shared {
    fn refuse_if_stopped(&self) -> Result<(), EngineError> {
        match self.stopped.get() {
            Some(reason) => Err(EngineError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Makes the engine refuse everything from now on, and wakes all who wait.
    fn stop(&self, error: &EngineError) {
        let mut reason = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            reason = format!("{reason}: {source}");
        }
        tracing::error!(reason, "the engine stops");
        let _ = self.stopped.set(reason);
        let _queue = self.queue.lock();
        self.committed.notify_all();
        self.step_due.notify_all();
        self.room.notify_all();
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), EngineError> {
        super::check_bounds(&batch);
        let mut queue = self.queue.lock();
        while queue.active_bytes > OVERLAY_MAX && self.stopped.get().is_none() {
            self.step_due.notify_one();
            self.room.wait_for(&mut queue, ROOM_WAIT);
        }
        self.refuse_if_stopped()?;
        record::encode(&batch, &mut queue.buffer);
        queue.written += 1;
        {
            let mut overlay = self.overlay.write();
            overlay.apply(batch);
            queue.active_bytes = overlay.active_bytes();
        }
        if queue.active_bytes > step::STEP_BYTES {
            self.step_due.notify_one();
        }
        let upto = queue.written;
        if durability == Durability::Now || queue.buffer.len() > BUFFER_MAX {
            self.commit(queue, upto)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let queue = self.queue.lock();
        self.refuse_if_stopped()?;
        let upto = queue.written;
        self.commit(queue, upto)
    }

    /// Returns when the batches up to `upto` are durable, by leading a commit or by waiting for one.
    fn commit<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        upto: u64,
    ) -> Result<(), EngineError> {
        while queue.durable < upto {
            self.refuse_if_stopped()?;
            if queue.committing {
                self.committed.wait(&mut queue);
            } else {
                queue = self.lead(queue)?;
            }
        }
        Ok(())
    }

    /// Appends all that is buffered to the journal as one record. There must be no other leader.
    fn lead<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
    ) -> Result<MutexGuard<'a, Queue>, EngineError> {
        queue.committing = true;
        let upto = queue.written;
        let mut empty = std::mem::take(&mut queue.spare);
        empty.clear();
        empty.resize(RECORD_HEADER_BYTES, 0);
        let mut record = std::mem::replace(&mut queue.buffer, empty);
        let frozen = matches!(queue.freeze, Freeze::Wanted).then(|| {
            queue.freeze = Freeze::No;
            queue.active_bytes = 0;
            self.overlay.write().freeze(queue.frozen_upto)
        });
        drop(queue);

        let appended = self.append(&mut record);
        if let Err(error) = &appended {
            self.stop(error);
        }
        let mut queue = self.queue.lock();
        queue.committing = false;
        queue.spare = if record.capacity() <= 2 * BUFFER_MAX { record } else { Vec::new() };
        self.committed.notify_all();
        let sequence = appended?;
        queue.durable = upto;
        if let Some(Frozen { layer, held_after }) = frozen {
            queue.frozen_upto = sequence;
            queue.freeze = Freeze::Done(layer, held_after.unwrap_or(sequence));
        }
        Ok(queue)
    }
}

impl Shared {
    /// Appends a record to the journal, as soon as there is room for it: a full disk is no failure.
    fn append(&self, record: &mut Vec<u8>) -> Result<Sequence, EngineError> {
        loop {
            let appended = {
                let mut journal = self.journal.lock();
                if record.len() == RECORD_HEADER_BYTES {
                    return Ok(journal.last());
                }
                let begun = Instant::now();
                journal.append(record).inspect(|_| self.timings.append.observe(begun.elapsed()))
            };
            match appended {
                Err(error) if room::is_for_want_of_room(&error) => {
                    let is_given_up =
                        self.closing.load(Ordering::SeqCst) || self.stopped.get().is_some();
                    if is_given_up {
                        return Err(error);
                    }
                    self.gauge.set(Room::Exhausted);
                    // Without the journal's lock: a step may get segments back.
                    std::thread::sleep(ROOM_WAIT);
                }
                other => {
                    if self.gauge.get() == Room::Exhausted {
                        self.gauge.set(Room::Reserve);
                    }
                    return other;
                }
            }
        }
    }
}

impl Engine for DiskEngine {
    fn room(&self) -> Room {
        self.shared.gauge.get()
    }

    fn timings(&self) -> Option<&Timings> {
        Some(&self.shared.timings)
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), EngineError> {
        self.shared.write(batch, durability)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.shared.sync()
    }

    fn size_bytes(&self) -> Result<u64, EngineError> {
        directory_bytes(&self.directory)
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        read::get(&self.shared, tree, key)
    }

    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        read::scan(&self.shared, tree, from, to, visit)
    }

    fn last(&self, tree: Tree) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        read::last(&self.shared, tree)
    }
}

#[cfg(test)]
mod tests;
