//! The log in the engine.
//!
//! ```text
//! tree  key                      value (each a record of `codec`)
//! ----  -----------------------  --------------------------------------------------------------
//! Log   first index u64 BE       proto Entries: that entry and those that follow it
//! Raft  "vote"                   (term, node, committed)
//! Raft  "committed", "purged"    (term, index)
//! Raft  "incarnation"            how often the node was started, u64
//! ```
//!
//! Records at or below the purged position are leftovers, on their way out.

use std::collections::BTreeSet;
use std::io;
use std::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;
use kontiki_storage::engine::{Batch, Durability, Engine, EngineError, Tree};
use openraft::vote::RaftLeaderId as _;
use prost::Message as _;
use serde::de::DeserializeOwned;

use super::Shared;
use super::memory::{self, Memory};
use crate::codec;
use crate::error::NodeError;
use crate::proto;
use crate::types::{Entry, LeaderId, LogId, NodeId, Vote};
use crate::wire;

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const COMMITTED: &[u8] = b"committed";
pub(super) const PURGED: &[u8] = b"purged";
const INCARNATION: &[u8] = b"incarnation";

/// The key of the record that begins with entry `index`.
pub(super) fn key(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_be_bytes())
}

/// A key after all records.
pub(super) fn end_key() -> Bytes {
    Bytes::from_static(&[u8::MAX; 9])
}

/// Packs consecutive entries into one record.
pub(super) fn encode(entries: &[Entry]) -> Bytes {
    let message = proto::Entries { entries: entries.iter().map(wire::entry_to).collect() };
    codec::frame(message.encoded_len(), |record| {
        message.encode(record).expect("the buffer must grow as needed");
    })
}

fn damaged(key: &[u8], reason: impl ToString) -> EngineError {
    let offset = key.iter().fold(String::new(), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    });
    EngineError::Damaged { path: "log".to_owned(), offset, reason: reason.to_string() }
}

/// The entries of a record, which must be consecutive from its key on.
pub(super) fn decode(key: &[u8], record: &Bytes) -> Result<Vec<Entry>, EngineError> {
    let first = key.try_into().map(u64::from_be_bytes).map_err(|_| damaged(key, "no index"))?;
    let payload = codec::unframe(record).map_err(|error| damaged(key, error))?;
    let message = proto::Entries::decode(payload).map_err(|error| damaged(key, error))?;
    let mut entries = Vec::with_capacity(message.entries.len());
    for (expected, entry) in (first..).zip(message.entries) {
        if entry.index != expected {
            return Err(damaged(key, format!("entry {} stands at {expected}", entry.index)));
        }
        entries.push(wire::entry_from(entry).map_err(|error| damaged(key, error))?);
    }
    Ok(entries)
}

fn read_raft<T: DeserializeOwned>(
    engine: &dyn Engine,
    key: &'static [u8],
) -> Result<Option<T>, EngineError> {
    let Some(record) = engine.get(Tree::Raft, key)? else { return Ok(None) };
    codec::decode_record(&record).map(Some).map_err(|error| EngineError::Damaged {
        path: "raft".to_owned(),
        offset: String::from_utf8_lossy(key).into_owned(),
        reason: error.to_string(),
    })
}

pub(super) fn put_vote(batch: &mut Batch, vote: &Vote) {
    let value = (vote.leader_id.term, vote.leader_id.voted_for, vote.committed);
    batch.put(Tree::Raft, VOTE, codec::encode_record(&value));
}

pub(super) fn put_log_id(batch: &mut Batch, key: &'static [u8], id: &LogId) {
    batch.put(Tree::Raft, key, codec::encode_record(&(id.leader_id.term, id.index)));
}

/// Makes an empty log begin behind `at`, which `node` is to have voted for itself to write.
pub(crate) fn begin_behind(batch: &mut Batch, at: &LogId, node: NodeId) {
    let leader_id = LeaderId::new(at.leader_id.term, node);
    put_vote(batch, &Vote { leader_id, committed: false });
    put_log_id(batch, PURGED, at);
    put_log_id(batch, COMMITTED, at);
}

