//! [`Held`]: the young end of the Raft log, which never goes to sled.
//!
//! A record of the log is purged soon after it was written. Taken to sled like everything else it is
//! written twice more on the way, and once more to be removed: without that, and with one lookup of
//! a key less, a put of 1 KiB takes three members 132-155 us of CPU rather than 215-230 (256
//! clients, in turns). So a step leaves it here, and the journal keeps its segments as far back as
//! that reaches; opening replays them. Of a log that grows longer the oldest goes to sled after all.
//!
//! ```text
//!   journal   … ────┬───────────┬───────────┬────────▶      one generation of records a step
//!   held          oldest …    …           newest
//!                 after ◀── the checkpoint: sled has all before, and the rest is replayed
//! ```

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Tree;
use super::journal::Sequence;
use super::overlay::{Points, TreeLayer};

/// How much of the journal may have to be kept and replayed.
const HELD_BYTES: usize = 64 << 20;

/// Records of the log between the active layer and sled.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// It has points alone: what is cleared is removed.
    log: TreeLayer,
    /// The generation of each point.
    of: BTreeMap<Bytes, Sequence>,
    /// Oldest first.
    generations: VecDeque<Generation>,
}

/// What was in the active layer between two steps.
#[derive(Debug, Clone, Copy)]
struct Generation {
    /// The journal's record before its first one; it is known by that.
    after: Sequence,
    /// How much of the journal it takes, log or not.
    bytes: usize,
}

impl Held {
    /// What is held back from sled.
    pub(super) const TREE: Tree = Tree::Log;

    /// The points, where they are of this tree.
    pub(super) fn tree(&self, tree: Tree) -> Option<&TreeLayer> {
        (tree == Self::TREE).then_some(&self.log)
    }

    /// Forgets the points between two keys.
    pub(super) fn clear(&mut self, start: &Bytes, before: &Bytes) {
        if start < before {
            self.log.points.extract_if(start..before, |_, _| true).for_each(drop);
            self.of.extract_if(start..before, |_, _| true).for_each(drop);
        }
    }

    /// Takes a generation's points, and gives those that are to go to sled.
    pub(super) fn exchange(&mut self, points: Points, after: Sequence, bytes: usize) -> Points {
        self.of.extend(points.keys().map(|key| (key.clone(), after)));
        self.log.points.extend(points);
        self.generations.push_back(Generation { after, bytes });
        self.forget_empty();
        let mut given = Points::new();
        let mut bytes: usize = self.generations.iter().map(|generation| generation.bytes).sum();
        while bytes > HELD_BYTES
            && let Some(oldest) = self.generations.pop_front()
        {
            bytes -= oldest.bytes;
            for (key, _) in self.of.extract_if(.., |_, after| *after == oldest.after) {
                given.extend(self.log.points.remove_entry(&key));
            }
        }
        given
    }

    /// Drops the oldest generations as far as nothing of them is held any more.
    fn forget_empty(&mut self) {
        let after = self.after().unwrap_or(Sequence::MAX);
        while self.generations.pop_front_if(|oldest| oldest.after < after).is_some() {}
    }

    /// The journal's records after this one are needed; `None` where nothing is held.
    pub(super) fn after(&self) -> Option<Sequence> {
        self.of.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(keys: &[&'static str]) -> Points {
        keys.iter().map(|key| (Bytes::from(*key), Some(Bytes::from("record")))).collect()
    }

    fn clear(held: &mut Held, start: &'static str, before: &'static str) {
        held.clear(&start.into(), &before.into());
    }

    #[test]
    fn the_journal_is_needed_from_the_oldest_record_that_is_held() {
        let mut held = Held::default();
        assert_eq!(held.after(), None);
        assert!(held.exchange(points(&["a", "b"]), 0, 10).is_empty());
        assert!(held.exchange(points(&["c"]), 7, 10).is_empty());
        assert_eq!(held.after(), Some(0));
        clear(&mut held, "a", "b");
        assert_eq!(held.after(), Some(0));
        // A record that is written again is of the newer generation alone.
        assert!(held.exchange(points(&["b"]), 9, 10).is_empty());
        assert_eq!(held.after(), Some(7));
        clear(&mut held, "a", "z");
        assert_eq!(held.after(), None);
    }

    #[test]
    fn what_takes_too_much_of_the_journal_goes_to_sled_oldest_first() {
        let mut held = Held::default();
        assert!(held.exchange(points(&["a", "b"]), 0, HELD_BYTES / 2).is_empty());
        assert!(held.exchange(points(&["c"]), 5, HELD_BYTES / 2).is_empty());
        assert_eq!(held.exchange(points(&["d"]), 8, 1), points(&["a", "b"]));
        assert_eq!(held.after(), Some(5));
        assert_eq!(held.exchange(points(&["e"]), 9, 2 * HELD_BYTES), points(&["c", "d", "e"]));
        assert_eq!(held.after(), None);
    }

    #[test]
    fn a_generation_of_which_nothing_is_left_counts_no_more() {
        let mut held = Held::default();
        held.exchange(points(&["a"]), 0, HELD_BYTES);
        clear(&mut held, "a", "b");
        assert!(held.exchange(points(&["b"]), 3, HELD_BYTES).is_empty());
        assert_eq!(held.after(), Some(3));
    }
}
