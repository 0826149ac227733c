//! What a member does for its peers, whatever network the calls come by.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use kontiki_storage::kv::Revision;
use kontiki_storage::snapshot::Installer;
use kontiki_storage::store::Store;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::blocking;
use crate::command::Command;
use crate::config::Blocking;
use crate::error::Refusal;
use crate::lessor::{Ask, Lessor, NotLeader};
use crate::local;
use crate::membership;
use crate::proto;
use crate::read_index::ReadIndex;
use crate::snapshot::SnapshotData;
use crate::space;
use crate::transport::{CallError, Messages};
use crate::types::{NodeId, Raft, TypeConfig};
use crate::wire::{self, WireError};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// How long a member works on a peer's proposals or membership change before it answers that the
/// outcome is not known; the peer asks again.
const SERVE: Duration = Duration::from_secs(10);

/// A member, as its peers see it.
pub struct PeerService {
    pub(crate) id: NodeId,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) lessor: Arc<Lessor>,
    /// Rounds in which a quorum confirms that this member leads.
    pub(crate) confirmed: ReadIndex,
    pub(crate) blocking: Blocking,
    /// One snapshot is received at a time.
    pub(crate) receiving: Semaphore,
}

fn invalid(error: WireError) -> CallError {
    CallError::Refused(error.to_string())
}

fn stopped(error: impl ToString) -> CallError {
    CallError::Refused(error.to_string())
}

fn append_from(
    request: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: wire::vote_from(request.vote)?,
        prev_log_id: request.prev.map(wire::log_id_from),
        entries: request.entries.into_iter().map(wire::entry_from).collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(wire::log_id_from),
    })
}

