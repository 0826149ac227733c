//! One connection to a peer, made anew after each failure.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::MESSAGE_BYTES_MAX;
use super::client::Mark;
use crate::proto::peer_client::PeerClient;
use crate::transport::CallError;

pub(super) type Client = PeerClient<InterceptedService<Channel, Mark>>;

/// A connection and how to make it.
pub(super) struct Lane {
    endpoint: Endpoint,
    mark: Mark,
    connect_timeout: Duration,
    /// The connection and its number.
    open: Mutex<Option<(u64, Client)>>,
    made: AtomicU64,
}

impl Lane {
    pub(super) fn new(endpoint: Endpoint, mark: Mark, connect_timeout: Duration) -> Self {
        Self { endpoint, mark, connect_timeout, open: Mutex::new(None), made: AtomicU64::new(0) }
    }

    /// The client on the open connection, or on a new one.
    pub(super) async fn client(&self) -> Result<(u64, Client), CallError> {
        if let Some(open) = self.open.lock().clone() {
            return Ok(open);
        }
        let connecting = tokio::time::timeout(self.connect_timeout, self.endpoint.connect());
        let channel = match connecting.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(CallError::Unreachable(self.describe(&error))),
            Err(_) => {
                let reason = format!("{} does not answer", self.endpoint.uri());
                return Err(CallError::Unreachable(reason));
            }
        };
        let client = PeerClient::with_interceptor(channel, self.mark.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        *self.open.lock() = Some((number, client.clone()));
        Ok((number, client))
    }

    fn describe(&self, error: &dyn std::error::Error) -> String {
        let mut reason = format!("{}: {error}", self.endpoint.uri());
        let mut source = error.source();
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        reason
    }

    /// Drops connection `number`: calls on it have failed.
    pub(super) fn drop_connection(&self, number: u64) {
        let mut open = self.open.lock();
        if open.as_ref().is_some_and(|(current, _)| *current == number) {
            *open = None;
        }
    }

    /// What a status means, dropping the connection where it is to blame.
    pub(super) fn failed(&self, number: u64, status: &Status) -> CallError {
        match status.code() {
            Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::Unimplemented => CallError::Refused(status.message().to_owned()),
            code => {
                self.drop_connection(number);
                let source = status.source().map(|error| format!(": {error}")).unwrap_or_default();
                let uri = self.endpoint.uri();
                CallError::Lost(format!("{uri}: {code:?}: {}{source}", status.message()))
            }
        }
    }

    /// Makes a unary call that ends by `timeout`.
    pub(super) async fn call<F, Reply>(
        &self,
        timeout: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<Reply, CallError>
    where
        F: Future<Output = Result<tonic::Response<Reply>, Status>>,
    {
        let deadline = tokio::time::Instant::now() + timeout;
        let Ok(client) = tokio::time::timeout_at(deadline, self.client()).await else {
            return Err(CallError::Unreachable(format!("{} does not answer", self.endpoint.uri())));
        };
        let (number, client) = client?;
        match tokio::time::timeout_at(deadline, call(client)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.failed(number, &status)),
            Err(_) => {
                // A peer that is silent may be reachable by a new connection.
                self.drop_connection(number);
                Err(CallError::Lost(format!("{} did not answer in time", self.endpoint.uri())))
            }
        }
    }
}
