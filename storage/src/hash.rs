//! The hash of the state (R6), of two parts: what was done, and what there is.
//!
//! The rolling part covers every change up to a revision: two members that agree on it have applied
//! the same changes since they began. The digest is the sum of what every key that exists is; it is
//! computed from the records themselves when a store is opened, so that a member whose data was
//! changed at rest differs, though it has applied what the others have.
//!
//! The rolling part is FNV-1a of 64 bits over the stored records: each step is a bijection of the state, so that
//! one differing byte can never cancel out by itself. It guards against faults, not against attack.

use std::collections::VecDeque;

use crate::kv::{KeyValue, Revision};

/// The hash of an empty store.
pub(crate) const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Of how many revisions the hash is kept, for members to find one that both have.
const KEPT: usize = 8192;

/// `hash` with `bytes` and their length added.
pub(crate) fn extend(hash: u64, bytes: &[u8]) -> u64 {
    let length = (bytes.len() as u64).to_le_bytes();
    length
        .iter()
        .chain(bytes)
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
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
    use super::*;

    #[test]
    fn the_hash_depends_on_order_and_on_where_records_end() {
        let of = |records: &[&[u8]]| records.iter().fold(EMPTY, |hash, r| extend(hash, r));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"ab", b""]), of(&[b"a", b"b"]));
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
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
