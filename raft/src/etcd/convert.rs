//! Between etcd's messages and the words of the trait `Kv`.

use bytes::Bytes;
use kontiki_storage::kv::{
    Compare, CompareResult, CompareTarget, Consistency, KeyRange, KeyValue, Op, OpResponse,
    RangeEnd, RangeRequest, Revision, Txn, TxnResponse,
};
use tonic::Status;

use super::error::empty_key;
use super::filter::Plan;
use super::proto;

type Converted<T> = Result<T, Box<Status>>;

/// How deep transactions may be nested.
const DEPTH_MAX: usize = 8;

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
fn key_range(key: Bytes, end: Bytes) -> Converted<KeyRange> {
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
    let is_plain = plan.is_plain();
    Ok(RangeRequest {
        range: key_range(request.key.clone(), request.range_end.clone())?,
        revision: revision(request.revision),
        limit: if is_plain { unsigned(request.limit) } else { 0 },
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
    if request.lease != 0 {
        return Err(Box::new(Status::not_found("etcdserver: requested lease not found")));
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
    let target = match (T::try_from(request.target).map_err(|_| invalid())?, &request.target_union)
    {
        (T::Version, Some(U::Version(version))) => CompareTarget::Version(unsigned(*version)),
        (T::Version, None) => CompareTarget::Version(0),
        (T::Create, Some(U::CreateRevision(number))) => {
            CompareTarget::CreateRevision(Revision::new(unsigned(*number)))
        }
        (T::Create, None) => CompareTarget::CreateRevision(Revision::ZERO),
        (T::Mod, Some(U::ModRevision(number))) => {
            CompareTarget::ModRevision(Revision::new(unsigned(*number)))
        }
        (T::Mod, None) => CompareTarget::ModRevision(Revision::ZERO),
        (T::Value, Some(U::Value(value))) => CompareTarget::Value(value.clone()),
        (T::Value, None) => CompareTarget::Value(Bytes::new()),
        (T::Lease, Some(U::Lease(lease))) => CompareTarget::Lease(*lease),
        (T::Lease, None) => CompareTarget::Lease(0),
        (_, Some(_)) => return Err(invalid()),
    };
    let result = match R::try_from(request.result).map_err(|_| invalid())? {
        R::Equal => CompareResult::Equal,
        R::Greater => CompareResult::Greater,
        R::Less => CompareResult::Less,
        R::NotEqual => CompareResult::NotEqual,
    };
    Ok(Compare {
        range: key_range(request.key.clone(), request.range_end.clone())?,
        result,
        target,
    })
}

pub(super) fn txn(request: &proto::TxnRequest, depth: usize) -> Converted<Txn> {
    if depth > DEPTH_MAX {
        let reason = "etcdserver: too many operations in txn request";
        return Err(Box::new(Status::invalid_argument(reason)));
    }
    let ops = |ops: &[proto::RequestOp]| -> Converted<Vec<Op>> {
        ops.iter().map(|request| op(request, depth)).collect()
    };
    Ok(Txn {
        compare: request.compare.iter().map(compare).collect::<Converted<_>>()?,
        success: ops(&request.success)?,
        failure: ops(&request.failure)?,
    })
}

fn op(request: &proto::RequestOp, depth: usize) -> Converted<Op> {
    use proto::request_op::Request as R;
    match &request.request {
        Some(R::RequestRange(request)) => range(request, &Plan::of(request)?).map(Op::Range),
        Some(R::RequestPut(request)) => put(request.clone()),
        Some(R::RequestDeleteRange(request)) => delete_range(request.clone()),
        Some(R::RequestTxn(request)) => Ok(Op::Txn(Box::new(txn(request, depth + 1)?))),
        None => Err(empty_key()),
    }
}

/// The answer to a transaction, without its header; the headers of its operations have the
/// revision, as etcd's do.
pub(super) fn txn_response(
    request: &proto::TxnRequest,
    done: TxnResponse,
) -> Converted<proto::TxnResponse> {
    let ops = if done.succeeded { &request.success } else { &request.failure };
    let number = signed(done.revision.get());
    let header = Some(proto::ResponseHeader { revision: number, ..Default::default() });
    let responses = ops
        .iter()
        .zip(done.responses)
        .map(|(request, response)| op_response(request, response, header))
        .collect::<Converted<_>>()?;
    Ok(proto::TxnResponse { header, succeeded: done.succeeded, responses })
}

fn op_response(
    request: &proto::RequestOp,
    response: OpResponse,
    header: Option<proto::ResponseHeader>,
) -> Converted<proto::ResponseOp> {
    use proto::request_op::Request as Q;
    use proto::response_op::Response as R;
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
            R::ResponseTxn(txn_response(request, done)?)
        }
        _ => return Err(Box::new(Status::internal("an operation came to something else"))),
    };
    Ok(proto::ResponseOp { response: Some(response) })
}
