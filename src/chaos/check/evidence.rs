//! How far the store had come at a time, as far as the answers prove it.

use std::collections::HashMap;

use crate::chaos::history::{Outcome, Record};

/// (end of an answer, the highest revision proved by any answer up to then), by time.
#[derive(Default)]
struct Proved(Vec<(u64, u64)>);

impl Proved {
    fn from(mut answers: Vec<(u64, u64)>) -> Self {
        answers.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut answers {
            highest = highest.max(*revision);
            *revision = highest;
        }
        Self(answers)
    }

    /// What was proved strictly before `at_us`: an answer of the same microsecond is concurrent.
    fn before(&self, at_us: u64) -> u64 {
        let count = self.0.partition_point(|(end_us, _)| *end_us < at_us);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// What answers prove, of the whole store and of each key.
pub(super) struct Evidence {
    store: Proved,
    keys: HashMap<String, Proved>,
}

impl Evidence {
    pub(super) fn of(history: &[Record]) -> Self {
        let mut store = Vec::new();
        let mut keys: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        let mut prove = |key: &str, end_us: u64, revision: u64| {
            keys.entry(key.to_owned()).or_default().push((end_us, revision));
        };
        for record in history {
            match record {
                Record::Write {
                    span, key, outcome: Outcome::Acknowledged { revision }, ..
                } => {
                    store.push((span.end_us, *revision));
                    prove(key, span.end_us, *revision);
                }
                Record::Read { span, item, .. } => {
                    store.push((span.end_us, item.revision));
                    prove(&item.key, span.end_us, item.revision);
                }
                Record::List { span, revision, items, .. } => {
                    store.push((span.end_us, *revision));
                    for item in items {
                        prove(&item.key, span.end_us, item.revision);
                    }
                }
                _ => {}
            }
        }
        let keys = keys.into_iter().map(|(key, answers)| (key, Proved::from(answers))).collect();
        Self { store: Proved::from(store), keys }
    }

    /// The revision that the store had reached for certain before `at_us`.
    pub(super) fn store_before(&self, at_us: u64) -> u64 {
        self.store.before(at_us)
    }

    /// The revision that `key` had reached for certain before `at_us`.
    pub(super) fn key_before(&self, key: &str, at_us: u64) -> u64 {
        self.keys.get(key).map_or(0, |proved| proved.before(at_us))
    }
}
