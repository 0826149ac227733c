//! Errors in etcd's words and codes: clients match on both.

use kontiki_storage::kv::{InvalidRequest, KvError};
use tonic::{Code, Status};

/// What etcd would answer.
pub(super) fn refused(error: KvError) -> Status {
    match &error {
        KvError::Compacted { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
        }
        KvError::FutureRevision { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
        KvError::Invalid(rule) => Status::new(code(rule), format!("etcdserver: {rule}")),
        KvError::TooLarge { .. } => too_large(),
        KvError::NoSpace => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
        KvError::Unavailable { reason } => {
            tracing::debug!(reason, "refuse an etcd request");
            no_leader()
        }
        KvError::Unknown { .. } => Status::unavailable("etcdserver: request timed out"),
        KvError::Fenced { .. } => Status::failed_precondition(error.to_string()),
        KvError::SlowWatcher { .. } | KvError::Failed { .. } => Status::internal(error.to_string()),
    }
}

fn code(rule: &InvalidRequest) -> Code {
    match rule {
        InvalidRequest::LeaseNotFound => Code::NotFound,
        InvalidRequest::LeaseExists => Code::FailedPrecondition,
        InvalidRequest::LeaseTooLong => Code::OutOfRange,
        InvalidRequest::EmptyKey
        | InvalidRequest::DuplicateKey
        | InvalidRequest::KeyNotFound
        | InvalidRequest::TooManyOps => Code::InvalidArgument,
    }
}

/// The request has more bytes than any may have.
pub(super) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// A key is not there that must be.
pub(super) fn key_not_found() -> Status {
    refused(InvalidRequest::KeyNotFound.into())
}

/// Nobody leads.
pub(super) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// The server shuts down.
pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// The key is missing.
#[expect(clippy::unnecessary_box_returns, reason = "a large error is boxed where it is converted")]
pub(super) fn empty_key() -> Box<Status> {
    Box::new(Status::invalid_argument("etcdserver: key is not provided"))
}
