//! [`Stepper`]: brings what the journal has acknowledged into sled, in large steps.
//!
//! One step: freeze the overlay's layer, once its last record is durable in the journal; write it to
//! sled as pages; sync sled; write the checkpoint, which says up to which record sled has everything
//! (not so far as the log is held back from it).
//! The checkpoint itself becomes durable with the next step's sync, and only then are the journal's
//! segments before it used again. Any crash in between leaves records in the journal whose replay
//! changes nothing or what is still missing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::{Freeze, Shared};
use crate::codec;
use crate::engine::journal::{SEGMENT_BYTES, Sequence, allocate_spare};
use crate::engine::overlay::{Layer, TreeLayer};
use crate::engine::page::{self, Entry, FRAGMENT_BYTES, INLINE_MAX, Rewrite, Stored};
use crate::engine::pages::{Pages, clipped, fragment_count, fragment_key, record_key};
use crate::engine::room::{self, Room};
use crate::engine::sled::{BATCH_MAX, RecordWrite};
use crate::engine::{EngineError, Tree, io_error};

/// How much waits in the overlay before a step is due at once.
pub(super) const STEP_BYTES: usize = 4 << 20;

/// How long a little may wait for its step.
const STEP_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Stepper {
    shared: Arc<Shared>,
    next_fragment: u64,
    /// When room is to be kept next.
    keep_room_at: Instant,
    /// The checkpoint that is written but not yet synced.
    checkpoint: Option<Sequence>,
    /// Changes of records that are not yet given to sled.
    writes: Vec<RecordWrite>,
    /// Fragments to remove once nothing refers to them.
    dropped: Vec<(u64, u64)>,
}

/// Stops the engine if its thread panics: otherwise writers would wait for a step for ever.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the thread that writes to sled panicked".to_owned();
            self.0.stop(&EngineError::Stopped { reason });
        }
    }
}

impl Stepper {
    pub(super) fn new(
        shared: Arc<Shared>,
        checkpoint: Option<Sequence>,
    ) -> Result<Self, EngineError> {
        let next_fragment = shared.pages.next_fragment()?;
        let (writes, dropped) = (Vec::new(), Vec::new());
        let keep_room_at = Instant::now();
        Ok(Self { shared, next_fragment, keep_room_at, checkpoint, writes, dropped })
    }

    pub(super) fn run(mut self) {
        let _guard = StopOnPanic(Arc::clone(&self.shared));
        if let Err(error) = self.work() {
            self.shared.stop(&error);
        }
    }

    fn work(&mut self) -> Result<(), EngineError> {
        while self.wait()? {
            self.step()?;
        }
        Ok(())
    }

    /// Allocates ahead what sled and the journal will write next, and says whether there is room.
    fn keep_room(&mut self) -> Result<(), EngineError> {
        self.keep_room_at = Instant::now() + STEP_EVERY;
        let path = self.shared.pages.records.file_path();
        let kept = room::judge(self.shared.reserve.keep()).map_err(io_error("allocate", &path))?;
        let room = match self.provide_spares() {
            Ok(()) => kept,
            Err(error) if room::is_for_want_of_room(&error) => Room::Reserve,
            Err(error) => return Err(error),
        };
        // Who waits for room says itself that none is left, at each attempt.
        if room == Room::Ample || self.shared.gauge.get() == Room::Ample {
            self.shared.gauge.set(room);
        }
        Ok(())
    }

    /// Waits until a step is due; `false` when there is to be none any more.
    fn wait(&mut self) -> Result<bool, EngineError> {
        let due = Instant::now() + STEP_EVERY;
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        loop {
            if self.keep_room_at <= Instant::now() {
                MutexGuard::unlocked(&mut queue, || self.keep_room())?;
            }
            if shared.closing.load(Ordering::SeqCst) || shared.stopped.get().is_some() {
                return Ok(false);
            }
            let now = Instant::now();
            if queue.steps.wanted > queue.steps.begun {
                return Ok(true);
            }
            if queue.active_bytes >= STEP_BYTES || (queue.active_bytes > 0 && now >= due) {
                return Ok(true);
            }
            let most = if now < due { due - now } else { STEP_EVERY };
            shared.step_due.wait_for(&mut queue, most);
        }
    }

