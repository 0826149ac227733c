//! The cloud controller manager: what the cluster asks of whoever it stands on.
//!
//! ```text
//!   Services, Nodes ──► service.rs  node.rs  route.rs ──► trait Provider
//!                            (controllers)                 ├ bare_metal: addresses of a pool
//!                                                          └ grpc: a process beside, cloud.proto
//! ```
//!
//! Controllers take nothing from a cloud on trust: what cannot be true (an address that another
//! Service has, an instance gone whose node is heard from) is refused and asked again, and nothing is
//! deleted on one word of it.

pub mod provider;

pub mod bare_metal;
pub mod pool;

pub mod grpc;
pub mod proto;

pub mod backoff;
pub mod node;
pub mod route;
pub mod service;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::controllers::events::EventRecorder;
use crate::leader_context::LeaderContext;
use bare_metal::BareMetal;
use grpc::{Address, OutOfProcess};
use pool::Pool;
use provider::Provider;

/// Which cloud there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// None.
    #[default]
    None,
    /// Machines, and a pool of addresses that their nodes answer for.
    BareMetal(Pool),
    /// A process that speaks `cloud.proto`.
    OutOfProcess(Address),
}

/// Runs the controllers that the provider has something for, until the context's token is cancelled.
pub async fn run(context: LeaderContext, begin: u64, events: EventRecorder) {
    let Some(provider) = provider(&context).await else { return };
    tracing::info!(provider = provider.name(), "the cloud's controllers begin");
    let mut tasks = JoinSet::new();
    if provider.load_balancers().is_some() {
        tasks.spawn(service::controller(&context, begin, &events, Arc::clone(&provider)).run());
    }
    if provider.instances().is_some() {
        tasks.spawn(node::controller(&context, begin, &events, Arc::clone(&provider)).run());
    }
    if provider.routes().is_some() {
        tasks.spawn(route::controller(&context, begin, &events, provider).run());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller of the cloud has ended");
        }
    }
}

/// The provider once it says what it can do. `None` where there is none, or the term ends before.
async fn provider(context: &LeaderContext) -> Option<Arc<dyn Provider>> {
    match &context.settings.cloud {
        Choice::None => None,
        Choice::BareMetal(pool) => Some(Arc::new(BareMetal::new(pool.clone(), &context.informers))),
        Choice::OutOfProcess(address) => {
            let found = OutOfProcess::find(address, &context.settings.cluster_name);
            let provider = context.token.run_until_cancelled(found).await?;
            Some(Arc::new(provider))
        }
    }
}
