use super::*;
use crate::kv::Proposal;
use crate::local::LocalKv;
use crate::store::{ApplyBatch, ApplyOutcome, Store, StoreCommand};

fn revision(number: u64) -> Revision {
    Revision::new(number)
}

/// A store with leases 5 and 6, a at revision 2 (lease 5), b at 3 and b again at 4.
fn store() -> Store {
    let store = LocalKv::in_memory().store().clone();
    let grant = |id| StoreCommand::LeaseGrant { id, ttl_seconds: 60 };
    let commands = vec![grant(5), grant(6)];
    store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap();
    let put_a =
        Op::Put { key: "a".into(), value: Some("1".into()), lease: Some(5), prev_kv: false };
    done(&store, vec![put_a]);
    done(&store, vec![Op::put("b", "1")]);
    done(&store, vec![Op::put("b", "2")]);
    store
}

fn run(store: &Store, txn: Txn) -> Result<TxnResponse, KvError> {
    let commands = vec![StoreCommand::Txn(txn)];
    let outcomes = store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap();
    match outcomes.into_iter().next() {
        Some(ApplyOutcome::Txn(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

fn done(store: &Store, success: Vec<Op>) -> TxnResponse {
    run(store, Txn { success, ..Txn::default() }).unwrap()
}

fn holds(range: KeyRange, target: CompareTarget, result: CompareResult) -> bool {
    let compare = vec![Compare { range, result, target }];
    run(&store(), Txn { compare, ..Txn::default() }).unwrap().succeeded
}

#[test]
fn each_target_is_compared_each_way() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let cases = [
        (CompareTarget::Version(1), CompareTarget::Version(2), CompareTarget::Version(3)),
        (
            CompareTarget::CreateRevision(revision(2)),
            CompareTarget::CreateRevision(revision(3)),
            CompareTarget::CreateRevision(revision(4)),
        ),
        (
            CompareTarget::ModRevision(revision(3)),
            CompareTarget::ModRevision(revision(4)),
            CompareTarget::ModRevision(revision(5)),
        ),
        (
            CompareTarget::Value("1".into()),
            CompareTarget::Value("2".into()),
            CompareTarget::Value("20".into()),
        ),
        (CompareTarget::Lease(-1), CompareTarget::Lease(0), CompareTarget::Lease(1)),
    ];
    for (below, same, above) in cases {
        let expected = [
            (&below, [false, true, true, false]),
            (&same, [true, false, false, false]),
            (&above, [false, true, false, true]),
        ];
        for (target, expected) in expected {
            let found = [Equal, NotEqual, Greater, Less]
                .map(|result| holds(KeyRange::key("b"), target.clone(), result));
            assert_eq!(found, expected, "{target:?}");
        }
    }
}

#[test]
fn a_key_that_does_not_exist_compares_as_zero_and_has_no_value() {
    let absent = || KeyRange::key("absent");
    assert!(holds(absent(), CompareTarget::Version(0), CompareResult::Equal));
    assert!(holds(absent(), CompareTarget::CreateRevision(Revision::ZERO), CompareResult::Equal));
    assert!(holds(absent(), CompareTarget::ModRevision(revision(1)), CompareResult::Less));
    assert!(holds(absent(), CompareTarget::Lease(0), CompareResult::Equal));
    for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less] {
        assert!(!holds(absent(), CompareTarget::Value(Bytes::new()), result));
    }
}

#[test]
fn a_compare_over_a_range_must_hold_for_every_key_of_it() {
    let all = || KeyRange::all();
    assert!(holds(all(), CompareTarget::Version(0), CompareResult::Greater));
    assert!(!holds(all(), CompareTarget::Version(1), CompareResult::Equal));
    assert!(holds(KeyRange::prefix("a"), CompareTarget::Version(1), CompareResult::Equal));
    assert!(holds(KeyRange::prefix("zz"), CompareTarget::Version(0), CompareResult::Equal));
}

#[test]
fn all_compares_must_hold_for_the_one_branch_else_it_is_the_other() {
    let store = store();
    let txn = |second| Txn {
        compare: vec![Compare::unchanged_since("a", revision(2)), second],
        success: vec![Op::put("then", "1")],
        failure: vec![Op::put("else", "1"), Op::get("a")],
    };
    let refused = run(&store, txn(Compare::unchanged_since("b", revision(3)))).unwrap();
    assert!(!refused.succeeded && refused.responses.len() == 2);
    let taken = run(&store, txn(Compare::unchanged_since("b", revision(4)))).unwrap();
    assert!(taken.succeeded && taken.responses.len() == 1);
    assert_eq!((refused.revision, taken.revision), (revision(5), revision(6)));
}

fn range_of(response: &OpResponse) -> (u64, Vec<(Bytes, Bytes)>) {
    match response {
        OpResponse::Range(range) => {
            let pairs = range.kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone())).collect();
            (range.revision.get(), pairs)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_reads_its_own_writes_and_shares_one_revision() {
    let store = store();
    let all = || Op::Range(RangeRequest::new(KeyRange::all()));
    let past = RangeRequest { revision: Some(revision(3)), ..RangeRequest::new(KeyRange::all()) };
    let response = done(
        &store,
        vec![
            all(),
            Op::put("c", "1"),
            Op::DeleteRange { range: KeyRange::key("a"), prev_kv: true },
            all(),
            Op::Range(past),
        ],
    );
    assert_eq!(response.revision, revision(5));
    let pair = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
    let before = (4, vec![pair("a", "1"), pair("b", "2")]);
    let after = (5, vec![pair("b", "2"), pair("c", "1")]);
    assert_eq!(range_of(&response.responses[0]), before);
    assert_eq!(range_of(&response.responses[3]), after);
    assert_eq!(range_of(&response.responses[4]), (5, vec![pair("a", "1"), pair("b", "1")]));
    let latest = store.range(&RangeRequest::new(KeyRange::key("c"))).unwrap().kvs.remove(0);
    assert_eq!((latest.create_revision, latest.mod_revision), (revision(5), revision(5)));
}

#[test]
fn a_nested_transaction_compares_the_state_before_and_reads_what_was_written() {
    let store = store();
    let nested = |compare| Txn {
        compare: vec![compare],
        success: vec![Op::get("new")],
        failure: vec![Op::put("not seen", "1")],
    };
    let absent = nested(Compare::unchanged_since("new", Revision::ZERO));
    let response = done(&store, vec![Op::put("new", "1"), Op::Txn(absent.into())]);
    let OpResponse::Txn(inner) = &response.responses[1] else { panic!("{response:?}") };
    assert!(inner.succeeded, "the put before it has not happened yet for its compare");
    let OpResponse::Range(read) = &inner.responses[0] else { panic!("{inner:?}") };
    assert_eq!((read.count, inner.revision), (1, revision(5)));
    let present = nested(Compare::unchanged_since("newer", revision(6)));
    let response = done(&store, vec![Op::put("newer", "1"), Op::Txn(present.into())]);
    let OpResponse::Txn(inner) = &response.responses[1] else { panic!("{response:?}") };
    assert!(!inner.succeeded);
}

#[test]
fn a_put_that_keeps_what_the_same_transaction_puts_is_refused() {
    let keep = Op::Put { key: "new".into(), value: None, lease: Some(0), prev_kv: false };
    let inner = Txn { failure: vec![keep], ..branch_taken() };
    let txn = Txn { success: vec![Op::Txn(inner.into())], ..Txn::default() };
    assert_eq!(run(&store(), txn), Err(InvalidRequest::KeyNotFound.into()));
    let lost = Op::Put { key: "k".into(), value: None, lease: Some(99), prev_kv: false };
    let not_taken = Txn { success: vec![lost], failure: vec![Op::put("k", "1")], ..branch_taken() };
    run(&store(), not_taken).unwrap();
}

/// A transaction whose compare fails, so that its second branch is taken.
fn branch_taken() -> Txn {
    let compare = vec![Compare::unchanged_since("a", Revision::ZERO)];
    Txn { compare, ..Txn::default() }
}

#[test]
fn a_put_may_keep_the_value_or_the_lease() {
    let store = store();
    let put = |value: Option<&'static str>, lease| Op::Put {
        key: "a".into(),
        value: value.map(Bytes::from),
        lease,
        prev_kv: true,
    };
    let a = || store.range(&RangeRequest::new(KeyRange::key("a"))).unwrap().kvs.remove(0);
    done(&store, vec![put(None, Some(6))]);
    assert_eq!((a().value, a().lease, a().version), ("1".into(), 6, 2));
    done(&store, vec![put(Some("2"), None)]);
    assert_eq!((a().value, a().lease, a().version), ("2".into(), 6, 3));
    let response = done(&store, vec![put(Some("3"), Some(0))]);
    let OpResponse::Put { prev_kv: Some(prev) } = &response.responses[0] else { panic!() };
    assert_eq!((&prev.value[..], prev.lease), (&b"2"[..], 6));
    assert_eq!(a().lease, 0);
}

#[test]
fn deleting_a_range_says_what_went() {
    let store = store();
    let delete = |prev_kv| vec![Op::DeleteRange { range: KeyRange::all(), prev_kv }];
    let response = done(&store, delete(true));
    let OpResponse::DeleteRange { deleted: 2, prev_kvs } = &response.responses[0] else { panic!() };
    assert_eq!(prev_kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    let again = done(&store, delete(true));
    assert_eq!(again.revision, response.revision);
    assert_eq!(again.responses, [OpResponse::DeleteRange { deleted: 0, prev_kvs: Vec::new() }]);
}

#[test]
fn a_read_of_the_future_or_of_the_compacted_past_refuses_the_whole_transaction() {
    let store = store();
    let at = |number| {
        Op::Range(RangeRequest {
            revision: Some(revision(number)),
            ..RangeRequest::new(KeyRange::all())
        })
    };
    let commands = vec![StoreCommand::Compact(revision(3))];
    store.apply(ApplyBatch { commands, ..ApplyBatch::default() }).unwrap();
    let txn = |number| Txn { success: vec![Op::put("x", "1"), at(number)], ..Txn::default() };
    let future = KvError::FutureRevision { requested: revision(5), current: revision(4) };
    assert_eq!(run(&store, txn(5)), Err(future));
    let compacted = KvError::Compacted { requested: revision(2), compacted: revision(3) };
    assert_eq!(run(&store, txn(2)), Err(compacted));
    assert_eq!(store.revision(), revision(4));
    run(&store, txn(4)).unwrap();
}

#[test]
fn a_small_value_does_not_keep_the_buffer_it_came_in() {
    let store = LocalKv::in_memory().store().clone();
    let buffer = Bytes::from(vec![7; 1 << 20]);
    done(&store, vec![Op::put("k", buffer.slice(5..10))]);
    let value = store.range(&RangeRequest::new(KeyRange::key("k"))).unwrap().kvs.remove(0).value;
    assert!(!buffer.as_ptr_range().contains(&value.as_ptr()));
}

#[tokio::test]
async fn a_proposal_of_a_past_term_is_fenced() {
    use crate::kv::{Kv, Term};
    let kv = LocalKv::in_memory();
    let txn = Txn { success: vec![Op::put("a", "1")], ..Txn::default() };
    let refused = kv.txn(Proposal { txn: txn.clone(), fence: Some(Term(0)) }).await;
    assert_eq!(refused, Err(KvError::Fenced { term: Term(0), current: Term(1) }));
    kv.txn(Proposal { txn, fence: Some(Term(1)) }).await.unwrap();
    assert_eq!(kv.revision(), revision(2));
}