    fn step(&mut self) -> Result<(), EngineError> {
        let begun = Instant::now();
        self.keep_room()?;
        let (layer, sequence) = self.freeze()?;
        self.write_layer(&layer)?;
        self.shared.pages.records.sync()?;
        if let Some(checkpoint) = self.checkpoint {
            self.shared.journal.lock().release(checkpoint)?;
        }
        let (key, record) = Pages::checkpoint_record(sequence);
        self.shared.pages.records.apply(&[RecordWrite::Put(key, record)])?;
        self.checkpoint = Some(sequence);
        self.shared.timings.step.observe(begun.elapsed());
        self.shared.overlay.write().thaw();
        self.shared.queue.lock().steps.ended += 1;
        self.shared.room.notify_all();
        Ok(())
    }

    /// Allocates the journal's next segments here, so that no writer has to wait for that.
    fn provide_spares(&self) -> Result<(), EngineError> {
        loop {
            let wanted = self.shared.journal.lock().spare_path();
            let Some(path) = wanted else { return Ok(()) };
            allocate_spare(&path, SEGMENT_BYTES)?;
            self.shared.journal.lock().add_spare(path);
        }
    }

    /// Takes over the overlay's layer, with the journal's record up to which sled will then have
    /// everything.
    fn freeze(&self) -> Result<(Arc<Layer>, Sequence), EngineError> {
        let mut queue = self.shared.queue.lock();
        queue.freeze = Freeze::Wanted;
        queue.steps.begun += 1;
        loop {
            self.shared.refuse_if_stopped()?;
            match std::mem::replace(&mut queue.freeze, Freeze::No) {
                Freeze::Done(layer, sequence) => return Ok((layer, sequence)),
                Freeze::Wanted if !queue.committing => {
                    queue.freeze = Freeze::Wanted;
                    queue = self.shared.lead(queue)?;
                }
                // A leader is at work: it, or one that comes after it, will freeze.
                other => {
                    queue.freeze = other;
                    self.shared.committed.wait(&mut queue);
                }
            }
        }
    }

    fn write_layer(&mut self, layer: &Layer) -> Result<(), EngineError> {
        for (tree, changes) in layer.trees() {
            for (start, before) in &changes.cleared {
                self.clear(tree, start, before)?;
                // The next range may touch the same page: it must find it as this one leaves it.
                self.give()?;
            }
            self.merge(tree, changes)?;
            self.give()?;
        }
        self.remove_dropped()
    }

    /// Removes what sled has between two keys.
    fn clear(&mut self, tree: Tree, start: &Bytes, before: &Bytes) -> Result<(), EngineError> {
        let shared = Arc::clone(&self.shared);
        let mut page = match shared.pages.page_of(tree, start)? {
            Some(page) => Some(page),
            None => shared.pages.page_after(tree, start)?,
        };
        while let Some((page_key, entries)) = page.filter(|(key, _)| key < before) {
            page = shared.pages.page_after(tree, &page_key)?;
            let entries = clipped(entries, page.as_ref().map(|(key, _)| key));
            let cleared = |key: &Bytes| key >= start && key < before;
            let gone: Vec<_> = entries.iter().map(|(key, _)| key).filter(|k| cleared(k)).collect();
            let changes: Vec<_> = gone.into_iter().map(|key| (key.clone(), None)).collect();
            self.replace(tree, Some(&page_key), page::rewrite(entries, changes))?;
        }
        Ok(())
    }

