//! The controllers: each brings one kind of object from what it is to what it shall be.
//!
//! ```text
//!   informers ──change──► WorkQueue ──key──► reconcile() ──plan()──► steps ──► client (fenced)
//!       ▲                                                                          │
//!       └──────────────────────────── watch ◄──────────────────────────────────────┘
//! ```
//!
//! They run at the leader only, under its term: what a deposed leader's controller still writes is
//! refused (invariant R9). Each file has a `reconcile` that reads, writes and waits, and a `plan`
//! that decides and does nothing else.

pub mod events;
pub mod metrics;
pub mod own_writes;
pub mod queue;
pub mod runtime;

pub mod labels;
pub mod owners;
pub mod pods;
pub mod share;
pub mod volumes;

pub mod claims;
pub mod history;
pub mod pod_control;

pub mod api_services;
pub mod autoscale;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod custom_resources;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod garbage;
pub mod job;
pub mod local_path;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_evictions;
pub mod pod_gc;
pub mod replica_set;
pub mod resource_quota;
pub mod service_account;
pub mod stateful_set;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volume_binder;
pub mod volume_protection;

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, ReplicationController};
use kontiki_api::client::Client;
use kontiki_api::registry::options::ListOptions;
use kontiki_api::status::Status;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cloud;
use crate::leader_context::LeaderContext;

/// How soon a store that cannot answer is asked again for the revision to begin with.
const BEGIN_RETRY: Duration = Duration::from_millis(50);

/// Runs all controllers until the context's token is cancelled, and joins them.
pub async fn run(context: LeaderContext) {
    let Some(begin) = begin(&context.client, &context.token).await else { return };
    let token = context.token.child_token();
    let (events, writer) = events::recorder(context.client.clone(), token);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer);
    tasks.spawn(deployment::controller(&context.apart(), begin, &events).run());
    tasks.spawn(replica_set::controller::<ReplicaSet>(&context.apart(), begin, &events).run());
    tasks.spawn(
        replica_set::controller::<ReplicationController>(&context.apart(), begin, &events).run(),
    );
    tasks.spawn(daemon_set::controller(&context.apart(), begin, &events).run());
    tasks.spawn(stateful_set::controller(&context.apart(), begin, &events).run());
    tasks.spawn(cron_job::controller(&context.apart(), begin, &events).run());
    tasks.spawn(disruption::controller(&context.apart(), begin, &events).run());
    tasks.spawn(autoscale::controller(&context.apart(), begin, &events).run());
    tasks.spawn(job::controller(&context.apart(), begin, &events).run());
    tasks.spawn(ttl_after_finished::controller(&context.apart(), begin).run());
    tasks.spawn(endpoints::controller(&context.apart(), begin, &events).run());
    tasks.spawn(node_ipam::controller(&context.apart(), begin, &events).run());
    tasks.spawn(node_lifecycle::controller(&context.apart(), begin, &events).run());
    tasks.spawn(taint_eviction::controller(&context.apart(), begin, &events).run());
    tasks.spawn(pod_gc::controller(&context.apart(), begin).run());
    tasks.spawn(service_account::controller(&context.apart(), begin).run());
    tasks.spawn(garbage::controller(&context.apart(), begin, &events).run());
    tasks.spawn(custom_resources::controller(&context.apart(), begin).run());
    tasks.spawn(namespace::controller(&context.apart(), begin).run());
    tasks.spawn(resource_quota::controller(&context.apart(), begin).run());
    tasks.spawn(cluster_role_aggregation::controller(&context.apart(), begin).run());
    tasks.spawn(volume_binder::controller(&context.apart(), begin, &events).run());
    tasks.spawn(volume_protection::controller(&context.apart(), begin).run());
    tasks.spawn(ephemeral_volume::controller(&context.apart(), begin, &events).run());
    tasks.spawn(certificates::controller(&context.apart(), begin).run());
    tasks.spawn(endpoint_slice_mirroring::controller(&context.apart(), begin).run());
    tasks.spawn(api_services::controller(&context.apart(), begin).run());
    tasks.spawn(api_services::availability::controller(&context.apart(), begin).run());
    tasks.spawn(cloud::run(context.apart(), begin, events));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller has ended");
        }
    }
}

/// The revision at which the term begins: what was written before it, by whichever leader, must be
/// in the informers before anything is decided. `None` when the token is cancelled.
pub async fn begin(client: &Client, token: &CancellationToken) -> Option<u64> {
    loop {
        match token.run_until_cancelled(latest_revision(client)).await? {
            Ok(revision) => return Some(revision),
            Err(status) => {
                tracing::debug!(%status, "the store does not say yet at which revision to begin");
                token.run_until_cancelled(tokio::time::sleep(BEGIN_RETRY)).await?;
            }
        }
    }
}

async fn latest_revision(client: &Client) -> Result<u64, Status> {
    let one = ListOptions { limit: 1, ..ListOptions::default() };
    let list = client.list_objects(client.kind_of::<Namespace>()?, "", &one).await?;
    Ok(list.resource_version)
}

#[cfg(test)]
mod tests;
