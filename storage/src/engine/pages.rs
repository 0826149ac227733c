//! [`Pages`]: the trees as sled has them, packed into pages (`page.rs`).

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::journal::record::tree_number;
use super::journal::{FORMAT, Sequence};
use super::page::{self, Entry, Stored};
use super::sled::SledRecords;
use super::{EngineError, Tree, is_empty_range};
use crate::codec::{self, Place, hex};

const FRAGMENT_PREFIX: u8 = 0xfe;
const CHECKPOINT_KEY: &[u8] = &[0xff];

/// Up to which record of the journal sled has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    sequence: Sequence,
}

/// The trees in sled.
#[derive(Debug)]
pub(super) struct Pages {
    /// Where sled is, for messages.
    path: String,
    pub(super) records: SledRecords,
    /// Held shared from reading a page to reading the fragments it refers to.
    reading: RwLock<()>,
}

/// Entries between two bounds, complete up to `upto`, or wholly where that is `None`.
#[derive(Debug, Default)]
pub(super) struct PagesSlice {
    pub(super) entries: Vec<(Bytes, Bytes)>,
    pub(super) upto: Option<Bytes>,
}

impl Pages {
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let records = SledRecords::open(path)?;
        Ok(Self { path: path.display().to_string(), records, reading: RwLock::new(()) })
    }

    /// Returns once nobody reads by a page that was replaced before: then the fragments that only
    /// such a page refers to can be removed.
    pub(super) fn await_readers(&self) {
        drop(self.reading.write());
    }

    /// What the last finished step wrote; `None` before the first.
    pub(super) fn checkpoint(&self) -> Result<Option<Sequence>, EngineError> {
        let Some(record) = self.records.get(CHECKPOINT_KEY)? else { return Ok(None) };
        let place = Place { tree: &self.path, key: CHECKPOINT_KEY };
        let Checkpoint { format, sequence } = codec::decode(&record, place)?;
        if format != FORMAT {
            let path = place.tree.to_owned();
            return Err(EngineError::Version { path, found: format, expected: FORMAT });
        }
        Ok(Some(sequence))
    }

    pub(super) fn checkpoint_record(sequence: Sequence) -> (Vec<u8>, Bytes) {
        let checkpoint = Checkpoint { format: FORMAT, sequence };
        (CHECKPOINT_KEY.to_vec(), codec::encode(&checkpoint))
    }

    /// The number for the next fragmented value.
    pub(super) fn next_fragment(&self) -> Result<u64, EngineError> {
        let last = self.records.floor(&fragment_key(u64::MAX, u32::MAX))?;
        let id = last.and_then(|(key, _)| {
            let (&prefix, rest) = key.split_first()?;
            let id = rest.first_chunk::<8>()?;
            (prefix == FRAGMENT_PREFIX).then(|| u64::from_be_bytes(*id))
        });
        Ok(id.map_or(0, |id| id + 1))
    }

    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let _reading = self.reading.read();
        let Some((_, mut entries)) = self.page_of(tree, key)? else { return Ok(None) };
        let found = entries.binary_search_by(|(held, _)| held[..].cmp(key));
        match found {
            Ok(position) => self.resolve(tree, entries.swap_remove(position)).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Entries between two bounds, until there are `most` of them or they have `most_bytes`.
    pub(super) fn slice(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        most: usize,
        most_bytes: usize,
    ) -> Result<PagesSlice, EngineError> {
        let mut slice = PagesSlice::default();
        if is_empty_range(from, to) {
            return Ok(slice);
        }
        let first = match from {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => &[],
        };
        let _reading = self.reading.read();
        let mut bytes = 0;
        let mut page = match self.page_of(tree, first)? {
            Some(page) => Some(page),
            None => self.page_after(tree, first)?,
        };
        while let Some((page_key, entries)) = page {
            page = self.page_after(tree, &page_key)?;
            let upper = page.as_ref().map(|(key, _)| key);
            for entry in clipped(entries, upper) {
                if !is_empty_range(Bound::Included(&entry.0), to) && is_after(&entry.0, from) {
                    if slice.entries.len() >= most || bytes >= most_bytes {
                        slice.upto = slice.entries.last().map(|(key, _)| key.clone());
                        return Ok(slice);
                    }
                    let key = entry.0.clone();
                    let value = self.resolve(tree, entry)?;
                    bytes += value.len();
                    slice.entries.push((key, value));
                }
            }
            if page.as_ref().is_some_and(|(key, _)| is_empty_range(Bound::Included(key), to)) {
                break;
            }
        }
        Ok(slice)
    }

    /// The greatest entry before `before`, or of all.
    pub(super) fn last_before(
        &self,
        tree: Tree,
        before: Option<&[u8]>,
    ) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let _reading = self.reading.read();
        let mut below = match before {
            Some(before) => record_key(tree, before),
            None => vec![tree_number(tree) + 1],
        };
        let mut before = before.map(Bytes::copy_from_slice);
        while let Some((key, record)) = self.records.previous(&below)? {
            if key.first() != Some(&tree_number(tree)) {
                break;
            }
            let mut entries = page::decode(&self.path, &key, &record)?;
            entries.retain(|(held, _)| before.as_ref().is_none_or(|before| held < before));
            if let Some(entry) = entries.pop() {
                let last = entry.0.clone();
                return Ok(Some((last, self.resolve(tree, entry)?)));
            }
            below = key.to_vec();
            before = Some(key.slice(1..));
        }
        Ok(None)
    }

    /// The page that `key` belongs to, with its key; `None` where `key` is before all pages.
    pub(super) fn page_of(
        &self,
        tree: Tree,
        key: &[u8],
    ) -> Result<Option<(Bytes, Vec<Entry>)>, EngineError> {
        let found = self.records.floor(&record_key(tree, key))?;
        self.decode_page(tree, found)
    }

    /// The page before the one with this key.
    pub(super) fn page_before(
        &self,
        tree: Tree,
        page_key: &[u8],
    ) -> Result<Option<(Bytes, Vec<Entry>)>, EngineError> {
        let found = self.records.previous(&record_key(tree, page_key))?;
        self.decode_page(tree, found)
    }

    /// The page after the one with this key.
    pub(super) fn page_after(
        &self,
        tree: Tree,
        page_key: &[u8],
    ) -> Result<Option<(Bytes, Vec<Entry>)>, EngineError> {
        let found = self.records.next(&record_key(tree, page_key))?;
        self.decode_page(tree, found)
    }

    fn decode_page(
        &self,
        tree: Tree,
        found: Option<(Bytes, Bytes)>,
    ) -> Result<Option<(Bytes, Vec<Entry>)>, EngineError> {
        match found {
            Some((key, record)) if key.first() == Some(&tree_number(tree)) => {
                let entries = page::decode(&self.path, &key, &record)?;
                Ok(Some((key.slice(1..), entries)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The value of an entry, put together where it is fragmented.
    fn resolve(&self, tree: Tree, (key, stored): Entry) -> Result<Bytes, EngineError> {
        let (id, bytes) = match stored {
            Stored::Inline(value) => return Ok(value),
            Stored::Fragments { id, bytes } => (id, bytes),
        };
        let mut value = Vec::new();
        for number in 0..fragment_count(bytes) {
            let fragment_key = fragment_key(id, number);
            let place = Place { tree: &self.path, key: &fragment_key };
            let Some(record) = self.records.get(&fragment_key)? else { break };
            value.extend_from_slice(&codec::decode::<Bytes>(&record, place)?);
        }
        if value.len() as u64 != bytes {
            return Err(EngineError::Damaged {
                path: self.path.clone(),
                offset: hex(&record_key(tree, &key)),
                reason: format!("{} of its {bytes} bytes are there", value.len()),
            });
        }
        Ok(value.into())
    }
}

/// The entries of a page that are its own. A crash in the middle of a split can leave it some that
/// belong to the next page, where newer ones of the same keys may stand.
pub(super) fn clipped(mut entries: Vec<Entry>, upper: Option<&Bytes>) -> Vec<Entry> {
    if let Some(upper) = upper {
        entries.truncate(entries.partition_point(|(key, _)| key < upper));
    }
    entries
}

fn is_after(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    }
}

pub(super) fn record_key(tree: Tree, key: &[u8]) -> Vec<u8> {
    let mut record_key = Vec::with_capacity(1 + key.len());
    record_key.push(tree_number(tree));
    record_key.extend_from_slice(key);
    record_key
}

pub(super) fn fragment_key(id: u64, number: u32) -> Vec<u8> {
    let mut key = vec![FRAGMENT_PREFIX];
    key.extend_from_slice(&id.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// How many fragments a value of this size has.
pub(super) fn fragment_count(bytes: u64) -> u32 {
    let count = bytes.div_ceil(page::FRAGMENT_BYTES as u64);
    u32::try_from(count).expect("a value must be smaller than 4 GiB")
}
