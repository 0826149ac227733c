//! Leases at any member: granted and ended through the log, renewed at the leader, which only has
//! to confirm that it leads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kontiki_storage::kv::{KvError, Revision, Term};
use kontiki_storage::lease::Lease;
use rand::RngExt as _;
use tokio::time::Instant;

use super::{Inner, Node};
use crate::command::{Act, Done};
use crate::lessor::Due;
use crate::proto;
use crate::runtime::Randomness;
use crate::types::NodeId;

/// The least that is granted, in seconds: as etcd's, one and a half of its election timeouts.
const TTL_SECONDS_MIN: i64 = 2;

/// How many leases that have run out are ended at the same time.
const ENDING: usize = 64;

/// How long the leader gathers changes of leases before it looks at all of them.
const GATHER: Duration = Duration::from_millis(100);

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTime {
    /// What was granted, in seconds.
    pub ttl_seconds: i64,
    /// What is left of it.
    pub left_seconds: i64,
    /// The keys that live by it, where asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// Which leases are asked for, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Renew,
    Time,
    TimeAndKeys,
}

impl Node {
    /// Makes a lease; without a number one is chosen. Returns its number, for how many seconds it
    /// is, and the store's revision.
    pub async fn grant_lease(
        &self,
        id: Option<i64>,
        ttl_seconds: i64,
    ) -> Result<(i64, i64, Revision), KvError> {
        let id = id.unwrap_or_else(|| Randomness.random_range(1..=i64::MAX));
        let ttl_seconds = ttl_seconds.max(TTL_SECONDS_MIN);
        let act = Act::LeaseGrant { id, ttl_seconds };
        let revision = self.inner.lease_act(act, None).await?;
        Ok((id, ttl_seconds, revision))
    }

    /// Ends a lease: its keys are deleted.
    pub async fn revoke_lease(&self, id: i64) -> Result<Revision, KvError> {
        self.inner.lease_act(Act::LeaseRevoke { id, grant: None }, None).await
    }

    /// Says, as the leader of `term`, that a lease has run out; refused once that is past (R7).
    pub async fn expire_lease(&self, id: i64, term: Term) -> Result<Revision, KvError> {
        let grant = self.inner.store.lease(id).map(|terms| terms.grant);
        self.inner.lease_act(Act::LeaseRevoke { id, grant }, Some(term)).await
    }

    /// Gives leases their whole time again; of each, how many seconds that is, or `None` where it
    /// does not exist. At the leader, once a quorum has confirmed that it leads, and without an entry
    /// of the log unless what was left had been noted.
    pub async fn renew_leases(&self, ids: &[i64]) -> Result<Vec<Option<i64>>, KvError> {
        let reply = self.inner.ask_leases(ids, Ask::Renew).await?;
        let noted = ids.iter().zip(&reply.times).filter(|(_, time)| time.exists && time.noted);
        let noted: Vec<_> = noted.map(|(id, _)| (*id, None)).collect();
        if !noted.is_empty() {
            // Before it is answered: the next leader must not end it for the old note.
            let term = Term(reply.term);
            self.inner.propose(Act::LeaseCheckpoint(noted), Some(term)).await?;
        }
        Ok(reply.times.iter().map(|time| time.exists.then_some(time.ttl_seconds)).collect())
    }

    /// How a lease stands, as the leader knows it; `None` where it does not exist.
    pub async fn lease_time(&self, id: i64, with_keys: bool) -> Result<Option<LeaseTime>, KvError> {
        let ask = if with_keys { Ask::TimeAndKeys } else { Ask::Time };
        let mut reply = self.inner.ask_leases(&[id], ask).await?;
        let time = reply.times.pop().filter(|time| time.exists);
        Ok(time.map(|time| LeaseTime {
            ttl_seconds: time.ttl_seconds,
            left_seconds: time.left_seconds,
            keys: time.keys,
        }))
    }

    /// All leases that this member knows of: at the leader in the order in which they run out,
    /// elsewhere by number.
    pub fn leases(&self) -> Vec<Lease> {
        let mut leases = self.inner.store.leases();
        self.inner.lessor.sort(&mut leases, Instant::now());
        leases
    }
}

