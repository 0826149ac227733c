//! One call and its answer, without what two clusters cannot have in common.

use kontiki_raft::etcd::proto;
use proto::{request_op, response_op};
use tonic::{Code, Status};

/// How far apart what is left of a lease may be.
const TTL_SECONDS_APART: i64 = 5;

/// A call that has one answer.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Range(proto::RangeRequest),
    Put(proto::PutRequest),
    DeleteRange(proto::DeleteRangeRequest),
    Txn(proto::TxnRequest),
    Compact(proto::CompactionRequest),
    Grant(proto::LeaseGrantRequest),
    Revoke(proto::LeaseRevokeRequest),
    KeepAlive(proto::LeaseKeepAliveRequest),
    TimeToLive(proto::LeaseTimeToLiveRequest),
    Leases,
    HashKv(proto::HashKvRequest),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Range(proto::RangeResponse),
    Put(proto::PutResponse),
    DeleteRange(proto::DeleteRangeResponse),
    Txn(proto::TxnResponse),
    Compact(proto::CompactionResponse),
    Grant(proto::LeaseGrantResponse),
    Revoke(proto::LeaseRevokeResponse),
    KeepAlive(proto::LeaseKeepAliveResponse),
    TimeToLive(proto::LeaseTimeToLiveResponse),
    Leases(proto::LeaseLeasesResponse),
    HashKv(proto::HashKvResponse),
    Refused(Code, String),
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self::Refused(status.code(), status.message().to_owned())
    }
}

/// Of the numbers that only one cluster has, whether they are there.
pub(crate) fn header(header: &mut Option<proto::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

fn txn(response: &mut proto::TxnResponse) {
    header(&mut response.header);
    for one in &mut response.responses {
        match &mut one.response {
            Some(response_op::Response::ResponseRange(one)) => header(&mut one.header),
            Some(response_op::Response::ResponsePut(one)) => header(&mut one.header),
            Some(response_op::Response::ResponseDeleteRange(one)) => header(&mut one.header),
            Some(response_op::Response::ResponseTxn(one)) => txn(one),
            None => {}
        }
    }
}

impl Answer {
    /// The answer as it is compared.
    pub(crate) fn normal(mut self) -> Self {
        match &mut self {
            Self::Range(answer) => header(&mut answer.header),
            Self::Put(answer) => header(&mut answer.header),
            Self::DeleteRange(answer) => header(&mut answer.header),
            Self::Txn(answer) => txn(answer),
            Self::Compact(answer) => header(&mut answer.header),
            Self::Grant(answer) => header(&mut answer.header),
            Self::Revoke(answer) => header(&mut answer.header),
            Self::KeepAlive(answer) => header(&mut answer.header),
            Self::TimeToLive(answer) => {
                header(&mut answer.header);
                // etcd gives them in the order of a hash map.
                answer.keys.sort();
            }
            Self::Leases(answer) => header(&mut answer.header),
            Self::HashKv(answer) => header(&mut answer.header),
            Self::Refused(..) => {}
        }
        self
    }

    /// Whether two clusters agree, in normal form.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let (Self::TimeToLive(ours), Self::TimeToLive(theirs)) = (self, other) else {
            return self == other;
        };
        let ttl = theirs.ttl;
        (ours.ttl - ttl).abs() < TTL_SECONDS_APART
            && *theirs == proto::LeaseTimeToLiveResponse { ttl, ..ours.clone() }
    }

    /// The store's revision, where the answer tells it.
    pub(crate) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(answer) => &answer.header,
            Self::Put(answer) => &answer.header,
            Self::DeleteRange(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Revoke(answer) => &answer.header,
            _ => return None,
        };
        header.as_ref().map(|header| header.revision)
    }
}

/// An operation of a transaction.
pub(crate) fn op(request: request_op::Request) -> proto::RequestOp {
    proto::RequestOp { request: Some(request) }
}
