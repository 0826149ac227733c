//! openraft's network over a [`Transport`]: one pipelined stream for the log, heartbeats apart from
//! it, a deadline on everything (R11).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, future, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory};
use parking_lot::Mutex;

use crate::config::Blocking;
use crate::proto;
use crate::snapshot::SnapshotData;
use crate::transport::{CallError, Messages, PeerClient, Transport};
use crate::types::{Member, NodeId, TypeConfig, Vote};
use crate::wire::{self, WireError};

mod chunks;

/// How long a peer may leave an append unanswered before the stream is given up. It covers the
/// peer's sync, however slow its disk; a peer that is gone is noticed by its connection before.
const APPEND_SILENCE: Duration = Duration::from_secs(3);

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Makes openraft's clients.
pub(crate) struct Network {
    pub(crate) me: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) blocking: Blocking,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Log,
    Heartbeat,
}

/// One of openraft's clients of one peer.
pub(crate) struct Peer {
    me: NodeId,
    target: NodeId,
    client: Result<Arc<dyn PeerClient>, CallError>,
    lane: Lane,
    contact: Arc<Contact>,
    blocking: Blocking,
}

impl Network {
    fn peer(&self, target: NodeId, member: &Member, lane: Lane) -> Peer {
        let client = self.transport.client(target, member);
        let contact = Contact::new(target);
        Peer { me: self.me, target, client, lane, contact, blocking: self.blocking }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Peer {
        self.peer(target, member, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Peer {
        self.peer(target, member, Lane::Heartbeat)
    }
}

fn rpc_error(error: CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::Unreachable(reason) => Unreachable::from_string(reason).into(),
        CallError::Lost(reason) | CallError::Refused(reason) => {
            NetworkError::from_string(reason).into()
        }
    }
}

fn wire_error(error: &WireError) -> RPCError<TypeConfig> {
    NetworkError::new(error).into()
}

impl Peer {
    fn client(&self) -> Result<Arc<dyn PeerClient>, RPCError<TypeConfig>> {
        self.client.clone().map_err(rpc_error)
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.me, target: self.target, timeout }
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = proto::VoteRequest {
            vote: Some(wire::vote_to(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(wire::log_id_to),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        let reply = self.client()?.vote(request, option.hard_ttl()).await.map_err(rpc_error)?;
        let vote = wire::vote_from(reply.vote).map_err(|error| wire_error(&error))?;
        Ok(VoteResponse {
            vote,
            vote_granted: reply.granted,
            last_log_id: reply.last.map(wire::log_id_from),
        })
    }
}

fn append_to(request: AppendEntriesRequest<TypeConfig>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(wire::vote_to(&request.vote)),
        prev: request.prev_log_id.as_ref().map(wire::log_id_to),
        entries: request.entries.iter().map(wire::entry_to).collect(),
        committed: request.leader_commit.as_ref().map(wire::log_id_to),
    }
}

fn append_reply(
    reply: Result<proto::AppendReply, CallError>,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    use proto::append_reply::Result as R;
    match reply.map_err(rpc_error)?.result {
        Some(R::Matched(matched)) => Ok(Ok(matched.log_id.map(wire::log_id_from))),
        Some(R::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(wire::log_id_from(id)))),
        Some(R::HigherVote(vote)) => {
            let vote = wire::vote_from(Some(vote)).map_err(|error| wire_error(&error))?;
            Ok(Err(StreamAppendError::HigherVote(vote)))
        }
        None => Err(wire_error(&WireError::Missing("result"))),
    }
}

type AppendResults<'s> =
    BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<S>(
        &mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'_, Result<AppendResults<'_>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            match self.lane {
                Lane::Heartbeat => {
                    let contact = Arc::clone(&self.contact);
                    Ok(heartbeats(self.client()?, contact, input, option.hard_ttl()))
                }
                Lane::Log => self.replicate(input).await,
            }
        })
    }
}

fn heartbeats<'s>(
    client: Arc<dyn PeerClient>,
    contact: Arc<Contact>,
    input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    timeout: Duration,
) -> AppendResults<'s> {
    Box::pin(input.then(move |request| {
        let (client, contact) = (Arc::clone(&client), Arc::clone(&contact));
        async move {
            let reply = client.heartbeat(append_to(request), timeout).await;
            contact.tell(reply.as_ref().err());
            append_reply(reply)
        }
    }))
}

/// Whether a peer answers, told when that changes for long enough to matter: openraft tells it at every
/// heartbeat, a hundred lines a second for a peer that is away.
struct Contact {
    target: NodeId,
    silence: Mutex<Silence>,
}

/// How long a peer leaves heartbeats unanswered before it is told.
const SILENCE_TOLD: Duration = Duration::from_secs(1);

/// Since when a peer has not answered, and whether that was told.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    is_told: bool,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Silent,
    Back,
}

