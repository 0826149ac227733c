//! Campaigns at once when the leader's process is gone, without waiting for an election timeout.
//!
//! A voter keeps a silent stream open to the leader. When that connection closes, and the leader's
//! machine refuses a fresh one, there is no process that could still lead: the lease that protects
//! a living leader from being deposed need not run out. A stream that merely breaks, a machine that
//! does not answer, and a leader that was never reached prove nothing, and are left to the ordinary
//! election. Voters go one after the other, so that they do not split the vote.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::RaftLogStorage as _;
use rand::RngExt as _;

use super::Inner;
use crate::status::Leadership;
use crate::transport::{PeerClient, Probe};
use crate::types::NodeId;

/// How much later each voter campaigns than the one before it: longer than an undisturbed election.
const STAGGER: Duration = Duration::from_millis(60);

/// How much of a voter's wait is random.
const JITTER_MS: u64 = 8;

/// The pause before a leader is approached again.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that ends closes its connections before or after its listener, as it happens: so often,
/// and at this distance, a fresh connection is tried until it is refused.
const PROBES: u32 = 10;
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// Watches whoever leads until the node is stopped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut leadership = inner.leadership.clone();
    loop {
        let now = *leadership.borrow_and_update();
        // Cancel-safe: what `follow` had found is found again.
        tokio::select! {
            () = inner.token.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = inner.follow(now) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Inner {
    /// Waits for the leader's end and campaigns, where it is certain. Never returns while there is
    /// nothing to watch.
    async fn follow(&self, now: Leadership) {
        let Some(leader) = now.leader.filter(|leader| *leader != self.me()) else {
            return std::future::pending().await;
        };
        // A learner may be given a vote within the same term: looked at again after the pause.
        let Some(rank) = self.rank_after(now.leader) else { return };
        let Ok(client) = self.client(leader) else { return };
        if client.presence().await && is_gone(&*client).await {
            let wait =
                STAGGER * rank + Duration::from_millis(rand::rng().random_range(0..JITTER_MS));
            tokio::time::sleep(wait).await;
            tracing::info!(leader, term = now.term.0, "the leader's process is gone: campaigning");
            self.campaign(now).await;
        }
    }

    /// This voter's place among those that are left without `leader`; `None` without a vote.
    fn rank_after(&self, leader: Option<NodeId>) -> Option<u32> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.voter_ids().filter(|id| Some(*id) != leader);
        let mut voters: Vec<NodeId> = voters.collect();
        voters.sort_unstable();
        voters.iter().position(|id| *id == self.me()).and_then(|rank| u32::try_from(rank).ok())
    }

    async fn campaign(&self, dead: Leadership) {
        let mut log = self.log.clone();
        let Ok(state) = log.get_log_state().await else { return };
        let vote = self.raft.metrics().borrow_watched().vote;
        if !vote.is_committed() || vote.leader_id().term != dead.term.0 {
            // Somebody campaigns already.
            return;
        }
        let request = TransferLeaderRequest::new(vote, self.me(), state.last_log_id);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "cannot campaign early"),
            Err(error) => tracing::warn!(%error, "cannot campaign early"),
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
