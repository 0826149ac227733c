//! Errors in etcd's words and codes.

use kontiki_storage::kv::{InvalidRequest, KvError};
use tonic::Status;

/// What etcd would answer.
pub(super) fn status(error: &KvError) -> Status {
    match error {
        KvError::Compacted { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
        }
        KvError::FutureRevision { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
        KvError::Invalid(InvalidRequest::LeaseNotFound) => {
            Status::not_found("etcdserver: requested lease not found")
        }
        KvError::Invalid(rule) => Status::invalid_argument(format!("etcdserver: {rule}")),
        KvError::TooLarge { .. } => Status::invalid_argument("etcdserver: request is too large"),
        KvError::Unavailable { reason } => {
            tracing::debug!(reason, "refuse an etcd request");
            Status::unavailable("etcdserver: no leader")
        }
        KvError::Unknown { .. } => Status::unavailable("etcdserver: request timed out"),
        KvError::Fenced { .. } => Status::failed_precondition(error.to_string()),
        KvError::SlowWatcher { .. } | KvError::Failed { .. } => Status::internal(error.to_string()),
    }
}

/// The key is missing.
#[expect(clippy::unnecessary_box_returns, reason = "a large error is boxed where it is converted")]
pub(super) fn empty_key() -> Box<Status> {
    Box::new(Status::invalid_argument("etcdserver: key is not provided"))
}
