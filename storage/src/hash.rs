//! The hash of the state (R6), of two parts: what was done, and what there is.
//!
//! The rolling part covers every change up to a revision: two members that agree on it have applied
//! the same changes since they began. The digest is the sum of what every key that exists is; it is
//! computed from the records themselves when a store is opened, so that a member whose data was
//! changed at rest differs, though it has applied what the others have.
//!
//! The rolling part goes over the stored records eight bytes at a time: each step is a bijection of
//! the state, so that one differing word can never cancel out by itself. It guards against faults,
//! not against attack.

use std::collections::VecDeque;

use crate::kv::{KeyValue, Revision};

/// The hash of an empty store.
pub(crate) const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of how many revisions the hash is kept, for members to find one that both have.
const KEPT: usize = 8192;

/// `hash` with `bytes` and their length added.
pub(crate) fn extend(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let begun = step(hash, bytes.len() as u64);
    let hash = words.iter().fold(begun, |hash, word| step(hash, u64::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    // The length tells the padding from zeros of the bytes' own.
    let mut padded = [0; 8];
    padded[..rest.len()].copy_from_slice(rest);
    step(hash, u64::from_le_bytes(padded))
}

/// A bijection of `hash`, and of `word`.
fn step(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(FACTOR);
    mixed ^ (mixed >> 32)
}

/// A bijection that scatters what differs little (SplitMix64).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What one key that exists adds to the digest; cheap, for it is paid twice with every write.
pub(crate) fn of_key(kv: &KeyValue) -> u64 {
    let bytes = [&kv.key, &kv.value].map(|bytes| u64::from(crc32fast::hash(bytes)));
    let numbers =
        [kv.create_revision.get(), kv.mod_revision.get(), kv.version, kv.lease.cast_unsigned()];
    let parts = bytes.into_iter().chain(numbers);
    parts.fold(kv.value.len() as u64, |hash, part| scatter(hash ^ part))
}

/// The hash of a state of which the rolling hash and the digest are known.
pub(crate) fn of_state(rolling: u64, digest: u64) -> u64 {
    rolling ^ scatter(digest)
}

/// The hashes of the last revisions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentHashes {
    entries: VecDeque<(Revision, u64)>,
}

impl RecentHashes {
    /// Remembers the hash of a revision, which must be newer than all that are here.
    pub(crate) fn push(&mut self, revision: Revision, hash: u64) {
        assert!(
            self.entries.back().is_none_or(|(last, _)| *last < revision),
            "R3: revision {revision} must be newer than those hashed before it"
        );
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back((revision, hash));
    }

    /// The hash at `revision`; `None` where it is no longer, or not yet, known.
    pub(crate) fn at(&self, revision: Revision) -> Option<u64> {
        let position =
            self.entries.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        Some(self.entries[position].1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_hash_depends_on_order_and_on_where_records_end() {
        let of = |records: &[&[u8]]| records.iter().fold(EMPTY, |hash, r| extend(hash, r));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"ab", b""]), of(&[b"a", b"b"]));
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
    }

    #[test]
    fn any_flipped_bit_and_any_zero_more_or_less_changes_the_hash() {
        let bytes: Vec<u8> = (0..21).collect();
        let hash = extend(EMPTY, &bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(extend(EMPTY, &flipped), hash, "bit {bit}");
        }
        let zeros = [0; 24];
        let hashes: BTreeSet<_> = (0..=zeros.len()).map(|n| extend(EMPTY, &zeros[..n])).collect();
        assert_eq!(hashes.len(), zeros.len() + 1);
    }

    #[test]
    fn only_the_last_revisions_are_remembered() {
        let mut recent = RecentHashes::default();
        for number in 0..=KEPT as u64 {
            recent.push(Revision::new(number), number * 3);
        }
        assert_eq!(recent.at(Revision::new(0)), None);
        assert_eq!(recent.at(Revision::new(1)), Some(3));
        assert_eq!(recent.at(Revision::new(KEPT as u64)), Some(KEPT as u64 * 3));
        assert_eq!(recent.at(Revision::new(KEPT as u64 + 1)), None);
    }
}
