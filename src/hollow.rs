//! `kontiki hollow`: nodes that are not there, in one process for thousands.
//!
//! ```text
//!   nodes: register ─▶ renew leases, each at its own moment ─▶ report now and then
//!   one watch of all bound pods ─▶ plan() ─▶ timeline ─▶ status, deletion
//! ```
//!
//! They load the control plane as real ones do (registration, a lease every ten seconds, the life of
//! every pod) and run nothing. [`pods`] decides what becomes of a pod, [`node`] says what a node is.

pub mod api;
pub mod node;
pub mod pods;
pub mod timeline;

#[cfg(test)]
pub(crate) mod stub;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use api::Api;
use node::Shape;
use pods::Life;

/// Requests under way at the same time.
const REQUESTS_MAX: usize = 128;
/// Between two looks at which leases are due.
const TICK: Duration = Duration::from_millis(100);
/// How often a node that cannot be registered is tried again.
const TRIES: u32 = 5;
/// Before it is.
const RETRY: Duration = Duration::from_millis(500);

/// What hollow nodes are like.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many nodes.
    pub nodes: usize,
    /// What each offers.
    pub shape: Shape,
    /// What becomes of their pods.
    pub life: Life,
    /// Between two renewals of a node's lease.
    pub lease_period: Duration,
    /// Between two reports of a node's status.
    pub status_period: Duration,
}

/// Registers the nodes and keeps them alive until `stop`.
pub async fn run(
    api: Arc<Api>,
    config: Arc<Config>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let Some(registered) = stop.run_until_cancelled(register(&api, &config)).await else {
        return Ok(());
    };
    registered?;
    info!(nodes = config.nodes, seconds = began.elapsed().as_secs_f64(), "hollow nodes registered");
    live(api, config, stop).await
}

/// Keeps nodes that are registered alive until `stop`.
pub async fn live(
    api: Arc<Api>,
    config: Arc<Config>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(beat(Arc::clone(&api), Arc::clone(&config), stop.clone()));
    tasks.spawn(timeline::run(Arc::clone(&api), Arc::clone(&config), stop.clone()));
    while let Some(ended) = tasks.join_next().await {
        ended.context("a part of the hollow nodes")?;
    }
    Ok(())
}

/// Makes all nodes, some at a time.
pub async fn register(api: &Arc<Api>, config: &Arc<Config>) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut tasks = JoinSet::new();
    for index in 0..config.nodes {
        let place = Arc::clone(&places).acquire_owned().await.context("places are never closed")?;
        let (api, config) = (Arc::clone(api), Arc::clone(config));
        tasks.spawn(async move {
            let made = persist(&api, &config, index).await;
            drop(place);
            made
        });
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// A cluster that changes its leader is no reason to give up.
async fn persist(api: &Api, config: &Config, index: usize) -> anyhow::Result<()> {
    let mut tries = 1;
    loop {
        let made = register_one(api, config, index).await;
        match made {
            Err(error) if tries < TRIES => {
                warn!(node = node::name(index), error = format!("{error:#}"), "trying again");
                tokio::time::sleep(RETRY * tries).await;
                tries += 1;
            }
            made => return made.with_context(|| format!("register node {}", node::name(index))),
        }
    }
}

async fn register_one(api: &Api, config: &Config, index: usize) -> anyhow::Result<()> {
    let (name, now) = (node::name(index), Timestamp::now());
    api.create("/api/v1/nodes", &node::object(index)).await?;
    let status = node::status(&config.shape, now);
    api.patch_status(&format!("/api/v1/nodes/{name}"), &status).await?;
    api.create(node::LEASES, &node::lease(&name, now)).await?;
    api.merge(&format!("{}/{name}", node::LEASES), &node::renewal(now)).await
}

/// Removes the nodes and their leases.
pub async fn remove(api: &Arc<Api>, nodes: usize) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for index in 0..nodes {
        let place = Arc::clone(&places).acquire_owned().await.context("places are never closed")?;
        let api = Arc::clone(api);
        tasks.spawn(async move {
            let name = node::name(index);
            let removed = api.delete(&format!("/api/v1/nodes/{name}"), None).await;
            api.delete(&format!("{}/{name}", node::LEASES), None).await?;
            drop(place);
            removed
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Renews leases and reports statuses, each node at its own moment of the period.
async fn beat(api: Arc<Api>, config: Arc<Config>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let began = Instant::now();
    let (mut renewed, mut reported) = (0, 0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let elapsed = began.elapsed();
        let leases = node::due(elapsed, config.lease_period, config.nodes);
        let statuses = node::due(elapsed, config.status_period, config.nodes);
        for turn in node::turns(renewed, leases, config.nodes) {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (api, name) = (Arc::clone(&api), node::name(turn % config.nodes));
            under_way.spawn(async move {
                let path = format!("{}/{name}", node::LEASES);
                if let Err(error) = api.merge(&path, &node::renewal(Timestamp::now())).await {
                    warn!(name, error = format!("{error:#}"), "a lease is not renewed");
                }
                drop(place);
            });
        }
        for turn in node::turns(reported, statuses, config.nodes) {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (api, name) = (Arc::clone(&api), node::name(turn % config.nodes));
            let status = node::status(&config.shape, Timestamp::now());
            under_way.spawn(async move {
                if let Err(error) =
                    api.patch_status(&format!("/api/v1/nodes/{name}"), &status).await
                {
                    warn!(name, error = format!("{error:#}"), "a status is not reported");
                }
                drop(place);
            });
        }
        (renewed, reported) = (leases.max(renewed), statuses.max(reported));
        while under_way.try_join_next().is_some() {}
    }
    under_way.shutdown().await;
}
