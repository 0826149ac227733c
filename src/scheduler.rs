//! The scheduler: gives each pod a node.

use crate::leader_context::LeaderContext;

/// Schedules until the context's token is cancelled.
pub async fn run(context: LeaderContext) {
    context.token.cancelled().await;
}
