//! What of the log is in memory: its ends, its vote, and its tail.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::types::{Entry, LogId, Vote};

/// How much of the tail stays in memory once it is written; older entries are read back.
const TAIL_BYTES: usize = 8 << 20;

/// What an entry costs beside its command.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The log as readers see it, ahead of what is written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// Whether `committed` is newer than what the engine has.
    committed_dirty: bool,
    pub(super) purged: Option<LogId>,
    /// Whether `purged` is newer than what the engine has.
    purged_dirty: bool,
    /// The index of the first entry that was ever there since the log was last empty.
    first: u64,
    /// The last entry's position, or the purged position where there is none.
    last: Option<LogId>,
    /// Consecutive entries up to the last.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    /// Entries before this are written: they may leave the tail.
    written_before: u64,
}

/// About how much memory an entry takes.
pub(super) fn size_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.len_bytes(),
        EntryPayload::Membership(membership) => 256 * membership.nodes().count(),
    };
    ENTRY_OVERHEAD_BYTES + payload
}

impl Memory {
    /// The memory of a log that was just opened, with nothing in its tail yet.
    pub(super) fn opened(
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
    ) -> Self {
        Self { vote, committed, purged, last: purged, ..Self::default() }
    }

    /// Takes an entry that was read from the engine, in order.
    pub(super) fn load(&mut self, entry: Entry) {
        self.written_before = entry.log_id.index + 1;
        self.push(entry);
        self.trim();
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    fn first_in_tail(&self) -> u64 {
        match self.tail.front() {
            Some(entry) => entry.log_id.index,
            None => self.last.map_or(0, |last| last.index + 1),
        }
    }

    fn push(&mut self, entry: Entry) {
        match self.last {
            Some(last) => {
                assert_eq!(entry.log_id.index, last.index + 1, "the log must have no hole");
            }
            None => self.first = entry.log_id.index,
        }
        self.last = Some(entry.log_id);
        self.tail_bytes += size_bytes(&entry);
        self.tail.push_back(entry);
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.push(entry.clone());
        }
    }

    /// Notes that all entries before `index` are written.
    pub(super) fn set_written_before(&mut self, index: u64) {
        self.written_before = index;
        self.trim();
    }

    fn trim(&mut self) {
        while self.tail_bytes > TAIL_BYTES
            && self.tail.front().is_some_and(|entry| entry.log_id.index < self.written_before)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= size_bytes(&entry);
        }
    }

    /// Forgets the entries from `keep_before` on; `last` is then the last.
    pub(super) fn truncate(&mut self, keep_before: u64, last: Option<LogId>) {
        if self.last.is_none_or(|last| last.index < keep_before) {
            return;
        }
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= keep_before) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= size_bytes(&entry);
            }
        }
        self.set_truncated(keep_before);
        self.last = last.max(self.purged);
    }

    /// Notes that no entry from `keep_before` on is written any more.
    pub(super) fn set_truncated(&mut self, keep_before: u64) {
        self.written_before = self.written_before.min(keep_before);
    }

    /// Forgets the entries up to `upto`, included.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged >= upto) {
            return;
        }
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = Some(upto);
        self.purged_dirty = true;
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    pub(super) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed_dirty |= self.committed != committed;
        self.committed = committed;
    }

    /// The committed position, if the engine does not have it yet.
    pub(super) fn take_dirty_committed(&mut self) -> Option<LogId> {
        std::mem::take(&mut self.committed_dirty).then_some(self.committed).flatten()
    }

    /// The purged position, if the engine does not have it yet.
    pub(super) fn take_dirty_purged(&mut self) -> Option<LogId> {
        std::mem::take(&mut self.purged_dirty).then_some(self.purged).flatten()
    }

    /// Plans a read of `[start, end)`, of about `bytes_max` and at least one entry.
    pub(super) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Read {
        let start = start.max(self.purged.map_or(self.first, |purged| purged.index + 1));
        let first = self.first_in_tail();
        let from = start.max(first);
        let mut bytes = 0;
        let tail = self
            .tail
            .iter()
            .skip(usize::try_from(from - first).unwrap_or(usize::MAX))
            .take(usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX))
            .take_while(|entry| {
                let is_room = bytes < bytes_max;
                bytes += size_bytes(entry);
                is_room
            })
            .cloned()
            .collect();
        Read { older: start..first.min(end), tail }
    }
}

/// How to read a part of the log.
pub(super) struct Read {
    /// What must be asked of the engine; may be empty.
    pub(super) older: std::ops::Range<u64>,
    /// What follows it in memory.
    pub(super) tail: Vec<Entry>,
}
