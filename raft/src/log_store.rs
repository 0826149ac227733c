//! The Raft log: readable from memory at once, durable by one writer.
//!
//! ```text
//!  append ──▶ Memory (the tail, under a lock) ──▶ queue ──▶ writer: drain, one batch, one sync
//!                   ▲                                             │
//!  readers ─────────┘ older entries: records in the engine ◀──────┘──▶ IOFlushed for all
//! ```
//!
//! Votes and truncations go through the same queue, so that nothing overtakes anything. In the
//! engine, [`kontiki_storage::engine::Tree::Log`] holds records of consecutive entries under the
//! index of the first; `Tree::Raft` holds vote, committed and purged position (`records.rs`).

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kontiki_storage::engine::Engine;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use prost::Message as _;

use crate::config::Blocking;
use crate::error::NodeError;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::wire;

mod memory;
mod records;
mod writer;

use memory::Memory;
pub(crate) use records::{begin_behind, next_incarnation};
use writer::{Job, Queue};

/// How large one append message, or one read for applying, grows before it is cut.
const READ_BYTES: usize = 1 << 20;

/// The log of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    queue: Queue,
}

/// What the log's handles and its writer share.
pub(crate) struct Shared {
    engine: Arc<dyn Engine>,
    memory: Mutex<Memory>,
    /// The first index of each record in the engine.
    records: Mutex<BTreeSet<u64>>,
    /// Entries up to here are in the state on stable storage; the log may lose them (R2).
    durable_applied: AtomicU64,
}

impl LogStore {
    /// Opens the log in `engine`, refusing damaged records, and starts its writer.
    pub fn open(engine: Arc<dyn Engine>, blocking: Blocking) -> Result<Self, NodeError> {
        let (memory, records) = records::load(&*engine)?;
        let shared = Arc::new(Shared {
            engine,
            memory: Mutex::new(memory),
            records: Mutex::new(records),
            durable_applied: AtomicU64::new(u64::MAX),
        });
        let queue = Queue::start(&shared, blocking)?;
        Ok(Self { shared, queue })
    }

    /// Says up to which index the state is on stable storage. Before it is first said, nothing
    /// holds the purge back.
    pub(crate) fn set_durable_applied(&self, index: u64) {
        self.shared.durable_applied.store(index, Ordering::Release);
    }

    /// What the log holds, for inspection: of each entry its index, its term and a checksum.
    pub(crate) async fn lines(&self) -> io::Result<Vec<LogLine>> {
        let entries = self.read(0, u64::MAX, usize::MAX).await?;
        Ok(entries.iter().map(LogLine::of).collect())
    }

    /// The last entry, also where it is purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.shared.memory.lock().last()
    }

    /// The entries in `[start, end)` that are there, read on this thread.
    pub(crate) fn read_now(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let memory::Read { older, tail } = self.shared.memory.lock().read(start, end, READ_BYTES);
        if older.is_empty() { Ok(tail) } else { records::read(&self.shared, older, READ_BYTES) }
    }

    /// Ends the writer once everything queued is written, and waits for it.
    pub(crate) async fn close(&self) {
        self.queue.close().await;
    }

    /// The entries in `[start, end)` that are there, from the first on, about `bytes_max` of them
    /// and at least one.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let memory::Read { older, tail } = self.shared.memory.lock().read(start, end, bytes_max);
        if older.is_empty() {
            return Ok(tail);
        }
        let shared = Arc::clone(&self.shared);
        let older_end = older.end;
        let reading = move || records::read(&shared, older, bytes_max);
        let mut entries = match self.queue.blocking() {
            Blocking::Inline => reading()?,
            Blocking::Threads => {
                tokio::task::spawn_blocking(reading).await.map_err(io::Error::other)??
            }
        };
        let is_whole = entries.last().is_some_and(|last| last.log_id.index + 1 == older_end);
        let bytes: usize = entries.iter().map(memory::size_bytes).sum();
        if is_whole && bytes < bytes_max {
            entries.extend(tail);
        }
        Ok(entries)
    }
}

/// One entry of a log, as far as two logs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine {
    /// Its place.
    pub index: u64,
    /// The term that it was proposed in.
    pub term: u64,
    /// A checksum of what it says.
    pub checksum: u32,
}

impl LogLine {
    fn of(entry: &Entry) -> Self {
        let checksum = crc32fast::hash(&wire::entry_to(entry).encode_to_vec());
        Self { index: entry.log_id.index, term: entry.log_id.leader_id.term, checksum }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.memory.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.shared.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.shared.memory.lock().vote = Some(*vote);
        self.queue.submit_and_wait(|done| Job::Vote { vote: *vote, done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Written with the next batch: it needs no sync, and openraft can do with an older one.
        self.shared.memory.lock().set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.memory.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.shared.memory.lock().append(&entries);
        self.queue.submit(Job::Append { entries, callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep_before = last_log_id.map_or(0, |id| id.index + 1);
        self.shared.memory.lock().truncate(keep_before, last_log_id);
        self.queue.submit_and_wait(|done| Job::Truncate { keep_before, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.shared.memory.lock().purge(log_id);
        self.queue.submit(Job::Purge).await
    }
}

#[cfg(test)]
mod tests;