fn append_reply(result: StreamAppendResult<TypeConfig>) -> proto::AppendReply {
    use proto::append_reply::Result as R;
    let result = match result {
        Ok(id) => R::Matched(proto::Matched { log_id: id.as_ref().map(wire::log_id_to) }),
        Err(StreamAppendError::Conflict(id)) => R::Conflict(wire::log_id_to(&id)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(wire::vote_to(&vote)),
    };
    proto::AppendReply { result: Some(result) }
}

/// What a member answers of leases, if it leads as far as it knows.
fn leases(lessor: &Lessor, store: &Store, request: &proto::LeaseRequest) -> proto::LeaseReply {
    let now = Instant::now();
    let ask = if request.renew { Ask::Renew } else { Ask::Look };
    let mut reply = proto::LeaseReply::default();
    for &id in &request.ids {
        let terms = store.lease(id);
        let left_seconds = match lessor.left_seconds(id, terms, ask, now) {
            Ok((term, left)) => {
                reply.term = term.0;
                left
            }
            Err(NotLeader) => {
                return proto::LeaseReply { not_leader: true, ..proto::LeaseReply::default() };
            }
        };
        let time = terms.zip(left_seconds).map(|(terms, left_seconds)| proto::LeaseTime {
            exists: true,
            ttl_seconds: terms.ttl_seconds,
            left_seconds,
            noted: terms.remaining_seconds.is_some(),
            keys: if request.keys { store.lease_keys(id) } else { Vec::new() },
        });
        reply.times.push(time.unwrap_or_default());
    }
    reply
}

impl PeerService {
    /// Takes part of the log. The stream of answers ends after `requests` does, or at the first
    /// message that makes no sense.
    pub fn append(
        &self,
        requests: Messages<proto::AppendRequest>,
    ) -> Messages<Result<proto::AppendReply, CallError>> {
        let requests = requests
            .map(append_from)
            .take_while(|request| {
                if let Err(error) = request {
                    tracing::error!(%error, "a peer sent an append that makes no sense");
                }
                future::ready(request.is_ok())
            })
            .filter_map(|request| future::ready(request.ok()));
        let replies = self.raft.stream_append(requests);
        Box::pin(replies.map(|reply| reply.map(append_reply).map_err(stopped)))
    }

    /// One append without entries.
    pub async fn heartbeat(
        &self,
        request: proto::AppendRequest,
    ) -> Result<proto::AppendReply, CallError> {
        let request = append_from(request).map_err(invalid)?;
        let (prev, last) = (request.prev_log_id, request.entries.last().map(|e| e.log_id));
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        if response.is_conflict() && prev.is_none() {
            return Err(CallError::Refused("nothing can conflict with the empty log".to_owned()));
        }
        Ok(append_reply(response.into_stream_result(prev, last.or(prev))))
    }

    /// Answers a vote or pre-vote request.
    pub async fn vote(&self, request: proto::VoteRequest) -> Result<proto::VoteReply, CallError> {
        let mut rpc = VoteRequest::new(
            wire::vote_from(request.vote).map_err(invalid)?,
            request.last.map(wire::log_id_from),
        );
        rpc.leadership_transfer = request.leadership_transfer;
        let response = if request.pre_vote {
            self.raft.pre_vote(rpc).await
        } else {
            self.raft.vote(rpc).await
        }
        .map_err(stopped)?;
        Ok(proto::VoteReply {
            vote: Some(wire::vote_to(&response.vote)),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(wire::log_id_to),
        })
    }

    /// Campaigns, because the leader wants to hand over.
    pub async fn transfer_leader(
        &self,
        request: proto::TransferRequest,
    ) -> Result<proto::TransferReply, CallError> {
        let from = wire::vote_from(request.from).map_err(invalid)?;
        let last = request.last.map(wire::log_id_from);
        let request = TransferLeaderRequest::new(from, request.to, last);
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refused = response.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(proto::TransferReply { refused })
    }

    /// Receives a snapshot beside the state and makes it the state once it is whole.
    pub async fn install_snapshot(
        &self,
        mut chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<proto::SnapshotReply, CallError> {
        let _one = self
            .receiving
            .try_acquire()
            .map_err(|_| CallError::Refused("another snapshot is being received".to_owned()))?;
        let first = chunks.next().await.and_then(|message| message.meta);
        let meta = first.ok_or_else(|| invalid(WireError::Missing("description")))?;
        let vote = wire::vote_from(meta.vote).map_err(invalid)?;
        let membership =
            meta.membership.ok_or_else(|| invalid(WireError::Missing("membership")))?;
        let meta = SnapshotMeta {
            last_log_id: meta.last.map(wire::log_id_from),
            last_membership: wire::stored_membership_from(membership).map_err(invalid)?,
        };
        let installer = self.receive(chunks).await?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Incoming(installer) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(proto::SnapshotReply { vote: Some(wire::vote_to(&response.vote)) })
    }

    async fn receive(
        &self,
        mut chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<Box<Installer>, CallError> {
        let gone = || CallError::Refused("the server is shutting down".to_owned());
        let store = self.store.clone();
        let begin = move || store.begin_install();
        let installer = blocking::offload(self.blocking, begin).await.ok_or_else(gone)?;
        let mut installer = Box::new(installer.map_err(stopped)?);
        while let Some(message) = chunks.next().await {
            let push = move || {
                let pushed = installer.push(&message.chunk);
                (installer, pushed)
            };
            let (back, pushed) = blocking::offload(self.blocking, push).await.ok_or_else(gone)?;
            pushed.map_err(stopped)?;
            installer = back;
        }
        Ok(installer)
    }

    /// Proposes a peer's commands, as the leader.
    pub async fn propose(&self, request: proto::ProposeRequest) -> proto::ProposeReply {
        let deadline = Instant::now() + SERVE;
        // Copied: kept as it came, a command would keep the whole message alive.
        let copied = |bytes: bytes::Bytes| Command(bytes::Bytes::copy_from_slice(&bytes));
        let commands = request.commands.into_iter().map(copied).collect();
        let local::Attempts { attempts, applied_index } =
            space::propose_all(&self.raft, &self.store, commands, deadline).await;
        let outcomes = attempts.into_iter().map(local::Attempt::into_message).collect();
        proto::ProposeReply { outcomes, applied_index }
    }

    /// A read index, as the leader (R4).
    pub async fn read_index(&self) -> proto::ReadIndexReply {
        match local::read_index(&self.raft).await {
            Ok(index) => proto::ReadIndexReply {
                index: Some(proto::LogId { term: 0, index }),
                refused: String::new(),
            },
            Err(refused) => proto::ReadIndexReply { index: None, refused },
        }
    }

    /// Changes the members, as the leader.
    pub async fn change_member(&self, request: proto::MemberRequest) -> proto::MemberReply {
        let change = membership::Change::from_message(request);
        let changed = match change {
            Ok(change) => {
                let changing = membership::change(&self.raft, change);
                tokio::time::timeout(SERVE, changing).await.unwrap_or_else(|_| {
                    Err(membership::Refused::NotLeader("no quorum in time".to_owned()))
                })
            }
            Err(error) => Err(membership::Refused::Invalid(error.to_string().into())),
        };
        match changed {
            Ok(()) => proto::MemberReply::default(),
            Err(membership::Refused::NotLeader(refused)) => {
                proto::MemberReply { refused, not_leader: true, ..proto::MemberReply::default() }
            }
            Err(membership::Refused::Invalid(Refusal { reason, detail })) => {
                proto::MemberReply { refused: reason, not_leader: false, detail }
            }
        }
    }

    /// Renews leases or tells what is left of them, as the leader.
    ///
    /// A renewal is a promise that whoever leads next keeps the lease for its whole time, and only a
    /// leader that came after it does: so a quorum confirms first that this member still leads
    /// (R7). All renewals that wait share one round, as reads do. What is left is only told.
    pub async fn leases(&self, request: &proto::LeaseRequest) -> proto::LeaseReply {
        if request.renew
            && let Err(reason) = self.confirmed.next().await
        {
            tracing::debug!(reason, "leases are not renewed: this member may not lead");
            return proto::LeaseReply { not_leader: true, ..proto::LeaseReply::default() };
        }
        leases(&self.lessor, &self.store, request)
    }

    /// Where this member stands.
    pub fn status(&self, request: proto::StatusRequest) -> proto::StatusReply {
        let last = self.raft.data_metrics().borrow_watched().last_log.as_ref().map(wire::log_id_to);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (revision, hash) = self.store.hash();
        proto::StatusReply {
            id: self.id,
            term: metrics.current_term,
            leader: metrics.current_leader.unwrap_or_default(),
            last,
            committed: metrics.local_committed.as_ref().map(wire::log_id_to),
            applied: metrics.last_applied.as_ref().map(wire::log_id_to),
            revision: revision.get(),
            hash,
            hash_at: self.store.hash_at(Revision::new(request.revision)),
        }
    }
}
