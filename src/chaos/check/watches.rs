//! Watches against the order.

use std::collections::BTreeMap;

use super::{Item, Promise, Record, Sorted, Violation};

struct Watch<'a> {
    start: u64,
    events: Vec<&'a Item>,
}

pub(super) fn check(history: &[Record], sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    let mut watches: BTreeMap<u32, Watch<'_>> = BTreeMap::new();
    for record in history {
        match record {
            Record::WatchStart { watcher, revision, .. } => {
                watches.insert(*watcher, Watch { start: *revision, events: Vec::new() });
            }
            Record::Event { watcher, item } => match watches.get_mut(watcher) {
                Some(watch) => watch.events.push(item),
                None => violations.push(Violation {
                    promise: Promise::WatchOrdered,
                    detail: format!("watcher {watcher} was told something before it began"),
                }),
            },
            Record::WatchGap { watcher, revision, reason } => violations.push(Violation {
                promise: Promise::WatchComplete,
                detail: format!("watcher {watcher} could not go on after {revision}: {reason}"),
            }),
            _ => {}
        }
    }
    for (watcher, watch) in &watches {
        ordered(*watcher, watch, violations);
        complete(*watcher, watch, sorted, violations);
    }
}

fn ordered(watcher: u32, watch: &Watch<'_>, violations: &mut Vec<Violation>) {
    let mut last = watch.start;
    for item in &watch.events {
        if item.revision <= last {
            violations.push(Violation {
                promise: Promise::WatchOrdered,
                detail: format!(
                    "watcher {watcher} was told of revision {} ({}) after {last}",
                    item.revision, item.key
                ),
            });
        }
        last = last.max(item.revision);
    }
}

/// Everything in the order from the start on: a run ends only when its watchers had time to see
/// its last write, so whatever lacks is lost.
fn complete(watcher: u32, watch: &Watch<'_>, sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    let mut told: Vec<u64> = watch.events.iter().map(|item| item.revision).collect();
    told.sort_unstable();
    for (revision, item) in sorted.order.range(watch.start + 1..) {
        if told.binary_search(revision).is_err() {
            violations.push(Violation {
                promise: Promise::WatchComplete,
                detail: format!(
                    "watcher {watcher} was not told of revision {revision} ({}={})",
                    item.key, item.value
                ),
            });
        }
    }
}
