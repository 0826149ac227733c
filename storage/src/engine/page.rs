//! Pages: how entries are packed into records of sled, decided without touching it.
//!
//! sled costs tens of microseconds a record and splits its leaves by count, never by bytes, so few
//! records of a bounded size serve it best. A page holds neighbouring entries of one tree under a key
//! that is not greater than any of theirs; an entry belongs to the page with the greatest such key.
//!
//! ```text
//!   sled key                 record of `codec`
//!   tree u8 | page key       [ (key, Inline(value)) … ]          up to PAGE_BYTES
//!   tree u8 | page key       [ (key, Fragments{id, bytes}) … ]
//!   0xfe | id u64 | n u32    the n-th FRAGMENT_BYTES of a value that is too large for a page
//!   0xff                     Checkpoint
//! ```

use std::cmp::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Place};
use crate::engine::{EngineError, KEY_MAX};

/// How large a page grows before it is split.
pub(super) const PAGE_BYTES: usize = 16 << 10;

/// The largest value that is kept in a page; a larger one is cut into fragments.
pub(super) const INLINE_MAX: usize = 14 << 10;

/// The size of a fragment.
pub(super) const FRAGMENT_BYTES: usize = 14 << 10;

/// The largest record that sled is ever given.
pub(super) const RECORD_MAX: usize = 20 << 10;

/// What an entry takes beside its key and value, at most.
const ENTRY_BYTES: usize = 32;

const _: () = assert!(PAGE_BYTES + ENTRY_BYTES < RECORD_MAX);
const _: () = assert!(INLINE_MAX + KEY_MAX + 2 * ENTRY_BYTES < RECORD_MAX);

/// A value as a page has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stored {
    Inline(Bytes),
    Fragments { id: u64, bytes: u64 },
}

/// A key with its value.
pub(super) type Entry = (Bytes, Stored);

pub(super) fn encode(entries: &[Entry]) -> Bytes {
    let record = codec::encode(&entries);
    assert!(record.len() <= RECORD_MAX, "a page of {} bytes would become a blob", record.len());
    record
}

/// The entries of the page with this key in the sled at `path`.
pub(super) fn decode(path: &str, key: &[u8], record: &[u8]) -> Result<Vec<Entry>, EngineError> {
    codec::decode(record, Place { tree: path, key })
}

/// What a page comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// What it holds now, in pages of a bounded size; none when it is empty.
    pub(super) pages: Vec<Vec<Entry>>,
    /// The fragmented values that are no longer referred to: number, and size.
    pub(super) dropped: Vec<(u64, u64)>,
    pub(super) changed: bool,
}

/// Merges changes, in the order of their keys, into the entries of a page.
pub(super) fn rewrite(
    entries: Vec<Entry>,
    changes: impl IntoIterator<Item = (Bytes, Option<Stored>)>,
) -> Rewrite {
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut dropped = Vec::new();
    let mut changed = false;
    let mut entries = entries.into_iter().peekable();
    for (key, value) in changes {
        while let Some(entry) = entries.next_if(|(held, _)| held.cmp(&key) == Ordering::Less) {
            merged.push(entry);
        }
        if let Some((_, old)) = entries.next_if(|(held, _)| *held == key) {
            changed = true;
            dropped.extend(fragments(&old));
        }
        if let Some(value) = value {
            changed = true;
            merged.push((key, value));
        }
    }
    merged.extend(entries);
    Rewrite { pages: split(merged), dropped, changed }
}

/// The fragments that a value has.
pub(super) fn fragments(stored: &Stored) -> Option<(u64, u64)> {
    match stored {
        Stored::Inline(_) => None,
        Stored::Fragments { id, bytes } => Some((*id, *bytes)),
    }
}

fn split(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut pages: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = PAGE_BYTES;
    for entry in entries {
        let size = entry_size(&entry);
        if bytes + size > PAGE_BYTES {
            pages.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(page) = pages.last_mut() {
            page.push(entry);
        }
    }
    pages
}

fn entry_size((key, value): &Entry) -> usize {
    let value = match value {
        Stored::Inline(value) => value.len(),
        Stored::Fragments { .. } => 0,
    };
    key.len() + value + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(key: &str, bytes: usize) -> Entry {
        (Bytes::copy_from_slice(key.as_bytes()), Stored::Inline(vec![1; bytes].into()))
    }

    fn set((key, value): Entry) -> (Bytes, Option<Stored>) {
        (key, Some(value))
    }

    #[test]
    fn changes_are_merged_in_key_order() {
        let page = vec![inline("b", 1), inline("d", 1)];
        let changes =
            [set(inline("a", 1)), ("b".into(), None), set(inline("c", 1)), set(inline("d", 2))];
        let rewritten = rewrite(page, changes);
        assert_eq!(rewritten.pages, [[inline("a", 1), inline("c", 1), inline("d", 2)]]);
        assert!(rewritten.changed);
    }

    #[test]
    fn deleting_what_is_not_there_changes_nothing_and_deleting_all_leaves_no_page() {
        let page = vec![inline("b", 1)];
        assert!(!rewrite(page.clone(), [("a".into(), None), ("c".into(), None)]).changed);
        assert!(rewrite(page, [("b".into(), None)]).pages.is_empty());
    }

    #[test]
    fn pages_are_split_by_bytes_and_every_one_fits_a_record() {
        let many = (0..100).map(|n| set(inline(&format!("{n:03}"), 1000 + n * 130)));
        let pages = rewrite(Vec::new(), many).pages;
        assert!(pages.len() > 30);
        assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 100);
        for page in &pages {
            assert!(encode(page).len() <= RECORD_MAX);
        }
        assert!(pages.concat().is_sorted_by_key(|(key, _)| key.clone()));
    }

    #[test]
    fn a_replaced_fragmented_value_is_given_up() {
        let large = ("k".into(), Stored::Fragments { id: 7, bytes: 99 });
        assert_eq!(rewrite(vec![large], [set(inline("k", 1))]).dropped, [(7, 99)]);
    }
}
