//! Reaching the leader, whoever it is, through a change of leaders.

use std::time::Duration;

use kontiki_storage::kv::{KvError, Term};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Inner;
use crate::command::{Act, Command, Done, Proposed};
use crate::error::{NodeError, Refusal};
use crate::forward::Forward;
use crate::local::{self, Attempt};
use crate::membership::{self, Change, Refused};
use crate::proto;
use crate::space;
use crate::status::Leadership;
use crate::types::NodeId;

/// The pause before the same leader is asked again.
const RETRY: Duration = Duration::from_millis(15);

/// How large an encoded command may be: twice what Kubernetes allows an object, for what a
/// transaction carries beside it.
pub(super) const COMMAND_BYTES_MAX: usize = 3 << 20;

/// How long a change of members may take; a learner has to catch up in it.
const CHANGE: Duration = Duration::from_secs(60);

impl Inner {
    /// Waits, at most until `deadline`, for a leader, or for another one than was `tried`. `None`
    /// when it is time to give up.
    pub(super) async fn leader(
        &self,
        tried: Option<Leadership>,
        deadline: Instant,
    ) -> Option<Leadership> {
        let mut leadership = self.leadership.clone();
        let until = match tried {
            // The one that was tried may answer the next time.
            Some(_) => deadline.min(Instant::now() + RETRY),
            None => deadline,
        };
        let is_other = |now: &Leadership| {
            now.leader.is_some()
                && tried.is_none_or(|tried| (tried.leader, tried.term) != (now.leader, now.term))
        };
        if let Ok(Err(_)) = tokio::time::timeout_at(until, leadership.wait_for(is_other)).await {
            // Nobody says any more who leads: the node has been stopped.
            return None;
        }
        let now = *leadership.borrow();
        (Instant::now() < deadline).then_some(now)
    }

    /// Ends when another leader is known than `tried`.
    pub(super) async fn other_leader(&self, tried: Leadership) {
        let mut leadership = self.leadership.clone();
        let is_other = |now: &Leadership| {
            now.leader.is_some() && (now.leader, now.term) != (tried.leader, tried.term)
        };
        if leadership.wait_for(is_other).await.is_err() {
            // Shutting down: the deadline ends the wait.
            std::future::pending::<()>().await;
        }
    }

    /// Proposes an act and returns what it came to, riding out changes of leaders (R10).
    pub(super) async fn propose(&self, act: Act, fence: Option<Term>) -> Result<Done, KvError> {
        let deadline = Instant::now() + self.config.timers.request;
        let ticket = self.proposals.begin()?;
        let _pending = self.counts.begin();
        let proposed =
            Proposed { id: ticket.id, settled_before: ticket.settled_before, fence, act };
        let command = Command::encode(&proposed);
        if command.len_bytes() > COMMAND_BYTES_MAX {
            return Err(KvError::TooLarge {
                size_bytes: command.len_bytes() as u64,
                max_bytes: COMMAND_BYTES_MAX as u64,
            });
        }
        drop(proposed);
        let mut tried = None;
        let mut unknown = None;
        let mut reason = "there is no leader".to_owned();
        while let Some(leader) = self.leader(tried, deadline).await {
            tried = Some(leader);
            let Some(id) = leader.leader else { continue };
            // Dropping an attempt is harmless: the next one carries the same identity.
            let attempt = tokio::select! {
                biased;
                attempt = self.attempt(id, command.clone(), deadline) => attempt,
                () = self.other_leader(leader) => Attempt::Unknown("the leader changed".to_owned()),
            };
            match attempt {
                Attempt::Applied(outcome) => return outcome.into_result(),
                Attempt::NotDone(why) => reason = why,
                Attempt::Unknown(why) => unknown = Some(why),
            }
        }
        self.counts.fail();
        Err(match unknown {
            Some(reason) => KvError::Unknown { reason },
            None => KvError::Unavailable { reason },
        })
    }

