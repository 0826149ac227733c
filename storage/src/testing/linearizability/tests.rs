use super::*;

fn put(key: &str, value: &str) -> Request {
    Request { success: vec![Do::Put(key.into(), value.into())], ..Request::default() }
}

fn get(key: &str) -> Request {
    Request { success: vec![Do::Get(key.into())], ..Request::default() }
}

fn set_if(key: &str, expected: Option<&str>, value: &str) -> Request {
    Request { compare: vec![(key.into(), expected.map(Into::into))], ..put(key, value) }
}

fn told(request: Request, called: u64, returned: u64, succeeded: bool) -> Operation {
    let answer = Answer { succeeded, read: Vec::new() };
    Operation { request, called, returned: Some((returned, answer)) }
}

fn read(key: &str, called: u64, returned: u64, value: Option<&str>) -> Operation {
    let answer = Answer { succeeded: true, read: vec![value.map(Into::into)] };
    Operation { request: get(key), called, returned: Some((returned, answer)) }
}

fn unknown(request: Request, called: u64) -> Operation {
    Operation { request, called, returned: None }
}

fn is_refused(history: &[Operation]) -> bool {
    matches!(check(history), Err(Failure::NotLinearizable { .. }))
}

#[test]
fn what_overlaps_may_have_happened_in_either_order() {
    let writes = [told(put("a", "1"), 0, 10, true), told(put("a", "2"), 5, 15, true)];
    for value in ["1", "2"] {
        let history = [&writes[..], &[read("a", 20, 30, Some(value))]].concat();
        assert_eq!(check(&history), Ok(()));
    }
    let both = [read("a", 20, 30, Some("1")), read("a", 31, 40, Some("2"))];
    assert!(is_refused(&[&writes[..], &both].concat()));
}

#[test]
fn a_stale_read_is_refused() {
    let history = [
        told(put("a", "1"), 0, 1, true),
        told(put("a", "2"), 2, 3, true),
        read("a", 4, 5, Some("1")),
    ];
    assert!(is_refused(&history));
    assert!(is_refused(&[told(put("a", "1"), 0, 1, true), read("a", 2, 3, None)]));
}

#[test]
fn reads_do_not_go_back_even_while_the_write_is_under_way() {
    let history =
        [told(put("a", "1"), 0, 100, true), read("a", 10, 20, Some("1")), read("a", 30, 40, None)];
    assert!(is_refused(&history));
}

#[test]
fn what_nobody_wrote_is_refused() {
    assert!(is_refused(&[told(put("a", "1"), 0, 1, true), read("a", 0, 9, Some("2"))]));
}

#[test]
fn a_write_of_unknown_outcome_may_come_late_or_never_but_not_before_it_was_asked_for() {
    let write = unknown(put("a", "1"), 10);
    assert_eq!(check(&[write.clone(), read("a", 20, 30, None)]), Ok(()));
    let late = [read("a", 20, 30, None), read("a", 40, 50, Some("1"))];
    assert_eq!(check(&[std::slice::from_ref(&write), &late[..]].concat()), Ok(()));
    assert!(is_refused(&[write.clone(), read("a", 1, 5, Some("1"))]));
    let twice = [
        read("a", 20, 30, Some("1")),
        told(put("a", "2"), 31, 32, true),
        read("a", 40, 50, Some("1")),
    ];
    assert!(is_refused(&[&[write], &twice[..]].concat()), "it is done once");
}

#[test]
fn of_two_that_compare_with_the_same_one_succeeds() {
    let first = told(set_if("a", None, "1"), 0, 10, true);
    let lost = told(set_if("a", None, "2"), 0, 10, false);
    assert_eq!(check(&[first.clone(), lost]), Ok(()));
    assert!(is_refused(&[first, told(set_if("a", None, "2"), 0, 10, true)]));
}

#[test]
fn a_transaction_is_seen_whole_and_joins_its_keys() {
    let both = Request {
        success: vec![Do::Put("a".into(), "1".into()), Do::Put("b".into(), "1".into())],
        ..Request::default()
    };
    let write = told(both, 0, 100, true);
    let seen = [read("a", 10, 20, Some("1")), read("b", 30, 40, Some("1"))];
    assert_eq!(check(&[std::slice::from_ref(&write), &seen[..]].concat()), Ok(()));
    let torn = [read("a", 10, 20, Some("1")), read("b", 30, 40, None)];
    assert!(is_refused(&[&[write], &torn[..]].concat()));
}

#[test]
fn a_deletion_is_a_write() {
    let delete = Request { success: vec![Do::Delete("a".into())], ..Request::default() };
    let history = [told(put("a", "1"), 0, 1, true), told(delete, 2, 3, true)];
    assert_eq!(check(&[&history[..], &[read("a", 4, 5, None)]].concat()), Ok(()));
    assert!(is_refused(&[&history[..], &[read("a", 4, 5, Some("1"))]].concat()));
}

/// Thousands of operations, some of unknown outcome: keys apart, it is quick.
#[test]
fn a_long_history_is_judged() {
    let mut history = Vec::new();
    for number in 0_u64..1000 {
        let (key, at) = (format!("{}", number % 5), number * 10);
        let (value, unseen) = (number.to_string(), format!("{number} unseen"));
        if number % 40 == 0 {
            history.push(unknown(put(&key, &unseen), at));
        }
        history.push(told(put(&key, &value), at, at + 12, true));
        history.push(read(&key, at + 13, at + 19, Some(&value)));
    }
    assert_eq!(check(&history), Ok(()));
    history.push(read("0", 50_000, 50_001, Some("0")));
    assert!(is_refused(&history));
}
