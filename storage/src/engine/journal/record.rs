//! Records: their frame, and the writes in them.
//!
//! ```text
//!   0        4      8          16       20        24
//!   +--------+------+----------+--------+---------+--------------+---------+
//!   | "RCRD" | CRC  | sequence | length | zero    | writes       | pad to 8|
//!   +--------+------+----------+--------+---------+--------------+---------+
//!             CRC-32 of salt, sequence, length, writes      all little endian
//!
//!   write:  op u8 | tree u8 | length u32 | key | length u32 | value, or end of the range
//! ```

use bytes::Bytes;

use crate::engine::{Batch, Tree, Write};

pub(in crate::engine) const RECORD_HEADER_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"RCRD";
const ALIGNMENT: usize = 8;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// The size that a record takes on disk.
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Fills in the header of a record, whose writes are there already.
pub(super) fn seal(record: &mut Vec<u8>, salt: u64, sequence: u64) {
    let length = u32::try_from(record.len() - RECORD_HEADER_BYTES)
        .expect("a record must be smaller than 4 GiB");
    record[..4].copy_from_slice(&MAGIC);
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..20].copy_from_slice(&length.to_le_bytes());
    record[20..24].fill(0);
    let checksum = checksum(salt, &record[8..]);
    record[4..8].copy_from_slice(&checksum.to_le_bytes());
    record.resize(padded(record.len()), 0);
}

fn checksum(salt: u64, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// A record found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) sequence: u64,
    pub(super) writes: &'a [u8],
    /// How much of the segment it takes.
    pub(super) bytes: usize,
}

/// The record at the beginning of `bytes`, if a whole and undamaged one stands there.
pub(super) fn find(bytes: &[u8], salt: u64) -> Option<Found<'_>> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    if header[..4] != MAGIC || header[20..24] != [0; 4] {
        return None;
    }
    let expected = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let length = u32::from_le_bytes(header[16..20].try_into().ok()?) as usize;
    let writes = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.checked_add(length)?)?;
    let rest = &bytes[8..RECORD_HEADER_BYTES + length];
    let bytes = padded(RECORD_HEADER_BYTES + length);
    (checksum(salt, rest) == expected).then_some(Found { sequence, writes, bytes })
}

/// Appends the writes of a batch to a record.
pub(in crate::engine) fn encode(batch: &Batch, record: &mut Vec<u8>) {
    for write in &batch.writes {
        match write {
            Write::Put { tree, key, value } => encode_write(record, PUT, *tree, key, value),
            Write::Delete { tree, key } => encode_write(record, DELETE, *tree, key, &[]),
            Write::DeleteRange { tree, start, before } => {
                encode_write(record, DELETE_RANGE, *tree, start, before);
            }
        }
    }
}

fn encode_write(record: &mut Vec<u8>, op: u8, tree: Tree, key: &[u8], value: &[u8]) {
    record.push(op);
    record.push(tree_number(tree));
    for part in [key, value] {
        let length = u32::try_from(part.len()).expect("keys and values must be smaller than 4 GiB");
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(part);
    }
}

/// The writes of a record as one batch; `None` where they are not what `encode` makes.
pub(in crate::engine) fn decode(mut writes: &[u8]) -> Option<Batch> {
    let mut batch = Batch::default();
    while let Some((&[op, tree], rest)) = writes.split_first_chunk::<2>() {
        let tree = tree_of(tree)?;
        let (key, rest) = decode_part(rest)?;
        let (value, rest) = decode_part(rest)?;
        match op {
            PUT => batch.put(tree, key, value),
            DELETE => batch.delete(tree, key),
            DELETE_RANGE => batch.delete_range(tree, key, value),
            _ => return None,
        }
        writes = rest;
    }
    writes.is_empty().then_some(batch)
}

fn decode_part(bytes: &[u8]) -> Option<(Bytes, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((Bytes::copy_from_slice(part), rest))
}

/// The number of a tree on disk, in the journal and in sled: never to be changed.
pub(in crate::engine) const fn tree_number(tree: Tree) -> u8 {
    match tree {
        Tree::Meta => 1,
        Tree::Log => 2,
        Tree::Raft => 3,
        Tree::Versions => 4,
        Tree::State => 5,
    }
}

fn tree_of(number: u8) -> Option<Tree> {
    let trees = [Tree::Meta, Tree::Log, Tree::Raft, Tree::Versions, Tree::State];
    trees.into_iter().find(|tree| tree_number(*tree) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.put(Tree::Log, "key", "value");
        batch.delete(Tree::Meta, "gone");
        batch.delete_range(Tree::Versions, "a", "b");
        batch
    }

    fn sealed(salt: u64, sequence: u64) -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        encode(&batch(), &mut record);
        seal(&mut record, salt, sequence);
        record
    }

    #[test]
    fn a_record_is_found_again_with_its_writes() {
        let record = sealed(7, 42);
        let found = find(&record, 7).unwrap();
        assert_eq!((found.sequence, found.bytes), (42, record.len()));
        assert_eq!(decode(found.writes), Some(batch()));
        assert_eq!(record.len() % ALIGNMENT, 0);
    }

    #[test]
    fn a_record_of_another_salt_or_cut_anywhere_is_not_found() {
        let record = sealed(7, 42);
        assert_eq!(find(&record, 8), None);
        let unpadded = RECORD_HEADER_BYTES + find(&record, 7).unwrap().writes.len();
        for length in 0..unpadded {
            assert_eq!(find(&record[..length], 7), None);
        }
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_not_found() {
        let record = sealed(7, 42);
        let unpadded = RECORD_HEADER_BYTES + find(&record, 7).unwrap().writes.len();
        for bit in 0..unpadded * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find(&damaged, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn writes_that_are_not_whole_are_refused() {
        let mut record = Vec::new();
        encode(&batch(), &mut record);
        let whole: Vec<usize> =
            (0..=record.len()).filter(|n| decode(&record[..*n]).is_some()).collect();
        assert_eq!(whole.len(), 4, "only at the borders of writes: {whole:?}");
        assert_eq!(decode(&[9, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[PUT, 9, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
