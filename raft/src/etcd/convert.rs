//! Between etcd's messages and the words of the trait `Kv`.

use bytes::Bytes;
use kontiki_storage::kv::{
    Compare, CompareResult, CompareTarget, Consistency, InvalidRequest, KeyRange, KeyValue, Op,
    OpResponse, RangeEnd, RangeRequest, Revision, TXN_OPS_MAX, Txn, TxnResponse,
};
use tonic::Status;

use super::error::{self, empty_key};
use super::filter::Plan;
use super::proto;

type Converted<T> = Result<T, Box<Status>>;

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A revision; none where it is not positive.
pub(super) fn revision(number: i64) -> Option<Revision> {
    u64::try_from(number).ok().filter(|number| *number > 0).map(Revision::new)
}

/// etcd's ranges: no end is the key alone, an end of one zero byte is "to the last key", and a
/// start of one zero byte with it is every key.
pub(super) fn key_range(key: Bytes, end: Bytes) -> Converted<KeyRange> {
    if key.is_empty() {
        return Err(empty_key());
    }
    let end = match &end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        _ => RangeEnd::Before(end),
    };
    Ok(KeyRange { start: key, end })
}

pub(super) fn key_value(kv: KeyValue) -> proto::KeyValue {
    proto::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision.get()),
        mod_revision: signed(kv.mod_revision.get()),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease,
    }
}

pub(super) fn range(request: &proto::RangeRequest, plan: &Plan) -> Converted<RangeRequest> {
    Ok(RangeRequest {
        range: key_range(request.key.clone(), request.range_end.clone())?,
        revision: revision(request.revision),
        limit: plan.limit_to_read(),
        keys_only: request.keys_only && !plan.needs_values(),
        count_only: request.count_only,
        consistency: if request.serializable {
            Consistency::Serializable
        } else {
            Consistency::Linearizable
        },
    })
}

pub(super) fn put(request: proto::PutRequest) -> Converted<Op> {
    if request.key.is_empty() {
        return Err(empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Box::new(Status::invalid_argument("etcdserver: value is provided")));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Box::new(Status::invalid_argument("etcdserver: lease is provided")));
    }
    Ok(Op::Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then_some(request.lease),
        prev_kv: request.prev_kv,
    })
}

pub(super) fn delete_range(request: proto::DeleteRangeRequest) -> Converted<Op> {
    let range = key_range(request.key, request.range_end)?;
    Ok(Op::DeleteRange { range, prev_kv: request.prev_kv })
}

fn compare(request: &proto::Compare) -> Converted<Compare> {
    use proto::compare::{CompareResult as R, CompareTarget as T, TargetUnion as U};
    let invalid = || Box::new(Status::invalid_argument("etcdserver: invalid compare"));
    // As in etcd, what is not named, or named for another target, is zero or empty.
    let union = request.target_union.as_ref();
    let mut number = 0;
    let target = match (T::try_from(request.target).map_err(|_| invalid())?, union) {
        (T::Version, union) => {
            number = if let Some(U::Version(number)) = union { *number } else { 0 };
            CompareTarget::Version(unsigned(number))
        }
        (T::Create, union) => {
            number = if let Some(U::CreateRevision(number)) = union { *number } else { 0 };
            CompareTarget::CreateRevision(Revision::new(unsigned(number)))
        }
        (T::Mod, union) => {
            number = if let Some(U::ModRevision(number)) = union { *number } else { 0 };
            CompareTarget::ModRevision(Revision::new(unsigned(number)))
        }
        (T::Value, Some(U::Value(value))) => CompareTarget::Value(value.clone()),
        (T::Value, _) => CompareTarget::Value(Bytes::new()),
        (T::Lease, Some(U::Lease(lease))) => CompareTarget::Lease(*lease),
        (T::Lease, _) => CompareTarget::Lease(0),
    };
    let result = match R::try_from(request.result).map_err(|_| invalid())? {
        R::Equal => CompareResult::Equal,
        R::Greater => CompareResult::Greater,
        R::Less => CompareResult::Less,
        R::NotEqual => CompareResult::NotEqual,
    };
    let (result, target) = if number < 0 { below_all(result, target) } else { (result, target) };
    Ok(Compare {
        range: key_range(request.key.clone(), request.range_end.clone())?,
        result,
        target,
    })
}