    async fn attempt(&self, leader: NodeId, command: Command, deadline: Instant) -> Attempt {
        if leader == self.me() {
            if space::is_refused(&self.store, &command) {
                return space::refusal();
            }
            return local::propose(&self.raft, command, deadline).await;
        }
        let client = match self.client(leader) {
            Ok(client) => client,
            Err(reason) => return Attempt::NotDone(reason),
        };
        let timeout = deadline.saturating_duration_since(Instant::now());
        let (done, outcome) = oneshot::channel();
        let forward = Forward { target: leader, client, command, timeout, done };
        if self.forwards.try_send(forward).is_err() {
            return Attempt::NotDone("too many requests wait for the leader".to_owned());
        }
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("the server is shutting down".to_owned()),
            Err(_) => Attempt::Unknown("the leader did not answer in time".to_owned()),
        }
    }

    /// One round for all reads that wait (R4).
    pub(super) async fn read_round(&self) -> Result<u64, String> {
        let deadline = Instant::now() + self.config.timers.request;
        let mut tried = None;
        let mut reason = "there is no leader".to_owned();
        while let Some(leader) = self.leader(tried, deadline).await {
            tried = Some(leader);
            let Some(id) = leader.leader else { continue };
            let index = tokio::select! {
                biased;
                index = self.read_index_of(id) => index,
                () = self.other_leader(leader) => Err("the leader changed".to_owned()),
            };
            match index {
                Ok(index) => return Ok(index),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    /// A read index of this member's own: a quorum confirms that it leads.
    pub(super) async fn own_read_index(&self) -> Result<u64, String> {
        let timeout = self.config.timers.election_max;
        let reading = tokio::time::timeout(timeout, local::read_index(&self.raft));
        reading.await.unwrap_or_else(|_| Err("no quorum answered".to_owned()))
    }

    async fn read_index_of(&self, leader: NodeId) -> Result<u64, String> {
        let timeout = self.config.timers.election_max;
        if leader == self.me() {
            return self.own_read_index().await;
        }
        let reply = self.client(leader)?.read_index(timeout).await;
        let proto::ReadIndexReply { index, refused } = reply.map_err(|error| error.to_string())?;
        index.map(|id| id.index).ok_or(refused)
    }

    /// Has the leader change the members.
    pub(super) async fn change_member(&self, change: Change) -> Result<(), NodeError> {
        let deadline = Instant::now() + CHANGE;
        let mut tried = None;
        let mut reason = "there is no leader".to_owned();
        while let Some(leader) = self.leader(tried, deadline).await {
            tried = Some(leader);
            let Some(id) = leader.leader else { continue };
            match self.change_at(id, change.clone(), deadline).await {
                Ok(()) => return Ok(()),
                Err(Refused::Invalid(refusal)) => return Err(NodeError::Membership(refusal)),
                Err(Refused::NotLeader(why)) => reason = why,
            }
        }
        Err(NodeError::NoLeader { reason })
    }

    async fn change_at(
        &self,
        leader: NodeId,
        change: Change,
        deadline: Instant,
    ) -> Result<(), Refused> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        if leader == self.me() {
            let changing = tokio::time::timeout(timeout, membership::change(&self.raft, change));
            return changing
                .await
                .unwrap_or_else(|_| Err(Refused::NotLeader("no quorum in time".to_owned())));
        }
        let client = self.client(leader).map_err(Refused::NotLeader)?;
        let reply = client.change_member(change.to_message(), timeout).await;
        let reply = reply.map_err(|error| Refused::NotLeader(error.to_string()))?;
        match (reply.refused.is_empty(), reply.not_leader) {
            (true, _) => Ok(()),
            (false, true) => Err(Refused::NotLeader(reply.refused)),
            (false, false) => {
                Err(Refused::Invalid(Refusal { reason: reply.refused, detail: reply.detail }))
            }
        }
    }
}
