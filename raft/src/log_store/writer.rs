//! The one writer of the log: takes everything queued, writes it as one batch, syncs once, then
//! reports to all who wait (R1).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use kontiki_storage::engine::{Batch, Durability, EngineError, Tree};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Shared, memory, records};
use crate::config::Blocking;
use crate::error::NodeError;
use crate::runtime;
use crate::types::{Entry, TypeConfig, Vote};

/// How many jobs wait for the writer; beyond that the log makes openraft wait.
const QUEUE: usize = 4096;

/// How large a record of packed entries grows. One entry may be larger, alone.
const PACK_BYTES: usize = 16 << 10;

/// How many records a purge removes at a time, so that appends need not wait for it.
const PURGE_SLICE: usize = 128;

/// Tells who asked that a job is on stable storage.
pub(super) type DoneSender = oneshot::Sender<io::Result<()>>;

/// What the writer is asked for; done in this order.
pub(super) enum Job {
    Append { entries: Vec<Entry>, callback: IOFlushed<TypeConfig> },
    Vote { vote: Vote, done: DoneSender },
    Truncate { keep_before: u64, done: DoneSender },
    Purge,
    Stop,
}

/// The way to the writer.
#[derive(Clone)]
pub(super) enum Queue {
    Thread { jobs: mpsc::Sender<Job>, thread: Arc<Mutex<Option<JoinHandle<()>>>> },
    Task { jobs: mpsc::Sender<Job> },
}

