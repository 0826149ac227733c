//! `kontiki chaos`: clients write, read and watch while faults befall the servers again and again;
//! then the clients' history is checked against the store's promises.
//!
//! ```text
//!   scenario: which fault, to whom     rounds: wait until whole → inject → hold → heal
//!        │                                │ faults/: processes, packets, disks, files
//!        ▼                                ▼
//!   workload ──► history ──► check: no acknowledged write lost, no stale read, watches complete
//!                   └──────► report, picture
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::cluster_file::ClusterFile;
use crate::picture::{self, Chart, Mark};

pub mod check;
pub mod faults;
pub mod history;
pub mod objects;
pub mod observer;
pub mod report;
pub mod rounds;
pub mod scenario;
pub mod workload;

use check::Violation;
use history::Record;
use objects::Objects;
use observer::Observer;
use report::{Distribution, FaultReport};
use scenario::{FaultKind, Scenario};
use workload::Shared;

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosConfig {
    /// Which faults.
    pub scenario: Scenario,
    /// What they are chosen by.
    pub seed: u64,
    /// Data directory of a running `up`.
    pub data_dir: PathBuf,
    /// How many faults.
    pub count: u32,
    /// From one fault to the next, at least.
    pub interval: Duration,
    /// How long a fault lasts that has an end.
    pub hold: Duration,
    /// How many clients write.
    pub writers: u32,
    /// How many clients read.
    pub readers: u32,
    /// How many clients watch.
    pub watchers: u32,
    /// How many keys they share.
    pub keys: u32,
    /// Where the history goes.
    pub history: PathBuf,
    /// Where the picture of the throughput goes (SVG).
    pub picture: PathBuf,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Which faults.
    pub scenario: Scenario,
    /// What they were chosen by.
    pub seed: u64,
    /// Each fault, in order.
    pub faults: Vec<FaultReport>,
    /// Servers killed.
    pub kills: usize,
    /// Milliseconds from each fault to the end of the first acknowledged write begun after it.
    pub first_write_ms: Distribution,
    /// Each of them, in order.
    pub first_write_ms_each: Vec<f64>,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Writes refused.
    pub refused: usize,
    /// Writes of unknown outcome.
    pub unknown: usize,
    /// Reads and lists answered.
    pub reads: usize,
    /// Events told to watchers.
    pub events: usize,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Where the history is.
    pub history: PathBuf,
    /// Where the picture of the throughput is.
    pub picture: PathBuf,
}

/// Runs it against the cluster of `config.data_dir`.
pub async fn run(config: &ChaosConfig, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let (observer, objects, shared) = prepare(config).await?;
    let (clients, watching) = (CancellationToken::new(), CancellationToken::new());
    let mut watchers = JoinSet::new();
    for watcher in 0..config.watchers {
        workload::watcher(&mut watchers, watcher, objects.clone(), &shared, &watching)
            .await
            .context("begin a watch")?;
    }
    let mut working = JoinSet::new();
    workload::writers(&mut working, config.writers, &objects, &shared, &clients);
    workload::readers(&mut working, config.readers, &objects, &shared, &clients);
    // Dropped half-way, a fault that lasts ends with it.
    let ran = stop.run_until_cancelled(rounds::run(config, &observer, &shared)).await;
    clients.cancel();
    // Each client ends with its operation, which has a deadline.
    working.join_all().await;
    let caught_up = observer.wait_for_watchers(&objects, &shared, config.watchers).await;
    watching.cancel();
    watchers.join_all().await;
    let hashes = observer.compare_replicas().await;
    // A run that was interrupted or failed is checked as well, as far as it came.
    let history = shared.take();
    let mut violations = check::check(&history);
    violations.extend(caught_up.err());
    violations.extend(hashes.err());
    let outcome = summarize(config, &history, violations);
    keep(config, &history, &outcome.faults)?;
    match ran {
        Some(Err(error)) if outcome.violations.is_empty() => Err(error),
        Some(Err(error)) => {
            eprintln!("error: {error:#}");
            Ok(outcome)
        }
        _ => Ok(outcome),
    }
}

