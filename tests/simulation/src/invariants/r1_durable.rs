//! R1: what was acknowledged is there, in the revision that was told.

use std::collections::BTreeMap;

use crate::history::{History, Told};

pub(super) fn judge(history: &History, changes: &BTreeMap<u64, Vec<Told>>) {
    for written in &*history.written.lock() {
        let there = changes.get(&written.revision);
        for (key, value) in &written.values {
            let is_there = there.is_some_and(|there| {
                there.iter().any(|told| told.key == *key && told.value.as_ref() == Some(value))
            });
            assert!(is_there, "R1: {key} = {value} was acknowledged and is lost: {written:?}");
        }
    }
}