impl Queue {
    pub(super) fn start(shared: &Arc<Shared>, blocking: Blocking) -> Result<Self, NodeError> {
        let mut writer = Writer { shared: Arc::clone(shared) };
        let (jobs, queue) = mpsc::channel(QUEUE);
        if blocking == Blocking::Inline {
            tokio::spawn(runtime::hosted(writer.run_as_task(queue)));
            return Ok(Self::Task { jobs });
        }
        let thread = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| NodeError::Log { reason: format!("start its writer: {error}") })?;
        Ok(Self::Thread { jobs, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    pub(super) fn blocking(&self) -> Blocking {
        match self {
            Self::Thread { .. } => Blocking::Threads,
            Self::Task { .. } => Blocking::Inline,
        }
    }

    pub(super) async fn submit(&self, job: Job) -> io::Result<()> {
        let (Self::Thread { jobs, .. } | Self::Task { jobs }) = self;
        jobs.send(job).await.map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    pub(super) async fn submit_and_wait(
        &self,
        job: impl FnOnce(DoneSender) -> Job,
    ) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.submit(job(done)).await?;
        written.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    pub(super) async fn close(&self) {
        let (Self::Thread { jobs, .. } | Self::Task { jobs }) = self;
        // A failure means that it has stopped already.
        let _ = jobs.send(Job::Stop).await;
        let Self::Thread { thread, .. } = self else { return jobs.closed().await };
        let Some(thread) = thread.lock().take() else { return };
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("the log's writer did not end in order");
        }
    }
}

/// Who is to be told of what once the batch is written.
#[derive(Default)]
struct Waiting {
    appends: Vec<IOFlushed<TypeConfig>>,
    done: Vec<DoneSender>,
}

impl Waiting {
    fn tell(self, result: &Result<(), EngineError>) {
        let outcome = || match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        for append in self.appends {
            append.io_completed(outcome());
        }
        for done in self.done {
            // Who asked may have gone.
            let _ = done.send(outcome());
        }
    }
}

/// Does the jobs.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

/// One batch being put together.
#[derive(Default)]
struct Step {
    batch: Batch,
    waiting: Waiting,
    /// Entries of the record that is being filled.
    pack: Vec<Entry>,
    pack_bytes: usize,
    /// The first index of each record in the batch.
    firsts: Vec<u64>,
    written_before: Option<u64>,
}

impl Step {
    fn append(&mut self, entries: Vec<Entry>, callback: IOFlushed<TypeConfig>) {
        for entry in entries {
            let size_bytes = memory::size_bytes(&entry);
            if self.pack_bytes + size_bytes > PACK_BYTES {
                self.close_pack();
            }
            self.pack_bytes += size_bytes;
            self.written_before = Some(entry.log_id.index + 1);
            self.pack.push(entry);
        }
        self.waiting.appends.push(callback);
    }

    fn close_pack(&mut self) {
        let Some(first) = self.pack.first() else { return };
        let first = first.log_id.index;
        self.batch.put(Tree::Log, records::key(first), records::encode(&self.pack));
        self.firsts.push(first);
        self.pack.clear();
        self.pack_bytes = 0;
    }
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        loop {
            let is_purging = self.purge_slice();
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) if is_purging => continue,
                Err(_) => match queue.blocking_recv() {
                    Some(job) => jobs.push(job),
                    None => return,
                },
            }
            while let Ok(job) = queue.try_recv() {
                jobs.push(job);
            }
            let is_last = jobs.iter().any(|job| matches!(job, Job::Stop));
            self.write(std::mem::take(&mut jobs));
            if is_last {
                return;
            }
        }
    }

    /// The same for virtual time, in which a sync takes as long as the host says.
    async fn run_as_task(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, QUEUE).await > 0 {
            let is_last = jobs.iter().any(|job| matches!(job, Job::Stop));
            runtime::sync_time().await;
            self.write(std::mem::take(&mut jobs));
            while self.purge_slice() {}
            if is_last {
                return;
            }
        }
    }

    /// Does `jobs` with one sync, or with one more for each truncation among them.
    fn write(&mut self, jobs: Vec<Job>) {
        let mut step = Step::default();
        for job in jobs {
            match job {
                Job::Append { entries, callback } => step.append(entries, callback),
                Job::Vote { vote, done } => {
                    records::put_vote(&mut step.batch, &vote);
                    step.waiting.done.push(done);
                }
                Job::Truncate { keep_before, done } => {
                    self.commit(std::mem::take(&mut step));
                    let result = self.truncate(keep_before);
                    Waiting { done: vec![done], ..Waiting::default() }.tell(&result);
                }
                Job::Purge | Job::Stop => {}
            }
        }
        self.commit(step);
    }

    fn commit(&mut self, mut step: Step) {
        step.close_pack();
        if step.batch.is_empty() {
            step.waiting.tell(&Ok(()));
            return;
        }
        self.add_positions(&mut step.batch);
        self.shared.records.lock().extend(step.firsts);
        let result = self.shared.engine.write(step.batch, Durability::Now);
        if let Err(error) = &result {
            tracing::error!(%error, "write the log");
        } else if let Some(index) = step.written_before {
            self.shared.memory.lock().set_written_before(index);
        }
        step.waiting.tell(&result);
    }

    /// Adds what moved beside the entries. That needs no sync of its own.
    fn add_positions(&self, batch: &mut Batch) {
        let mut memory = self.shared.memory.lock();
        if let Some(committed) = memory.take_dirty_committed() {
            records::put_log_id(batch, records::COMMITTED, &committed);
        }
        if let Some(purged) = memory.take_dirty_purged() {
            records::put_log_id(batch, records::PURGED, &purged);
        }
    }

    /// Removes the entries from `keep_before` on: whole records, and the end of the one that
    /// reaches over it, all in one batch, so that no hole can be left.
    fn truncate(&mut self, keep_before: u64) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        batch.delete_range(Tree::Log, records::key(keep_before), records::end_key());
        let cut = self.shared.records.lock().range(..keep_before).next_back().copied();
        if let Some(first) = cut {
            let key = records::key(first);
            if let Some(record) = self.shared.engine.get(Tree::Log, &key)? {
                let mut entries = records::decode(&key, &record)?;
                let before = entries.len();
                entries.retain(|entry| entry.log_id.index < keep_before);
                if entries.len() < before {
                    batch.put(Tree::Log, key, records::encode(&entries));
                }
            }
        }
        self.shared.records.lock().split_off(&keep_before);
        self.shared.engine.write(batch, Durability::Now)?;
        self.shared.memory.lock().set_truncated(keep_before);
        Ok(())
    }

    /// Removes some records that are wholly purged and whose entries are in the synced state (R2);
    /// whether there may be more.
    fn purge_slice(&mut self) -> bool {
        let Some(purged) = self.shared.memory.lock().purged else { return false };
        let upto = purged.index.min(self.shared.durable_applied.load(Ordering::Acquire));
        let (gone, kept) = {
            let records = self.shared.records.lock();
            // The last record stays until another follows it: only then is its end known.
            let mut firsts = records.iter().copied().take(PURGE_SLICE + 1);
            let Some(mut kept) = firsts.next() else { return false };
            let mut gone = Vec::new();
            for next in firsts {
                if next > upto + 1 {
                    break;
                }
                gone.push(std::mem::replace(&mut kept, next));
            }
            (gone, kept)
        };
        let Some(first) = gone.first() else { return false };
        let mut batch = Batch::default();
        self.add_positions(&mut batch);
        batch.delete_range(Tree::Log, records::key(*first), records::key(kept));
        if let Err(error) = self.shared.engine.write(batch, Durability::Later) {
            tracing::error!(%error, "purge the log");
            return false;
        }
        let mut records = self.shared.records.lock();
        for first in &gone {
            records.remove(first);
        }
        gone.len() == PURGE_SLICE
    }
}
