//! Looks through sled's file for rot before sled opens it.
//!
//! sled 0.34 takes a message whose checksum fails for the end of its segment, since a segment that
//! was being written anew when the process died looks like that. Of a segment that is whole it then
//! forgets what follows, without a word, and serves older pages in its place. Here the two are told
//! apart: in a segment that was written anew, what follows belongs to another segment.
//!
//! ```text
//!   file     segments of SEGMENT_BYTES, in any order
//!   segment  crc u32 | lsn i64 | stable lsn i64 | messages … | Cap, or less than RED_ZONE bytes
//!   message  crc u32 | kind u8 | length | segment's number | page | body    (numbers are varints)
//! ```
//!
//! Source: `pagecache/logger.rs`, `pagecache/iterator.rs` and `serialization.rs` of sled 0.34.7, the
//! last release of that format.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::SEGMENT_BYTES;
use crate::engine::{EngineError, io_error};

const HEADER_BYTES: usize = 20;

/// Less than this at the end of a segment holds no message.
const RED_ZONE: usize = 32;

/// What takes so long to look through that it is told.
const LONG: u64 = 1 << 30;

const CAP: u8 = 2;
const KINDS: std::ops::RangeInclusive<u8> = 1..=11;

/// What stands at the begin of a segment.
#[derive(Debug, Clone, Copy)]
struct Header {
    lsn: i64,
    /// Up to where sled's log was written out when this segment was begun.
    stable: i64,
}

/// A message as its first bytes tell it.
#[derive(Debug, Clone, Copy)]
struct Message {
    kind: u8,
    /// Of the segment that it was written for.
    number: u64,
    /// With what precedes its body.
    bytes: usize,
    is_whole: bool,
}

/// Refuses a file in whose segments something has changed since sled wrote them.
///
/// The end of the log is left to sled, which cuts it at the first tear: the journal knows whether
/// anything is missing then.
pub(in crate::engine) fn check(path: &Path) -> Result<(), EngineError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let length = file.metadata().map_err(io_error("look at", path))?.len();
    if length >= LONG {
        tracing::info!(path = %path.display(), bytes = length, "looking through the store's file");
    }
    let starts = || (0..length).step_by(SEGMENT_BYTES);
    let mut stable = 0_u64;
    for start in starts() {
        let mut bytes = [0; HEADER_BYTES];
        read(&file, &mut bytes, start).map_err(io_error("read", path))?;
        let seen = header(&bytes).and_then(|header| u64::try_from(header.stable).ok());
        stable = stable.max(seen.unwrap_or(0));
    }
    let tail = stable - stable % SEGMENT_BYTES as u64;
    let mut segment = vec![0; SEGMENT_BYTES];
    for start in starts() {
        let read = read(&file, &mut segment, start).map_err(io_error("read", path))?;
        if let Err((offset, reason)) = check_segment(&segment[..read], tail) {
            return Err(EngineError::Damaged {
                path: path.display().to_string(),
                offset: format!("byte {}", start + offset as u64),
                reason: reason.to_owned(),
            });
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; says how much that was.
fn read(file: &File, into: &mut [u8], from: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into[filled..].fill(0);
    Ok(filled)
}

/// The header, if its checksum holds.
fn header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let word = |at: usize| i64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    let checksum = u32::from_le_bytes(std::array::from_fn(|byte| bytes[byte]));
    let holds = crc32fast::hash(&bytes[4..]) == checksum ^ u32::MAX;
    holds.then(|| Header { lsn: word(4) ^ i64::MAX, stable: word(12) ^ i64::MAX })
}

/// Where the segment is damaged, and how.
fn check_segment(segment: &[u8], tail: u64) -> Result<(), (usize, &'static str)> {
    let Some(first) = segment.first_chunk::<HEADER_BYTES>() else { return Ok(()) };
    let Some(header) = header(first) else {
        // sled overwrites what it does not want any more with zeros, from the header on.
        let is_in_use = message(segment, HEADER_BYTES).is_some_and(|message| message.is_whole);
        return if is_in_use {
            Err((0, "the header of a segment of sled changed"))
        } else {
            Ok(())
        };
    };
    let Some(lsn) = u64::try_from(header.lsn).ok().filter(|lsn| *lsn < tail) else {
        return Ok(());
    };
    let number = lsn / SEGMENT_BYTES as u64;
    let mut at = HEADER_BYTES;
    while at + RED_ZONE <= segment.len() {
        match message(segment, at) {
            Some(found) if found.is_whole && found.number == number => {
                if found.kind == CAP {
                    break;
                }
                at += found.bytes;
            }
            found => {
                if is_rot(segment, at, found, number) {
                    return Err((at, "a record in a segment of sled changed: its checksum fails"));
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether what does not hold at `at` has rotted: otherwise the segment has been written anew from
/// there on.
fn is_rot(segment: &[u8], at: usize, broken: Option<Message>, number: u64) -> bool {
    let next = (at + 1..segment.len())
        .filter_map(|at| message_of(segment, at, number))
        .find(|message| message.is_whole);
    match next {
        Some(next) => next.number == number,
        // It is the segment's last, if its own begin can be trusted.
        None => broken.is_some_and(|broken| {
            broken.number == number && at + broken.bytes + RED_ZONE > segment.len()
        }),
    }
}

/// The message at `at`, if it may be one of that segment, or of one that took its place.
fn message_of(segment: &[u8], at: usize, number: u64) -> Option<Message> {
    // Most of what is tried is no message: the cheap look comes first.
    KINDS.contains(segment.get(at + 4)?).then_some(())?;
    let (_, after) = varint(segment, at + 5)?;
    let (found, _) = varint(segment, after)?;
    (found >= number && found < number + (1 << 20)).then_some(())?;
    message(segment, at)
}

/// The message at `at`, if one may stand there.
fn message(segment: &[u8], at: usize) -> Option<Message> {
    let checksum = u32::from_le_bytes(*segment.get(at..)?.first_chunk::<4>()?);
    let kind = *segment.get(at + 4)?;
    let (length, after) = varint(segment, at + 5)?;
    let (number, after) = varint(segment, after)?;
    let (_, body) = varint(segment, after)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= segment.len() - body)?;
    KINDS.contains(&kind).then_some(())?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment[body..body + length]);
    hasher.update(&segment[at + 4..body]);
    let is_whole = hasher.finalize() == checksum ^ u32::MAX;
    Some(Message { kind, number, bytes: body - at + length, is_whole })
}

/// A number of one to nine bytes, and where what follows it begins.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let byte = |offset: usize| bytes.get(at + offset).map(|byte| u64::from(*byte));
    Some(match first {
        0..=240 => (u64::from(first), at + 1),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + byte(1)?, at + 2),
        249 => (2288 + 256 * byte(1)? + byte(2)?, at + 3),
        _ => {
            let size = usize::from(first) - 247;
            let number = (1..=size).rev().try_fold(0, |sum, at| Some(sum << 8 | byte(at)?))?;
            (number, at + 1 + size)
        }
    })
}

#[cfg(test)]
mod tests;
