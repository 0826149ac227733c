//! Each promise is broken on purpose: a checker that finds nothing in these proves nothing.

use super::*;
use crate::chaos::scenario::FaultKind;

const fn at(start_us: u64, end_us: u64) -> Span {
    Span { start_us, end_us }
}

fn item(key: &str, value: &str, revision: u64) -> Item {
    Item { key: key.into(), value: value.into(), revision }
}

fn write(span: Span, key: &str, value: &str, base: u64, outcome: Outcome) -> Record {
    Record::Write { client: 1, span, key: key.into(), value: value.into(), base, outcome }
}

fn acknowledged(span: Span, key: &str, value: &str, base: u64, revision: u64) -> Record {
    write(span, key, value, base, Outcome::Acknowledged { revision })
}

fn unknown(span: Span, key: &str, value: &str, base: u64) -> Record {
    write(span, key, value, base, Outcome::Unknown { reason: "connection reset".into() })
}

fn read(span: Span, key: &str, value: &str, revision: u64) -> Record {
    Record::Read { client: 2, span, item: item(key, value, revision) }
}

fn list(span: Span, revision: u64, items: &[Item]) -> Record {
    Record::List { client: 3, span, revision, items: items.into() }
}

fn event(key: &str, value: &str, revision: u64) -> Record {
    Record::Event { watcher: 1, item: item(key, value, revision) }
}

fn begin() -> Record {
    let items = vec![item("a", "a0", 10), item("b", "b0", 11)];
    Record::WatchStart { watcher: 1, revision: 11, items }
}

/// Two keys, two writes each, read and watched.
fn good() -> Vec<Record> {
    vec![
        begin(),
        acknowledged(at(0, 10), "a", "a1", 10, 12),
        read(at(11, 12), "a", "a1", 12),
        acknowledged(at(5, 20), "b", "b1", 11, 13),
        list(at(21, 22), 13, &[item("a", "a1", 12), item("b", "b1", 13)]),
        unknown(at(23, 40), "a", "a2", 12),
        read(at(41, 42), "a", "a2", 14),
        acknowledged(at(43, 50), "b", "b2", 13, 16),
        event("a", "a1", 12),
        event("b", "b1", 13),
        event("a", "a2", 14),
        event("b", "b2", 16),
    ]
}

fn broken(history: &[Record]) -> Vec<Promise> {
    let mut promises: Vec<Promise> = check(history).iter().map(|found| found.promise).collect();
    promises.sort_unstable();
    promises.dedup();
    promises
}

/// `good()` with one record replaced.
fn with(index: usize, record: Record) -> Vec<Record> {
    let mut history = good();
    history[index] = record;
    history
}

#[test]
fn a_history_of_a_correct_store_passes() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_write_of_unknown_outcome_may_as_well_never_have_happened() {
    let mut history = good();
    history.retain(|record| !matches!(record, Record::Event { item, .. } if item.value == "a2"));
    history.remove(6);
    assert_eq!(check(&history), []);
}

#[test]
fn an_acknowledged_write_that_no_watcher_saw_is_found() {
    let mut history = good();
    history.remove(11);
    assert_eq!(broken(&history), [Promise::WatchComplete]);
}

#[test]
fn an_acknowledged_write_whose_revision_went_to_another_is_found() {
    let found = broken(&with(9, event("b", "b2", 13)));
    assert!(found.contains(&Promise::NoLostWrite), "{found:?}");
}

#[test]
fn a_write_that_took_a_revision_of_the_past_is_found() {
    // Begun at 43 µs, when 14 had been read, and acknowledged at 12 or below: history was rewritten.
    let history = vec![
        begin(),
        list(at(1, 2), 20, &[item("a", "a0", 10), item("b", "b0", 11)]),
        acknowledged(at(3, 4), "a", "a1", 10, 15),
        event("a", "a1", 15),
    ];
    assert!(broken(&history).contains(&Promise::NoLostWrite));
}