/// A compare with a negative number, in words that have none: every number that is stored is
/// greater than it. None is as large as the largest.
fn below_all(result: CompareResult, target: CompareTarget) -> (CompareResult, CompareTarget) {
    let result = match result {
        CompareResult::Greater | CompareResult::NotEqual => CompareResult::NotEqual,
        CompareResult::Less | CompareResult::Equal => CompareResult::Equal,
    };
    let target = match target {
        CompareTarget::CreateRevision(_) => CompareTarget::CreateRevision(Revision::new(u64::MAX)),
        CompareTarget::ModRevision(_) => CompareTarget::ModRevision(Revision::new(u64::MAX)),
        CompareTarget::Version(_) => CompareTarget::Version(u64::MAX),
        other => other,
    };
    (result, target)
}

/// What no state of the store could make valid is refused in etcd's order, the first there is.
pub(super) fn txn(request: &proto::TxnRequest) -> Converted<Txn> {
    let txn = txn_within(request, TXN_OPS_MAX)?;
    txn.validate().map_err(|rule| Box::new(error::refused(rule.into())))?;
    Ok(txn)
}

/// `left` is how many operations the transactions around it have left: so it also bounds how deep
/// they are nested.
fn txn_within(request: &proto::TxnRequest, left: usize) -> Converted<Txn> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let too_many = || Box::new(error::refused(InvalidRequest::TooManyOps.into()));
    let left = left.checked_sub(most).ok_or_else(too_many)?;
    let ops =
        |ops: &[proto::RequestOp]| ops.iter().map(|one| op(one, left)).collect::<Converted<_>>();
    Ok(Txn {
        compare: request.compare.iter().map(compare).collect::<Converted<_>>()?,
        success: ops(&request.success)?,
        failure: ops(&request.failure)?,
    })
}

fn op(request: &proto::RequestOp, left: usize) -> Converted<Op> {
    use proto::request_op::Request as R;
    match &request.request {
        Some(R::RequestRange(request)) => {
            let mut asked = range(request, &Plan::of(request)?)?;
            if request.revision < 0 {
                // Only outside of transactions is it the latest.
                asked.revision = Some(Revision::ZERO);
            }
            Ok(Op::Range(asked))
        }
        Some(R::RequestPut(request)) => put(request.clone()),
        Some(R::RequestDeleteRange(request)) => delete_range(request.clone()),
        Some(R::RequestTxn(request)) => Ok(Op::Txn(Box::new(txn_within(request, left)?))),
        None => Err(Box::new(error::key_not_found())),
    }
}

/// The answer to a transaction, without its header.
pub(super) fn txn_response(
    request: &proto::TxnRequest,
    done: TxnResponse,
) -> Converted<proto::TxnResponse> {
    let after = done.revision.get();
    let mut revision = if writes(&done) { after - 1 } else { after };
    answers(request, done, &mut revision)
}

/// Whether a transaction has changed anything.
fn writes(done: &TxnResponse) -> bool {
    done.responses.iter().any(|response| match response {
        OpResponse::Range(_) => false,
        OpResponse::Put { .. } => true,
        OpResponse::DeleteRange { deleted, .. } => *deleted > 0,
        OpResponse::Txn(inner) => writes(inner),
    })
}

/// Its answers; `revision` is the store's before each operation, as each answer's header tells it.
fn answers(
    request: &proto::TxnRequest,
    done: TxnResponse,
    revision: &mut u64,
) -> Converted<proto::TxnResponse> {
    let after = done.revision.get();
    let ops = if done.succeeded { &request.success } else { &request.failure };
    let mut responses = Vec::with_capacity(ops.len());
    for (request, response) in ops.iter().zip(done.responses) {
        let changes = match &response {
            OpResponse::Put { .. } => true,
            OpResponse::DeleteRange { deleted, .. } => *deleted > 0,
            OpResponse::Range(_) | OpResponse::Txn(_) => false,
        };
        if changes {
            *revision = after;
        }
        responses.push(op_response(request, response, revision)?);
    }
    // A nested answer has an empty header in etcd; the outer one is set by the caller.
    let header = Some(proto::ResponseHeader::default());
    Ok(proto::TxnResponse { header, succeeded: done.succeeded, responses })
}

