use super::*;

fn member(name: &str) -> Member {
    Member { name: name.to_owned(), raft_addr: format!("{name}:1"), ..Member::default() }
}

/// Voters from 1 on and learners behind them, of whom `active` answer; logs are whole.
fn members(voters: u64, learners: u64, active: &[NodeId]) -> Members {
    let all = 1..=voters + learners;
    Members {
        known: all.clone().map(|id| (id, member(&format!("s{id}")))).collect(),
        voters: (1..=voters).collect(),
        active: active.iter().copied().collect(),
        log: 1_000,
        matched: all.map(|id| (id, 1_000)).collect(),
    }
}

fn refusal(members: &Members, change: Change) -> (String, String) {
    let Refusal { reason, detail } = plan(members, change).unwrap_err();
    (reason, detail)
}

#[test]
fn a_number_or_an_address_is_not_given_twice() {
    let three = members(2, 1, &[1, 2, 3]);
    plan(&three, Change::AddLearner(3, member("d"))).unwrap_err();
    plan(&three, Change::AddLearner(4, member("s3"))).unwrap_err();
    let again = plan(&three, Change::AddLearner(3, member("s3")));
    assert_eq!(again, Ok(Some(Step::CatchUp(3))));
    let step = Step::AddLearner(4, member("d"));
    assert_eq!(plan(&three, Change::AddLearner(4, member("d"))), Ok(Some(step)));
}

#[test]
fn only_a_learner_becomes_a_voter_and_what_is_done_is_done() {
    let three = members(2, 1, &[1, 2, 3]);
    plan(&three, Change::Promote(9)).unwrap_err();
    assert_eq!(plan(&three, Change::Promote(2)), Ok(None));
    assert!(plan(&three, Change::Promote(3)).unwrap().is_some());
    assert!(plan(&three, Change::Remove(2)).unwrap().is_some());
    assert_eq!(plan(&three, Change::Remove(9)), Ok(None));
}

#[test]
fn removals_that_would_lose_the_quorum_are_refused_and_no_others() {
    // Voters, those that answer, who goes, and why not.
    let table: &[(u64, &[NodeId], NodeId, Option<&str>)] = &[
        (1, &[1], 1, Some(NOT_ENOUGH_STARTED)),
        (2, &[1, 2], 2, None),
        (2, &[1, 2], 1, None),
        (3, &[1, 2, 3], 3, None),
        (3, &[1, 2], 3, None),
        (3, &[1, 2], 2, Some(UNHEALTHY)),
        (3, &[1, 2], 1, Some(UNHEALTHY)),
        (4, &[1, 2, 3], 4, None),
        (4, &[1, 2, 3], 3, None),
        (5, &[1, 2, 3], 3, Some(UNHEALTHY)),
        (5, &[1, 2, 3], 5, None),
        (5, &[1, 2, 3, 4], 4, None),
    ];
    for (voters, active, leaving, expected) in table {
        let planned = plan(&members(*voters, 0, active), Change::Remove(*leaving));
        let reason = planned.as_ref().err().map(|refusal| &*refusal.reason);
        assert_eq!(reason, *expected, "{voters} voters, {active:?} answer, {leaving} goes");
    }
    let (_, detail) = refusal(&members(3, 0, &[1, 2]), Change::Remove(2));
    assert_eq!(detail, "1 of 2 voters would answer then, and 2 are needed (no answer from s3)");
    let (_, detail) = refusal(&members(1, 0, &[1]), Change::Remove(1));
    assert_eq!(detail, "s1 is the last voter");
}

#[test]
fn a_learner_goes_at_any_time() {
    assert!(plan(&members(3, 1, &[1, 2]), Change::Remove(4)).unwrap().is_some());
}

#[test]
fn promotions_that_would_lose_the_quorum_are_refused_and_no_others() {
    // Voters, those that answer, and why the learner behind them may not vote.
    let table: &[(u64, &[NodeId], Option<&str>)] = &[
        (1, &[1, 2], None),
        (2, &[1, 2, 3], None),
        (3, &[1, 2, 4], None),
        (4, &[1, 2, 3, 5], None),
        (3, &[1, 2, 3], Some(NOT_IN_SYNC)),
        (3, &[1, 4], Some(NOT_ENOUGH_STARTED)),
        (5, &[1, 2, 6], Some(NOT_ENOUGH_STARTED)),
    ];
    for (voters, active, expected) in table {
        let planned = plan(&members(*voters, 1, active), Change::Promote(voters + 1));
        let reason = planned.as_ref().err().map(|refusal| &*refusal.reason);
        assert_eq!(reason, *expected, "{voters} voters, {active:?} answer");
    }
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let mut lagging = members(3, 1, &[1, 2, 3, 4]);
    for (matched, may) in [(0, false), (899, false), (900, true), (1_000, true)] {
        lagging.matched.insert(4, matched);
        assert_eq!(plan(&lagging, Change::Promote(4)).is_ok(), may, "{matched} of 1,000");
    }
    lagging.matched.insert(4, 7);
    let (reason, detail) = refusal(&lagging, Change::Promote(4));
    assert_eq!(reason, NOT_IN_SYNC);
    assert_eq!(detail, "s4 has 7 of 1000 log entries, and 90 % are needed");
}
