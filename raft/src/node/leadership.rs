//! Says who leads, and whether this member can serve as leader.

use openraft::async_runtime::WatchReceiver as _;
use openraft::{RaftMetrics, ServerState};

use tokio_util::sync::CancellationToken;

use crate::status::Leadership;
use crate::types::{Raft, TypeConfig};
use kontiki_storage::kv::Term;
use kontiki_storage::latest;

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

/// Publishes until `token` is cancelled or Raft ends.
pub(super) async fn run(raft: Raft, sender: latest::Sender<Leadership>, token: CancellationToken) {
    let mut server = raft.server_metrics();
    let mut data = raft.data_metrics();
    let all = raft.metrics();
    loop {
        let now = of(&all.borrow_watched());
        sender.send_if_modified(|published| {
            let is_new = *published != now;
            *published = now;
            is_new
        });
        let is_waiting_to_apply = now.leader == Some(*raft.node_id()) && !now.is_local;
        // Cancel-safe: what is missed here is read from `all` in the next turn.
        let changed = tokio::select! {
            biased;
            () = token.cancelled() => break,
            changed = server.changed() => changed,
            changed = data.changed(), if is_waiting_to_apply => changed,
        };
        if changed.is_err() {
            break;
        }
    }
    sender.send_modify(|published| {
        *published = Leadership { term: published.term, ..Leadership::default() }
    });
}
