//! The rolling hash of the state (R6): each revision's value covers every change up to it, so two
//! members that agree on it at one revision have applied the same changes since they began.
//!
//! It is FNV-1a of 64 bits over the stored records: each step is a bijection of the state, so that
//! one differing byte can never cancel out by itself. It guards against faults, not against attack.

use std::collections::VecDeque;

use crate::kv::Revision;

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
