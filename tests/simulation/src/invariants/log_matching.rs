//! Log matching: logs that have an entry of the same place and term are the same up to there. It is
//! enough that such entries are the same, and follow on the same term.

use std::collections::BTreeMap;

use crate::observer::Sight;

/// Of an entry, by place and term: its checksum, and the term before it where it was seen.
#[derive(Default)]
pub(super) struct Logs(BTreeMap<(u64, u64), (u32, Option<u64>)>);

impl Logs {
    pub(super) fn look(&mut self, sight: &Sight) {
        let mut before: Option<(u64, u64)> = None;
        for line in &sight.log {
            let follows = before.map(|(index, term)| {
                assert_eq!(index + 1, line.index, "a log must have no hole");
                assert!(term <= line.term, "the terms of a log must not go back");
                term
            });
            let place = (line.index, line.term);
            let known = self.0.entry(place).or_insert((line.checksum, follows));
            assert_eq!(known.0, line.checksum, "log matching: two entries at {place:?}");
            match (known.1, follows) {
                (Some(known), Some(follows)) => {
                    assert_eq!(known, follows, "log matching: before {place:?}");
                }
                (None, Some(_)) => known.1 = follows,
                (_, None) => {}
            }
            before = Some(place);
        }
    }
}