impl Silence {
    fn note(&mut self, answers: bool, now: Instant) -> Option<News> {
        if answers {
            self.since = None;
            return std::mem::take(&mut self.is_told).then_some(News::Back);
        }
        let since = *self.since.get_or_insert(now);
        if self.is_told || now.duration_since(since) < SILENCE_TOLD {
            return None;
        }
        self.is_told = true;
        Some(News::Silent)
    }
}

impl Contact {
    fn new(target: NodeId) -> Arc<Self> {
        Arc::new(Self { target, silence: Mutex::default() })
    }

    fn tell(&self, error: Option<&CallError>) {
        let peer = self.target;
        let news = self.silence.lock().note(error.is_none(), Instant::now());
        match (news, error) {
            (Some(News::Silent), Some(error)) => {
                tracing::warn!(peer, %error, "a peer does not answer");
            }
            (Some(News::Back), _) => tracing::info!(peer, "the peer answers again"),
            _ => {}
        }
    }
}

/// How many appends of a stream were sent; its reader knows how many were answered.
type Sent = Arc<AtomicU64>;

impl Peer {
    /// openraft pauses after a failure when it is asked for the next request, and not when it opens
    /// a stream: so the first request is taken before the peer is called. Otherwise a peer that is
    /// not there would be called without a pause.
    async fn replicate<'s>(
        &self,
        mut input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    ) -> Result<AppendResults<'s>, RPCError<TypeConfig>> {
        let Some(first) = input.next().await else { return Ok(Box::pin(stream::empty())) };
        let client = self.client()?;
        let sent = Sent::default();
        let counter = Arc::clone(&sent);
        let input = stream::once(future::ready(first)).chain(input);
        let requests: Messages<_> = Box::pin(input.map(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            append_to(request)
        }));
        let replies = client.append(requests).await.map_err(rpc_error)?;
        let timeout = self.timeout(RPCTypes::AppendEntries, APPEND_SILENCE);
        Ok(Box::pin(stream::unfold(Some((replies, 0)), move |state| {
            let (sent, timeout) = (Arc::clone(&sent), timeout.clone());
            async move {
                let (mut replies, answered) = state?;
                let reply = next_reply(&mut replies, &sent, answered, timeout).await?;
                // openraft ends the stream itself after a conflict or a higher vote.
                let state = reply.is_ok().then_some((replies, answered + 1));
                Some((reply, state))
            }
        })))
    }
}

async fn next_reply(
    replies: &mut Messages<Result<proto::AppendReply, CallError>>,
    sent: &Sent,
    answered: u64,
    timeout: Timeout<TypeConfig>,
) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
    let mut waited_for = None;
    loop {
        match tokio::time::timeout(timeout.timeout, replies.next()).await {
            Ok(reply) => return reply.map(append_reply),
            // Silence counts only once something has been waiting for the whole time.
            Err(_) if waited_for == Some(answered) => return Some(Err(timeout.into())),
            Err(_) if sent.load(Ordering::Relaxed) > answered => waited_for = Some(answered),
            Err(_) => {}
        }
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, false, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, true, option).await
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.client()?;
        let SnapshotData::Outgoing(view) = snapshot.snapshot else {
            let reason = "the snapshot has no contents to send";
            return Err(NetworkError::from_string(reason).into());
        };
        let meta = proto::SnapshotMeta {
            vote: Some(wire::vote_to(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(wire::log_id_to),
            membership: Some(wire::stored_membership_to(&snapshot.meta.last_membership)),
        };
        let sending = client.install_snapshot(chunks::stream(meta, view, self.blocking));
        match future::select(Box::pin(cancel), sending).await {
            future::Either::Left((closed, _)) => Err(closed.into()),
            future::Either::Right((reply, _)) => {
                let reply = reply.map_err(rpc_error)?;
                let vote = wire::vote_from(reply.vote).map_err(|error| wire_error(&error))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = proto::TransferRequest {
            from: Some(wire::vote_to(req.from_leader())),
            to: *req.to_node_id(),
            last: req.last_log_id().map(wire::log_id_to),
        };
        let client = self.client()?;
        let reply = client.transfer_leader(request, option.hard_ttl()).await.map_err(rpc_error)?;
        if reply.refused.is_empty() {
            Ok(Ok(()))
        } else {
            Err(NetworkError::from_string(reply.refused).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_only_if_it_lasts() {
        let mut silence = Silence::default();
        let begin = Instant::now();
        let mut note =
            |answers, millis| silence.note(answers, begin + Duration::from_millis(millis));
        assert_eq!(note(false, 0), None);
        assert_eq!(note(false, 500), None);
        assert_eq!(note(true, 600), None, "a short one is not told at all");
        assert_eq!(note(false, 700), None);
        assert_eq!(note(false, 1_650), None);
        assert_eq!(note(false, 1_700), Some(News::Silent));
        assert_eq!(note(false, 9_000), None);
        assert_eq!(note(true, 9_100), Some(News::Back));
        assert_eq!(note(true, 9_200), None);
    }
}
