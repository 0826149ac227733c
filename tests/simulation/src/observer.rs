//! Looks at all members again and again while things go wrong, and holds what it sees against each
//! invariant.

use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::log_store::LogLine;
use kontiki_raft::status::NodeStatus;
use tokio_util::sync::CancellationToken;

use super::invariants::Live;
use super::world::World;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What one member was at one moment.
pub(super) struct Sight {
    pub(super) status: NodeStatus,
    /// Whether it leads and serves.
    pub(super) leads: bool,
    pub(super) log: Vec<LogLine>,
}

/// Looks until `stop` is cancelled; what it was all held against.
pub(super) async fn run(world: Arc<World>, stop: CancellationToken) -> Live {
    let mut live = Live::default();
    while !stop.is_cancelled() {
        tokio::time::sleep(EVERY).await;
        for running in world.all() {
            let node = &running.node;
            // Read before and after, as the log is read in between: what changes is looked at later.
            let before = node.status();
            let Ok(log) = node.log_lines().await else { continue };
            let status = node.status();
            let leadership = *node.leadership().borrow();
            if before != status {
                continue;
            }
            let leads = leadership.is_local && leadership.term == status.term;
            live.look(&Sight { status, leads, log });
        }
    }
    live
}