#[test]
fn a_refused_write_that_took_effect_is_found() {
    let refused = Outcome::Refused { reason: "conflict".into() };
    let history = with(5, write(at(23, 40), "a", "a2", 12, refused));
    assert_eq!(broken(&history), [Promise::NoRefusedEffect]);
}

#[test]
fn a_retried_write_that_took_effect_twice_is_found() {
    let mut history = good();
    history.push(event("a", "a2", 17));
    let found = broken(&history);
    assert!(found.contains(&Promise::AtMostOnce), "{found:?}");
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    let mut history = good();
    history.push(event("a", "ghost", 17));
    assert_eq!(broken(&history), [Promise::NothingMadeUp]);
}

#[test]
fn a_lost_update_is_found() {
    // Both were to follow revision 10, and both were acknowledged.
    let history = vec![
        begin(),
        acknowledged(at(0, 9), "a", "a1", 10, 12),
        acknowledged(at(0, 9), "a", "a2", 10, 13),
        event("a", "a1", 12),
        event("a", "a2", 13),
    ];
    assert_eq!(broken(&history), [Promise::CompareAndSet]);
}

#[test]
fn a_read_older_than_an_acknowledged_write_is_found() {
    assert_eq!(broken(&with(2, read(at(11, 12), "a", "a0", 10))), [Promise::NoStaleRead]);
}

#[test]
fn a_read_older_than_another_read_before_it_is_found() {
    let mut history = good();
    history.insert(7, read(at(43, 44), "a", "a1", 12));
    assert_eq!(broken(&history), [Promise::NoStaleRead]);
}

#[test]
fn a_read_concurrent_with_a_write_may_see_either_state() {
    for (value, revision) in [("b0", 11), ("b1", 13)] {
        let mut history = good();
        history.insert(2, read(at(6, 19), "b", value, revision));
        assert_eq!(check(&history), [], "{value}");
    }
}

#[test]
fn a_stale_list_is_found() {
    let stale = list(at(21, 22), 12, &[item("a", "a1", 12), item("b", "b0", 11)]);
    assert_eq!(broken(&with(4, stale)), [Promise::NoStaleRead]);
}

#[test]
fn a_list_that_mixes_revisions_is_found() {
    let mixed = list(at(21, 22), 13, &[item("a", "a1", 12), item("b", "b0", 11)]);
    assert_eq!(broken(&with(4, mixed)), [Promise::ConsistentRead]);
    let from_the_future = list(at(21, 22), 13, &[item("a", "a2", 14), item("b", "b1", 13)]);
    assert_eq!(broken(&with(4, from_the_future)), [Promise::ConsistentRead]);
    let lacking = list(at(21, 22), 13, &[item("b", "b1", 13)]);
    assert_eq!(broken(&with(4, lacking)), [Promise::ConsistentRead]);
}

#[test]
fn a_watch_that_repeats_or_goes_back_is_found() {
    let mut repeating = good();
    repeating.push(event("b", "b2", 16));
    assert_eq!(broken(&repeating), [Promise::WatchOrdered]);
    let mut backwards = good();
    backwards.swap(8, 9);
    assert_eq!(broken(&backwards), [Promise::WatchOrdered]);
    let mut from_before_its_start = good();
    from_before_its_start.insert(8, event("a", "a0", 10));
    assert_eq!(broken(&from_before_its_start), [Promise::WatchOrdered]);
}

#[test]
fn a_watch_that_could_not_be_resumed_is_found() {
    let mut history = good();
    history.push(Record::WatchGap { watcher: 1, revision: 13, reason: "410 Gone".into() });
    assert_eq!(broken(&history), [Promise::WatchComplete]);
}

#[test]
fn a_history_is_the_same_after_a_way_over_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut history = good();
    history.push(Record::Fault { at_us: 7, fault: FaultKind::Kill, server: "server-1".into() });
    crate::chaos::history::write(file.path(), &history).unwrap();
    assert_eq!(crate::chaos::history::read(file.path()).unwrap(), history);
}