    /// Merges the changed keys of a tree into its pages, each page once.
    fn merge(&mut self, tree: Tree, changes: &TreeLayer) -> Result<(), EngineError> {
        let shared = Arc::clone(&self.shared);
        let mut points = changes.points.iter().peekable();
        while let Some((first, _)) = points.peek() {
            let page = shared.pages.page_of(tree, first)?;
            let position = page.as_ref().map_or(*first, |(key, _)| key);
            let upper = shared.pages.page_after(tree, position)?.map(|(key, _)| key);
            let mut of_page = Vec::new();
            while let Some((key, value)) =
                points.next_if(|(key, _)| upper.as_ref().is_none_or(|upper| *key < upper))
            {
                let stored = value.as_ref().map(|value| self.store(value)).transpose()?;
                of_page.push((key.clone(), stored));
            }
            let (page_key, entries) = page.unzip();
            let entries = clipped(entries.unwrap_or_default(), upper.as_ref());
            let rewritten = page::rewrite(entries, of_page);
            self.replace(tree, page_key.as_ref(), rewritten)?;
        }
        Ok(())
    }

    /// Puts what a page came to in its place. `page_key` is its key where there was one.
    fn replace(
        &mut self,
        tree: Tree,
        page_key: Option<&Bytes>,
        rewritten: Rewrite,
    ) -> Result<(), EngineError> {
        if !rewritten.changed {
            return Ok(());
        }
        self.dropped.extend(rewritten.dropped);
        if rewritten.pages.is_empty()
            && let Some(key) = page_key
        {
            self.trim_before(tree, key)?;
            self.writes.push(RecordWrite::Delete(record_key(tree, key)));
        }
        // A page and what is split off it change in one batch of sled wherever they fit into one;
        // where they do not, the later ones go first, so that nothing is ever missing.
        for (position, entries) in rewritten.pages.iter().enumerate().rev() {
            let first = &entries[0].0;
            let key = if position == 0 { page_key.unwrap_or(first) } else { first };
            self.writes.push(RecordWrite::Put(record_key(tree, key), page::encode(entries)));
            if self.writes.len() >= BATCH_MAX {
                self.give()?;
            }
        }
        Ok(())
    }

    /// Takes from the page before the one with this key, which is to go, what a crash in the middle
    /// of a split left there of it: without that page it would come back to light.
    fn trim_before(&mut self, tree: Tree, key: &Bytes) -> Result<(), EngineError> {
        let shared = Arc::clone(&self.shared);
        let is_trimmed = |entries: &[Entry]| entries.last().is_none_or(|(last, _)| last < key);
        if shared.pages.page_before(tree, key)?.is_none_or(|(_, entries)| is_trimmed(&entries)) {
            return Ok(());
        }
        // This step may have changed that page, too, and not given it yet.
        self.give()?;
        if let Some((before, entries)) = shared.pages.page_before(tree, key)?
            && !is_trimmed(&entries)
        {
            let entries = clipped(entries, Some(key));
            self.writes.push(RecordWrite::Put(record_key(tree, &before), page::encode(&entries)));
        }
        Ok(())
    }

    /// How a value is kept; the fragments of a large one go to sled before what refers to them.
    fn store(&mut self, value: &Bytes) -> Result<Stored, EngineError> {
        if value.len() <= INLINE_MAX {
            return Ok(Stored::Inline(value.clone()));
        }
        let (id, bytes) = (self.next_fragment, value.len() as u64);
        self.next_fragment += 1;
        for (number, start) in (0..fragment_count(bytes)).zip((0..).step_by(FRAGMENT_BYTES)) {
            let fragment = value.slice(start..value.len().min(start + FRAGMENT_BYTES));
            let record = codec::encode(&fragment);
            self.writes.push(RecordWrite::Put(fragment_key(id, number), record));
            if self.writes.len() >= BATCH_MAX {
                self.give()?;
            }
        }
        Ok(Stored::Fragments { id, bytes })
    }

    fn remove_dropped(&mut self) -> Result<(), EngineError> {
        if self.dropped.is_empty() {
            return Ok(());
        }
        self.shared.pages.await_readers();
        for (id, bytes) in std::mem::take(&mut self.dropped) {
            for number in 0..fragment_count(bytes) {
                self.writes.push(RecordWrite::Delete(fragment_key(id, number)));
                if self.writes.len() >= BATCH_MAX {
                    self.give()?;
                }
            }
        }
        self.give()
    }

    fn give(&mut self) -> Result<(), EngineError> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.shared.pages.records.apply(&self.writes)?;
        self.writes.clear();
        Ok(())
    }
}
