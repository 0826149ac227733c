//! Says who leads, and whether this member can serve as leader.

use kontiki_storage::kv::Term;
use kontiki_storage::latest;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::status::Leadership;
use crate::types::{NodeId, Raft, TypeConfig};

/// What the metrics say of leadership. A leader is ready once it has applied an entry of its own
/// term: its first, and with it all that earlier leaders acknowledged.
fn of(metrics: &RaftMetrics<TypeConfig>) -> Leadership {
    if metrics.running_state.is_err() {
        return Leadership { leader: None, term: Term(metrics.current_term), is_local: false };
    }
    let applied_term = metrics.last_applied.as_ref().map(|id| id.leader_id.term);
    let is_leader =
        metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
    Leadership {
        leader: metrics.current_leader,
        term: Term(metrics.current_term),
        is_local: is_leader && applied_term == Some(metrics.current_term),
    }
}

type Of<T> = openraft::alias::WatchReceiverOf<TypeConfig, T>;

/// openraft's three accounts of itself: the first two change rarely, or apart from one another, and
/// only the third has everything. It is the last that is told.
struct Accounts {
    server: Of<RaftServerMetrics<TypeConfig>>,
    data: Of<RaftDataMetrics<TypeConfig>>,
    all: Of<RaftMetrics<TypeConfig>>,
}

impl Accounts {
    /// What they say of leadership, once the last of them says what the first two do; `None` when
    /// Raft has ended. Read sooner it would miss what woke the reader, and nothing would wake it
    /// again.
    async fn read(&mut self) -> Option<Leadership> {
        loop {
            if let Some(now) = self.agreed() {
                return Some(now);
            }
            self.all.changed().await.ok()?;
        }
    }

    fn agreed(&self) -> Option<Leadership> {
        // In the order in which they are told: the last is not older than the first then.
        let data = self.data.borrow_watched();
        let server = self.server.borrow_watched();
        let all = self.all.borrow_watched();
        let is_told = all.state == server.state
            && all.current_leader == server.current_leader
            && all.vote == server.vote
            && all.last_applied >= data.last_applied;
        (is_told || all.running_state.is_err()).then(|| of(&all))
    }

    /// Waits for what may change `now`, which they say.
    async fn changed(&mut self, now: Leadership, me: NodeId) -> Result<(), RecvError> {
        let is_waiting_to_apply = now.leader == Some(me) && !now.is_local;
        // Cancel-safe: what is missed here is read in the next turn.
        tokio::select! {
            biased;
            changed = self.server.changed() => changed,
            changed = self.data.changed(), if is_waiting_to_apply => changed,
        }
    }
}

/// Publishes until `token` is cancelled or Raft ends.
pub(super) async fn run(raft: Raft, sender: latest::Sender<Leadership>, token: CancellationToken) {
    let accounts =
        Accounts { server: raft.server_metrics(), data: raft.data_metrics(), all: raft.metrics() };
    token.run_until_cancelled(publish(accounts, *raft.node_id(), &sender)).await;
    sender.send_modify(|published| {
        *published = Leadership { term: published.term, ..Leadership::default() }
    });
}

async fn publish(mut accounts: Accounts, me: NodeId, sender: &latest::Sender<Leadership>) {
    while let Some(now) = accounts.read().await {
        sender.send_if_modified(|published| {
            let is_new = *published != now;
            *published = now;
            is_new
        });
        if accounts.changed(now, me).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire;

    fn server(term: u64, leader: Option<NodeId>) -> RaftServerMetrics<TypeConfig> {
        let mut vote = crate::types::Vote::new(term, 1);
        let mut state = ServerState::Follower;
        if leader == Some(1) {
            vote.committed = true;
            state = ServerState::Leader;
        }
        RaftServerMetrics {
            id: 1,
            vote,
            state,
            current_leader: leader,
            membership_config: std::sync::Arc::default(),
            committed_membership_config: std::sync::Arc::default(),
        }
    }

    fn all(
        server: &RaftServerMetrics<TypeConfig>,
        data: &RaftDataMetrics<TypeConfig>,
    ) -> RaftMetrics<TypeConfig> {
        RaftMetrics {
            current_term: server.vote.leader_id.term,
            vote: server.vote,
            state: server.state,
            current_leader: server.current_leader,
            last_applied: data.last_applied,
            ..RaftMetrics::new_initial(1)
        }
    }

    /// Each account is told, and the task that publishes runs in between, as it may on another
    /// thread: a leader that it missed would lead, and nobody would know, itself included.
    #[tokio::test]
    async fn a_leader_whose_accounts_are_told_one_after_the_other_is_not_missed() {
        let mut data = RaftDataMetrics::default();
        let (follows, leads) = (server(1, None), server(2, Some(1)));
        let (server_sender, server) = latest::channel(follows.clone());
        let (data_sender, data_receiver) = latest::channel(data.clone());
        let (all_sender, all_receiver) = latest::channel(all(&follows, &data));
        let accounts = Accounts { server, data: data_receiver, all: all_receiver };
        let (sender, mut published) = latest::channel(Leadership::default());
        let publishing = tokio::spawn(async move { publish(accounts, 1, &sender).await });
        tokio::task::yield_now().await;

        server_sender.send(leads.clone()).unwrap();
        tokio::task::yield_now().await;
        all_sender.send(all(&leads, &data)).unwrap();
        let known = published.wait_for(|now| now.leader == Some(1));
        let known = tokio::time::timeout(Duration::from_secs(5), known).await;
        assert!(!known.expect("the leader must be known").unwrap().is_local);

        data.last_applied = Some(wire::log_id(2, 1));
        data_sender.send(data.clone()).unwrap();
        tokio::task::yield_now().await;
        all_sender.send(all(&leads, &data)).unwrap();
        let ready = published.wait_for(|now| now.is_local);
        let ready = tokio::time::timeout(Duration::from_secs(5), ready).await;
        assert_eq!(ready.expect("the leader must be ready").unwrap().term, Term(2));
        publishing.abort();
    }
}