fn op_response(
    request: &proto::RequestOp,
    response: OpResponse,
    revision: &mut u64,
) -> Converted<proto::ResponseOp> {
    use proto::request_op::Request as Q;
    use proto::response_op::Response as R;
    let header = Some(proto::ResponseHeader { revision: signed(*revision), ..Default::default() });
    let response = match (&request.request, response) {
        (Some(Q::RequestRange(request)), OpResponse::Range(response)) => {
            let finished = Plan::of(request)?.finish(response);
            R::ResponseRange(proto::RangeResponse { header, ..finished })
        }
        (_, OpResponse::Put { prev_kv }) => {
            R::ResponsePut(proto::PutResponse { header, prev_kv: prev_kv.map(key_value) })
        }
        (_, OpResponse::DeleteRange { deleted, prev_kvs }) => {
            R::ResponseDeleteRange(proto::DeleteRangeResponse {
                header,
                deleted: signed(deleted),
                prev_kvs: prev_kvs.into_iter().map(key_value).collect(),
            })
        }
        (Some(Q::RequestTxn(request)), OpResponse::Txn(done)) => {
            R::ResponseTxn(answers(request, done, revision)?)
        }
        _ => return Err(Box::new(Status::internal("an operation came to something else"))),
    };
    Ok(proto::ResponseOp { response: Some(response) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::compare::{CompareResult as R, CompareTarget as T, TargetUnion};
    use proto::request_op::Request;

    fn op(request: Request) -> proto::RequestOp {
        proto::RequestOp { request: Some(request) }
    }

    fn refusal(success: Vec<proto::RequestOp>) -> String {
        let request = proto::TxnRequest { success, ..Default::default() };
        txn(&request).unwrap_err().message().to_owned()
    }

    #[test]
    fn operations_are_counted_before_anything_of_them_is_looked_at() {
        let put = proto::PutRequest { ignore_lease: true, lease: 1, ..Default::default() };
        let put = op(Request::RequestPut(proto::PutRequest { key: "k".into(), ..put }));
        assert_eq!(refusal(vec![put.clone()]), "etcdserver: lease is provided");
        let many = vec![put; TXN_OPS_MAX + 1];
        assert_eq!(refusal(many.clone()), "etcdserver: too many operations in txn request");
        let nested = proto::TxnRequest { failure: many, ..Default::default() };
        let nested = vec![op(Request::RequestTxn(nested))];
        assert_eq!(refusal(nested), "etcdserver: too many operations in txn request");
    }

    #[test]
    fn every_number_is_greater_than_a_negative_one() {
        let compared = |result: R| {
            let request = proto::Compare {
                result: result.into(),
                target: T::Version.into(),
                key: "k".into(),
                target_union: Some(TargetUnion::Version(-1)),
                ..Default::default()
            };
            let compare = compare(&request).unwrap();
            (compare.result, compare.target)
        };
        let none = CompareTarget::Version(u64::MAX);
        assert_eq!(compared(R::Greater), (CompareResult::NotEqual, none.clone()));
        assert_eq!(compared(R::NotEqual), (CompareResult::NotEqual, none.clone()));
        assert_eq!(compared(R::Less), (CompareResult::Equal, none.clone()));
        assert_eq!(compared(R::Equal), (CompareResult::Equal, none));
    }

    #[test]
    fn a_negative_revision_is_the_latest_and_within_a_transaction_a_compacted_one() {
        let request = proto::RangeRequest { key: "k".into(), revision: -1, ..Default::default() };
        let alone = range(&request, &Plan::of(&request).unwrap()).unwrap();
        assert_eq!(alone.revision, None);
        let within = super::op(&op(Request::RequestRange(request)), TXN_OPS_MAX).unwrap();
        assert!(matches!(within, Op::Range(asked) if asked.revision == Some(Revision::ZERO)));
    }
}
