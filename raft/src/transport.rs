//! How members reach one another: a small trait, so that a simulation can put a network of its own
//! in the place of `grpc.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use thiserror::Error;

use crate::proto;
use crate::types::{Member, NodeId};

/// A stream of messages.
pub type Messages<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// No connection could be made: the call was not delivered.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or no answer came in time: the call may have been delivered.
    #[error("{0}")]
    Lost(String),
    /// The peer refused the call: nothing was done.
    #[error("{0}")]
    Refused(String),
}

/// What a fresh connection attempt says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It accepts connections.
    Reachable,
    /// Its machine says that nobody listens there: the process is gone.
    Gone,
    /// No answer: that can be the network as well.
    Silent,
}

/// Makes clients of peers.
pub trait Transport: Send + Sync + 'static {
    /// A client of one peer. It connects when it is first used, and again after a failure.
    fn client(&self, target: NodeId, member: &Member) -> Result<Arc<dyn PeerClient>, CallError>;
}

/// Calls to one peer. An implementation must
/// - end a call by its `timeout` where it takes one, and any stream that breaks, with an error;
/// - deliver the messages of one stream in order, and never those of two streams as one;
/// - keep heartbeats, votes and read indexes apart from everything large.
#[async_trait]
pub trait PeerClient: Send + Sync + 'static {
    /// Replicates the log: pipelined, answered in order, until `requests` ends.
    async fn append(
        &self,
        requests: Messages<proto::AppendRequest>,
    ) -> Result<Messages<Result<proto::AppendReply, CallError>>, CallError>;

    /// One append without entries.
    async fn heartbeat(
        &self,
        request: proto::AppendRequest,
        timeout: Duration,
    ) -> Result<proto::AppendReply, CallError>;

    /// Asks for a vote, or a pre-vote.
    async fn vote(
        &self,
        request: proto::VoteRequest,
        timeout: Duration,
    ) -> Result<proto::VoteReply, CallError>;

    /// Asks the peer to campaign.
    async fn transfer_leader(
        &self,
        request: proto::TransferRequest,
        timeout: Duration,
    ) -> Result<proto::TransferReply, CallError>;

    /// Sends a snapshot.
    async fn install_snapshot(
        &self,
        chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<proto::SnapshotReply, CallError>;

    /// Proposes commands at the leader.
    async fn propose(
        &self,
        request: proto::ProposeRequest,
        timeout: Duration,
    ) -> Result<proto::ProposeReply, CallError>;

    /// Asks the leader for a read index.
    async fn read_index(&self, timeout: Duration) -> Result<proto::ReadIndexReply, CallError>;

    /// Asks the leader to change the members.
    async fn change_member(
        &self,
        request: proto::MemberRequest,
        timeout: Duration,
    ) -> Result<proto::MemberReply, CallError>;

    /// Asks the leader for leases.
    async fn lease(
        &self,
        request: proto::LeaseRequest,
        timeout: Duration,
    ) -> Result<proto::LeaseReply, CallError>;

    /// Asks where the peer stands.
    async fn status(
        &self,
        request: proto::StatusRequest,
        timeout: Duration,
    ) -> Result<proto::StatusReply, CallError>;

    /// Opens a connection and returns when it has closed; at once when it cannot be opened.
    /// Whether it was ever open is in the answer.
    async fn presence(&self) -> bool;

    /// Tries a fresh connection.
    async fn probe(&self) -> Probe;
}
