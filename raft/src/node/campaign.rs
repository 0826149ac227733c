//! Campaigns at once when the leader's process is gone, without waiting for an election timeout.
//!
//! A voter keeps a silent stream open to the leader. When that connection closes, and the leader's
//! machine refuses a fresh one, there is no process that could still lead: the lease that protects
//! a living leader from being deposed need not run out. A stream that merely breaks, a machine that
//! does not answer, and a leader that was never reached prove nothing, and are left to the ordinary
//! election.
//!
//! Voters go one after the other, so that they do not split the vote, and the one with the longest
//! log first: another would be refused by it, and would block the term for it by its own vote. Where
//! it comes to that all the same, they try again in later terms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::RaftLogStorage as _;
use rand::RngExt as _;

use super::Inner;
use crate::proto;
use crate::runtime::Randomness;
use crate::status::Leadership;
use crate::transport::{PeerClient, Probe};
use crate::types::{LogId, NodeId};

/// How much later each voter campaigns than the one before it: longer than an undisturbed election.
const STAGGER: Duration = Duration::from_millis(60);

/// How much of a voter's wait is random.
const JITTER_MS: u64 = 8;

/// How long the other voters are waited for to say how long their logs are.
const ASK: Duration = Duration::from_millis(30);

/// How often a voter campaigns before it leaves the matter to the ordinary election.
const ATTEMPTS: u32 = 4;

/// The pause before a leader is approached again.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that ends closes its connections before or after its listener, as it happens, and on a
/// busy machine much before: so often, and at this distance, a fresh connection is tried until it is
/// refused.
const PROBES: u32 = 40;
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// Watches whoever leads until the node is stopped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut leadership = inner.leadership.clone();
    loop {
        let now = *leadership.borrow_and_update();
        // Cancel-safe: what `follow` had found is found again.
        let gone = tokio::select! {
            biased;
            () = inner.token.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return } else { continue },
            gone = inner.follow(now) => gone,
        };
        // Not given up when the term moves on: that another campaigns does not say that it wins.
        // Cancel-safe: the node is going.
        tokio::select! {
            biased;
            () = inner.token.cancelled() => return,
            () = inner.succeed(gone) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A voter as a candidate: the longer log goes first, of equals the smaller number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    id: NodeId,
    last: Option<(u64, u64)>,
}

impl Candidate {
    fn new(id: NodeId, last: Option<&LogId>) -> Self {
        Self { id, last: last.map(|id| (id.leader_id.term, id.index)) }
    }

    fn goes_before(self, other: Self) -> bool {
        (other.last, self.id) < (self.last, other.id)
    }
}

/// How many candidates go before `me`. One that did not answer goes by its number alone.
fn place(me: Candidate, others: &[(NodeId, Option<Candidate>)]) -> u32 {
    let before = others.iter().filter(|(id, candidate)| match candidate {
        Some(candidate) => candidate.goes_before(me),
        None => *id < me.id,
    });
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

impl Inner {
    /// Returns the leader that this voter has seen to be gone. Never returns while there is nothing
    /// to watch.
    async fn follow(&self, now: Leadership) -> Option<Leadership> {
        let Some(leader) = now.leader.filter(|leader| *leader != self.me()) else {
            return std::future::pending().await;
        };
        // A learner may be given a vote within the same term: looked at again after the pause.
        if !self.voters().contains(&self.me()) {
            return None;
        }
        let client = self.client(leader).ok()?;
        (client.presence().await && is_gone(&*client).await).then_some(now)
    }

    fn voters(&self) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().collect()
    }

    /// Campaigns in the place of a leader that is gone, until there is another one.
    async fn succeed(&self, gone: Option<Leadership>) {
        let Some((gone, dead)) = gone.and_then(|gone| Some((gone, gone.leader?))) else { return };
        let mut leadership = self.leadership.clone();
        let mut wait = STAGGER * self.place_after(dead).await;
        for attempt in 0..ATTEMPTS {
            let jitter = Duration::from_millis(Randomness.random_range(0..JITTER_MS));
            let another = leadership.wait_for(|now| {
                now.leader.is_some_and(|leader| leader != dead || now.term > gone.term)
            });
            if tokio::time::timeout(wait + jitter, another).await.is_ok() {
                return;
            }
            let term = gone.term.0;
            tracing::info!(dead, term, attempt, "the leader's process is gone: campaigning");
            if !self.campaign(gone).await {
                return;
            }
            wait = STAGGER * (1 + self.place_after(dead).await);
        }
    }

    /// This voter's place among those that are left without `dead`.
    async fn place_after(&self, dead: NodeId) -> u32 {
        let me = Candidate::new(self.me(), self.last_log_id().await.as_ref());
        let others = self.voters().into_iter().filter(|id| *id != dead && *id != me.id);
        let asked = others.map(|id| async move { (id, self.candidate(id).await) });
        place(me, &join_all(asked).await)
    }

    async fn candidate(&self, id: NodeId) -> Option<Candidate> {
        let client = self.client(id).ok()?;
        let status = client.status(proto::StatusRequest::default(), ASK).await.ok()?;
        let last = status.last.map(crate::wire::log_id_from);
        Some(Candidate::new(id, last.as_ref()))
    }

    async fn last_log_id(&self) -> Option<LogId> {
        let mut log = self.log.clone();
        log.get_log_state().await.ok()?.last_log_id
    }

    /// Campaigns as if the dead leader had handed over; whether it may be worth another attempt.
    async fn campaign(&self, dead: Leadership) -> bool {
        let vote = self.raft.metrics().borrow_watched().vote;
        if vote.is_committed() && vote.leader_id().term != dead.term.0 {
            // There is a new leader.
            return false;
        }
        let last = self.last_log_id().await;
        let request = TransferLeaderRequest::new(vote, self.me(), last);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::info!(%error, "cannot campaign early");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot campaign early");
                false
            }
        }
    }
}

async fn is_gone(client: &dyn PeerClient) -> bool {
    for _ in 0..PROBES {
        match client.probe().await {
            Probe::Gone => return true,
            Probe::Silent => return false,
            Probe::Reachable => tokio::time::sleep(PROBE_PAUSE).await,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: NodeId, last: (u64, u64)) -> Candidate {
        Candidate { id, last: Some(last) }
    }

    #[test]
    fn the_longest_log_campaigns_first_and_of_equals_the_smallest_number() {
        let (one, two, three) = (candidate(1, (2, 7)), candidate(2, (2, 8)), candidate(3, (2, 8)));
        assert_eq!(place(one, &[(2, Some(two)), (3, Some(three))]), 2);
        assert_eq!(place(two, &[(1, Some(one)), (3, Some(three))]), 0);
        assert_eq!(place(three, &[(1, Some(one)), (2, Some(two))]), 1);
        let newer = candidate(4, (3, 1));
        assert!(newer.goes_before(three) && !three.goes_before(newer));
    }

    #[test]
    fn one_that_does_not_say_how_long_its_log_is_goes_by_its_number() {
        let two = candidate(2, (1, 1));
        assert_eq!(place(two, &[(1, None), (3, None)]), 1);
    }
}
