//! [`Recent`]: the last revisions in memory, so that a watcher that is a little behind catches up
//! without a read of the engine.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Revised;
use crate::kv::{Event, Revision};

/// How many revisions are kept.
const REVISIONS_MAX: usize = 4096;

/// How many bytes they may hold; their values are mostly shared with the latest state.
const BYTES_MAX: usize = 16 << 20;

/// The last revisions without a gap.
#[derive(Debug)]
pub(super) struct Recent {
    /// All that was published after this revision is here.
    after: Revision,
    revised: VecDeque<Arc<Revised>>,
    bytes: usize,
}

impl Recent {
    /// None yet, in a store that is at `revision`.
    pub(super) fn after(revision: Revision) -> Self {
        Self { after: revision, revised: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, revised: Arc<Revised>) {
        self.bytes += size(&revised);
        self.revised.push_back(revised);
        while self.revised.len() > REVISIONS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.revised.pop_front() else { break };
            self.bytes -= size(&oldest);
            self.after = oldest.revision;
        }
    }

    /// The revisions from `start` on, at most `most`; `None` where some of them are gone already.
    pub(super) fn from(&self, start: Revision, most: usize) -> Option<Vec<Arc<Revised>>> {
        if start <= self.after {
            return None;
        }
        let first = self.revised.partition_point(|revised| revised.revision < start);
        Some(self.revised.range(first..).take(most).cloned().collect())
    }
}

fn size(revised: &Revised) -> usize {
    let of = |event: &Event| {
        let prev = event.prev_kv.as_ref().map_or(0, |kv| kv.value.len());
        event.kv.key.len() + event.kv.value.len() + prev
    };
    revised.events.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revised(number: u64) -> Arc<Revised> {
        Arc::new(Revised { revision: Revision::new(number), events: Vec::new() })
    }

    fn numbers(recent: &Recent, start: u64) -> Option<Vec<u64>> {
        let found = recent.from(Revision::new(start), usize::MAX)?;
        Some(found.iter().map(|revised| revised.revision.get()).collect())
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_gone_is_admitted() {
        let mut recent = Recent::after(Revision::new(5));
        assert_eq!(numbers(&recent, 6), Some(vec![]));
        assert_eq!(numbers(&recent, 5), None);
        (6..9).for_each(|number| recent.push(revised(number)));
        assert_eq!(numbers(&recent, 7), Some(vec![7, 8]));
        assert_eq!(recent.from(Revision::new(6), 2).unwrap().len(), 2);
        (9..9 + REVISIONS_MAX as u64).for_each(|number| recent.push(revised(number)));
        assert_eq!(numbers(&recent, 8), None);
        assert_eq!(numbers(&recent, 9).unwrap().len(), REVISIONS_MAX);
    }
}
