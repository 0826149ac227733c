//! R9: what a leader's tasks write counts in its term alone: terms only grow with revisions.

use std::collections::BTreeMap;

use crate::history::{History, Told};

pub(super) fn judge(history: &History, changes: &BTreeMap<u64, Vec<Told>>) {
    let mut latest = 0;
    let all = changes.values().flatten().filter(|told| told.key == "leader");
    for told in all {
        let value = told.value.as_deref().unwrap();
        let term: u64 = value.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(term >= latest, "R9: written in term {term} after {latest}: {told:?}");
        latest = term;
    }
    for (revision, term) in &*history.fenced.lock() {
        let told = &changes[revision];
        let says = |value: &String| value.starts_with(&format!("term {term} "));
        assert!(told.iter().any(|told| told.value.as_ref().is_some_and(says)), "R1: {told:?}");
    }
}