async fn prepare(config: &ChaosConfig) -> anyhow::Result<(Observer, Objects, Shared)> {
    let file = ClusterFile::read(&config.data_dir)?;
    if file.servers.len() < 3 {
        bail!(
            "the cluster in {} has {} servers: a fault of one among fewer than 3 only stops it",
            config.data_dir.display(),
            file.servers.len()
        );
    }
    let http = client::for_kubeconfig(&client::kubeconfig(None, &config.data_dir)?)?;
    let urls: Vec<String> = file.servers.iter().map(|server| server.api.clone()).collect();
    let keys: Vec<String> = (0..config.keys).map(|number| format!("key-{number}")).collect();
    let objects = Objects::new(http.clone(), urls, 0);
    objects.prepare(&keys).await?;
    let (data_dir, servers) = (config.data_dir.clone(), file.servers.len());
    Ok((Observer { data_dir, http, servers }, objects, Shared::new(keys)))
}

/// Refuses what must not, or cannot, be done to a cluster that somebody else started.
pub fn check_foreign(scenario: Scenario, data_dir: &Path) -> anyhow::Result<()> {
    let faults = scenario.faults();
    let name = scenario.name();
    if let Some(fault) = faults.iter().find(|fault| fault.destroys()) {
        bail!(
            "{name}: \"{} a server\" destroys what it keeps; it is done to a cluster of its own \
             only: leave --data-dir out",
            fault.verb()
        );
    }
    if faults.contains(&FaultKind::FullDisk) {
        bail!("{name}: needs servers on small disks of their own: leave --data-dir out");
    }
    let servers = ClusterFile::read(data_dir)?.servers;
    let hosts: std::collections::HashSet<_> = servers.iter().map(|s| s.raft.ip()).collect();
    if faults.iter().any(|fault| fault.cuts()) && hosts.len() < servers.len() {
        bail!("{name}: needs servers with addresses of their own: leave --data-dir out");
    }
    Ok(())
}

fn summarize(config: &ChaosConfig, history: &[Record], violations: Vec<Violation>) -> Outcome {
    let faults = report::faults(history);
    let each: Vec<f64> = faults.iter().filter_map(|fault| fault.first_write_ms).collect();
    let count = |wanted: fn(&Record) -> bool| history.iter().filter(|r| wanted(r)).count();
    let written = |wanted: fn(&history::Outcome) -> bool| {
        let is =
            |record: &&Record| matches!(record, Record::Write { outcome, .. } if wanted(outcome));
        history.iter().filter(is).count()
    };
    Outcome {
        scenario: config.scenario,
        seed: config.seed,
        kills: faults.iter().filter(|fault| fault.fault == FaultKind::Kill).count(),
        faults,
        first_write_ms: Distribution::of(&each),
        first_write_ms_each: each,
        acknowledged: written(|outcome| matches!(outcome, history::Outcome::Acknowledged { .. })),
        refused: written(|outcome| matches!(outcome, history::Outcome::Refused { .. })),
        unknown: written(|outcome| matches!(outcome, history::Outcome::Unknown { .. })),
        reads: count(|r| matches!(r, Record::Read { .. } | Record::List { .. })),
        events: count(|r| matches!(r, Record::Event { .. })),
        violations,
        history: config.history.clone(),
        picture: config.picture.clone(),
    }
}

fn keep(config: &ChaosConfig, history: &[Record], faults: &[FaultReport]) -> anyhow::Result<()> {
    history::write(&config.history, history)?;
    let marks = faults
        .iter()
        .map(|fault| Mark {
            at: fault.at_s,
            label: format!("{} {}", fault.fault.verb(), fault.server),
        })
        .collect();
    let chart = Chart {
        title: format!("kontiki chaos {}: acknowledged writes", config.scenario.name()),
        x: "seconds".into(),
        y: "writes per second".into(),
        lines: vec![("writes".into(), report::throughput(history))],
        marks,
    };
    picture::write(&config.picture, &chart)
}