/// Counts a start of this node, durably, and returns its number (R10).
pub(crate) fn next_incarnation(engine: &dyn Engine) -> Result<u64, EngineError> {
    let incarnation = read_raft::<u64>(engine, INCARNATION)?.unwrap_or(0) + 1;
    let mut batch = Batch::default();
    batch.put(Tree::Raft, INCARNATION, codec::encode_record(&incarnation));
    engine.write(batch, Durability::Now)?;
    Ok(incarnation)
}

/// Reads the log at open: checks every record and leaves the end of the log in memory.
pub(super) fn load(engine: &dyn Engine) -> Result<(Memory, BTreeSet<u64>), NodeError> {
    let log_id = |(term, index): (u64, u64)| wire::log_id(term, index);
    let vote = read_raft::<(u64, u64, bool)>(engine, VOTE)?
        .map(|(term, node, committed)| Vote { leader_id: LeaderId::new(term, node), committed });
    let committed = read_raft(engine, COMMITTED)?.map(log_id);
    let purged: Option<LogId> = read_raft(engine, PURGED)?.map(log_id);
    let mut memory = Memory::opened(vote, committed, purged);
    let mut records = BTreeSet::new();
    let mut failure = None;
    engine.scan(Tree::Log, Bound::Unbounded, Bound::Unbounded, &mut |key, record| {
        let loaded = decode(key, &record).and_then(|entries| {
            let Some(first) = entries.first() else { return Err(damaged(key, "no entry")) };
            records.insert(first.log_id.index);
            load_entries(&mut memory, key, entries)
        });
        match loaded {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok((memory, records)),
    }
}

fn load_entries(memory: &mut Memory, key: &[u8], entries: Vec<Entry>) -> Result<(), EngineError> {
    let purged = memory.purged;
    for entry in entries {
        if purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
            continue;
        }
        let expected = memory.last().map_or(entry.log_id.index, |last| last.index + 1);
        if entry.log_id.index != expected {
            let reason = format!("entry {} comes where {expected} is due", entry.log_id.index);
            return Err(damaged(key, reason));
        }
        memory.load(entry);
    }
    Ok(())
}

/// The entries of `wanted` in the engine, from the first on, about `bytes_max` of them.
pub(super) fn read(
    shared: &Shared,
    wanted: Range<u64>,
    bytes_max: usize,
) -> io::Result<Vec<Entry>> {
    let before = shared.records.lock().range(..=wanted.start).next_back().copied();
    let from = before.unwrap_or(wanted.start);
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let mut failure = None;
    let bounds = (key(from), key(wanted.end));
    shared
        .engine
        .scan(
            Tree::Log,
            Bound::Included(&bounds.0),
            Bound::Excluded(&bounds.1),
            &mut |key, record| match decode(key, &record) {
                Ok(found) => take(&mut entries, &mut bytes, found, &wanted, bytes_max),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )
        .map_err(io::Error::other)?;
    match failure {
        Some(error) => Err(io::Error::other(error)),
        None => Ok(entries),
    }
}

/// Adds what of `found` is wanted and follows on what is there; stops at a hole, which a purge or a
/// truncation beside this read can leave.
fn take(
    entries: &mut Vec<Entry>,
    bytes: &mut usize,
    found: Vec<Entry>,
    wanted: &Range<u64>,
    bytes_max: usize,
) -> ControlFlow<()> {
    for entry in found.into_iter().filter(|entry| wanted.contains(&entry.log_id.index)) {
        let due = entries.last().map_or(entry.log_id.index, |last| last.log_id.index + 1);
        if *bytes >= bytes_max || entry.log_id.index != due {
            return ControlFlow::Break(());
        }
        *bytes += memory::size_bytes(&entry);
        entries.push(entry);
    }
    ControlFlow::Continue(())
}