impl Inner {
    async fn lease_act(&self, act: Act, fence: Option<Term>) -> Result<Revision, KvError> {
        match self.propose(act, fence).await? {
            Done::Lease(revision) => Ok(revision),
            done => Err(KvError::Failed { reason: format!("a lease came to {done:?}") }),
        }
    }

    /// Asks the leader, whoever it is; one answer for each number.
    async fn ask_leases(&self, ids: &[i64], ask: Ask) -> Result<proto::LeaseReply, KvError> {
        let deadline = Instant::now() + self.config.timers.request;
        let request = proto::LeaseRequest {
            ids: ids.to_vec(),
            renew: ask == Ask::Renew,
            keys: ask == Ask::TimeAndKeys,
        };
        let mut tried = None;
        let mut reason = "there is no leader".to_owned();
        while let Some(leader) = self.leader(tried, deadline).await {
            tried = Some(leader);
            let Some(id) = leader.leader else { continue };
            let asked = tokio::select! {
                biased;
                reply = self.ask_leases_of(id, request.clone()) => reply,
                () = self.other_leader(leader) => Err("the leader changed".to_owned()),
            };
            reason = match asked {
                Ok(reply) if reply.not_leader => "it does not lead yet".to_owned(),
                Ok(reply) if reply.times.len() == ids.len() => return Ok(reply),
                Ok(_) => "the leader's answer is too short".to_owned(),
                Err(why) => why,
            };
        }
        Err(KvError::Unavailable { reason })
    }

    async fn ask_leases_of(
        &self,
        leader: NodeId,
        request: proto::LeaseRequest,
    ) -> Result<proto::LeaseReply, String> {
        if leader == self.me() {
            return Ok(self.peer.leases(&request).await);
        }
        let reply = self.client(leader)?.lease(request, self.config.timers.election_max).await;
        reply.map_err(|error| error.to_string())
    }

    /// Says through the log which leases have run out, and what is left of others. A failure is
    /// not answered for: what is still due will come up again.
    async fn carry_out(&self, due: Due) {
        let fence = Some(due.term);
        if !due.left.is_empty()
            && let Err(error) = self.propose(Act::LeaseCheckpoint(due.left), fence).await
        {
            tracing::debug!(%error, "could not note what is left of leases");
        }
        let ends = due.ended.into_iter().map(|(id, grant)| async move {
            let ended = self.lease_act(Act::LeaseRevoke { id, grant: Some(grant) }, fence).await;
            match ended {
                Ok(revision) => tracing::debug!(id, %revision, "a lease has run out"),
                Err(error) => tracing::debug!(id, %error, "a lease that ran out was not ended"),
            }
        });
        stream::iter(ends).buffer_unordered(ENDING).collect::<()>().await;
    }

    /// Ends leases as they run out, for as long as this member leads. Never returns.
    async fn watch_deadlines(&self) {
        let mut changes = self.store.subscribe_leases();
        loop {
            changes.mark_unchanged();
            self.lessor.sync(&self.store.leases(), Instant::now());
            let Some(due) = self.lessor.due(Instant::now()) else {
                return std::future::pending().await;
            };
            let next = due.next;
            self.carry_out(due).await;
            tokio::select! {
                biased;
                () = at(next) => {}
                changed = changes.changed() => match changed {
                    Ok(()) => tokio::time::sleep(GATHER).await,
                    Err(_) => return std::future::pending().await,
                },
            }
        }
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Minds the leases whenever this member leads, until the node is stopped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut leadership = inner.leadership.clone();
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_local {
            inner.lessor.take_office(now.term);
        } else {
            inner.lessor.leave_office();
        }
        // Cancel-safe: what was due and not done is due for whoever leads next.
        tokio::select! {
            biased;
            () = inner.token.cancelled() => return inner.lessor.leave_office(),
            changed = leadership.changed() => if changed.is_err() { return },
            () = inner.watch_deadlines(), if now.is_local => {}
        }
    }
}
