//! R10: a write is done at most once, however often it was sent; and one that was refused, never.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{History, Told};

pub(super) fn judge(history: &History, changes: &BTreeMap<u64, Vec<Told>>) {
    let refused = history.refused.lock();
    let mut seen = BTreeSet::new();
    for told in changes.values().flatten().filter(|told| !told.key.starts_with("lease/")) {
        let Some(value) = &told.value else { continue };
        assert!(seen.insert((&told.key, value)), "R10: done twice: {told:?}");
        assert!(!refused.contains(value), "R10: refused and done: {told:?}");
    }
}
