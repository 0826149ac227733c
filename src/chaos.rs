//! `kontiki chaos leader-kill`: clients write, read and watch while the leader is killed with
//! SIGKILL again and again; then their history is checked against the store's promises.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::Signal;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::cluster_file::ClusterFile;
use crate::cluster_status::ServerStatus;

pub mod check;
pub mod history;
pub mod objects;
pub mod report;
pub mod workload;

use check::Violation;
use history::Record;
use objects::Objects;
use report::{Distribution, first_writes};
use workload::Shared;

/// How long a cluster may take to be whole again before the next kill.
const HEAL_DEADLINE: Duration = Duration::from_secs(60);
/// How long watchers may take to be told of the last write.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(30);
/// How long one server may take to tell its status.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Writes before the first kill and after the last.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosConfig {
    /// Data directory of a running `up`.
    pub data_dir: PathBuf,
    /// How many kills.
    pub count: u32,
    /// From one kill to the next, at least.
    pub interval: Duration,
    /// How many clients write.
    pub writers: u32,
    /// How many clients read.
    pub readers: u32,
    /// How many clients watch.
    pub watchers: u32,
    /// How many keys they share.
    pub keys: u32,
    /// Where the history goes; kept there if it is set or something is wrong.
    pub history: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Leaders killed.
    pub kills: u32,
    /// Milliseconds from each kill to the end of the first acknowledged write begun after it.
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
    /// Where the history is, if it was kept.
    pub history: Option<PathBuf>,
}

/// Runs it against the cluster of `config.data_dir`.
pub async fn leader_kill(
    config: &ChaosConfig,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let run = Run::prepare(config).await?;
    let (clients, watching) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    for watcher in 0..config.watchers {
        workload::watcher(&mut tasks, watcher, run.objects.clone(), &run.shared, &watching)
            .await
            .context("begin a watch")?;
    }
    let mut working = JoinSet::new();
    workload::writers(&mut working, config.writers, &run.objects, &run.shared, &clients);
    workload::readers(&mut working, config.readers, &run.objects, &run.shared, &clients);
    let killed = stop.run_until_cancelled(run.kill_leaders(config)).await;
    clients.cancel();
    // Each client ends with its operation, which has a deadline.
    working.join_all().await;
    let caught_up = run.wait_for_watchers(config.watchers).await;
    watching.cancel();
    tasks.join_all().await;
    let hashes = run.compare_replicas().await;
    // A run that was interrupted or failed is checked as well, as far as it came.
    let history = run.shared.take();
    let mut violations = check::check(&history);
    violations.extend(caught_up.err());
    violations.extend(hashes.err());
    let outcome = summarize(config, &history, violations)?;
    match killed {
        Some(Err(error)) if outcome.violations.is_empty() => Err(error),
        Some(Err(error)) => {
            eprintln!("error: {error:#}");
            Ok(outcome)
        }
        _ => Ok(outcome),
    }
}

struct Run {
    data_dir: PathBuf,
    http: reqwest::Client,
    objects: Objects,
    shared: Shared,
    servers: usize,
}

impl Run {
    async fn prepare(config: &ChaosConfig) -> anyhow::Result<Self> {
        let file = ClusterFile::read(&config.data_dir)?;
        if file.servers.len() < 3 {
            bail!(
                "the cluster in {} has {} servers: killing the leader of fewer than 3 only stops it",
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
        Ok(Self { data_dir, http, objects, shared: Shared::new(keys), servers })
    }

    async fn kill_leaders(&self, config: &ChaosConfig) -> anyhow::Result<()> {
        let bar = progress(config.count);
        sleep(WARM_UP).await;
        for _ in 0..config.count {
            let begun = Instant::now();
            let leader = self.whole_cluster().await?;
            self.kill(&leader)?;
            bar.set_message(leader);
            bar.inc(1);
            sleep(config.interval.saturating_sub(begun.elapsed())).await;
        }
        self.whole_cluster().await?;
        sleep(WARM_UP).await;
        bar.finish_and_clear();
        Ok(())
    }

    fn kill(&self, leader: &str) -> anyhow::Result<()> {
        let file = ClusterFile::read(&self.data_dir)?;
        let server = file.servers.iter().find(|server| server.name == leader);
        let server =
            server.with_context(|| format!("the leader {leader} is not in cluster.json"))?;
        let at_us = self.shared.clock.now_us();
        server.process.signal(Signal::KILL).with_context(|| format!("kill {leader}"))?;
        self.shared.record(Record::Kill { at_us, server: leader.into() });
        Ok(())
    }

    /// Waits until all servers answer and follow one leader. Returns its name.
    async fn whole_cluster(&self) -> anyhow::Result<String> {
        let until = Instant::now() + HEAL_DEADLINE;
        loop {
            let statuses = self.statuses().await?;
            if let Some(leader) = common_leader(&statuses, self.servers) {
                return Ok(leader);
            }
            if Instant::now() >= until {
                bail!(
                    "the cluster is not whole {HEAL_DEADLINE:?} after a kill: {} of {} servers \
                     answer; are they started again?",
                    statuses.len(),
                    self.servers
                );
            }
            sleep(POLL).await;
        }
    }

    async fn statuses(&self) -> anyhow::Result<Vec<ServerStatus>> {
        let file = ClusterFile::read(&self.data_dir)?;
        let urls = file.servers.iter().map(|server| format!("{}/kontiki/v1/status", server.api));
        let asked = urls.map(|url| async move {
            let json = client::get_json(&self.http, &url, STATUS_DEADLINE).await.ok()?;
            serde_json::from_value(json).ok()
        });
        Ok(futures_util::future::join_all(asked).await.into_iter().flatten().collect())
    }

    /// The last writes must reach every watcher.
    async fn wait_for_watchers(&self, watchers: u32) -> Result<(), Violation> {
        let until = Instant::now() + CATCH_UP_DEADLINE;
        let mut objects = self.objects.clone();
        let last = loop {
            match objects.list().await {
                Ok((_, items)) => break items.iter().map(|item| item.revision).max().unwrap_or(0),
                Err(_) if Instant::now() < until => objects.turn(),
                Err(error) => return Err(incomplete(format!("the last list failed: {error:#}"))),
            }
            sleep(POLL).await;
        };
        while !self.shared.all_watched(watchers, last) {
            if Instant::now() >= until {
                return Err(incomplete(format!(
                    "a watcher was not told of revision {last} within {CATCH_UP_DEADLINE:?}"
                )));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// At the same revision, all replicas have the same hash (invariant R6).
    async fn compare_replicas(&self) -> Result<(), Violation> {
        let until = Instant::now() + CATCH_UP_DEADLINE;
        loop {
            let statuses = self.statuses().await.unwrap_or_default();
            let (Some(first), true) = (statuses.first(), statuses.len() == self.servers) else {
                if Instant::now() >= until {
                    return Err(incomplete("not all servers answer after the run".into()));
                }
                sleep(POLL).await;
                continue;
            };
            if statuses.iter().all(|status| status.revision == first.revision) {
                return equal_hashes(&statuses);
            }
            if Instant::now() >= until {
                return Err(incomplete(
                    "the servers do not reach one revision after the run".into(),
                ));
            }
            sleep(POLL).await;
        }
    }
}

fn equal_hashes(statuses: &[ServerStatus]) -> Result<(), Violation> {
    let Some(first) = statuses.first() else { return Ok(()) };
    match statuses.iter().find(|status| status.hash != first.hash) {
        None => Ok(()),
        Some(other) => Err(Violation {
            promise: check::Promise::ReplicasEqual,
            detail: format!(
                "at revision {} {} has the hash {}, {} has {}",
                first.revision, first.name, first.hash, other.name, other.hash
            ),
        }),
    }
}

fn incomplete(detail: String) -> Violation {
    Violation { promise: check::Promise::WatchComplete, detail }
}

fn common_leader(statuses: &[ServerStatus], servers: usize) -> Option<String> {
    let first = statuses.first()?.leader.clone()?;
    let agreed = statuses.len() == servers
        && statuses.iter().all(|status| status.leader.as_ref() == Some(&first))
        && statuses.iter().all(|status| status.voters() == servers);
    agreed.then_some(first)
}

fn summarize(
    config: &ChaosConfig,
    history: &[Record],
    violations: Vec<Violation>,
) -> anyhow::Result<Outcome> {
    let each = first_writes(history);
    let count = |wanted: fn(&Record) -> bool| history.iter().filter(|r| wanted(r)).count();
    let written = |wanted: fn(&history::Outcome) -> bool| {
        let is =
            |record: &&Record| matches!(record, Record::Write { outcome, .. } if wanted(outcome));
        history.iter().filter(is).count()
    };
    let path = match &config.history {
        Some(path) => Some(path.clone()),
        None if violations.is_empty() => None,
        None => {
            Some(std::env::temp_dir().join(format!("kontiki-chaos-{}.jsonl", std::process::id())))
        }
    };
    if let Some(path) = &path {
        history::write(path, history)?;
    }
    Ok(Outcome {
        kills: u32::try_from(count(|r| matches!(r, Record::Kill { .. }))).unwrap_or(u32::MAX),
        first_write_ms: Distribution::of(&each),
        first_write_ms_each: each,
        acknowledged: written(|outcome| matches!(outcome, history::Outcome::Acknowledged { .. })),
        refused: written(|outcome| matches!(outcome, history::Outcome::Refused { .. })),
        unknown: written(|outcome| matches!(outcome, history::Outcome::Unknown { .. })),
        reads: count(|r| matches!(r, Record::Read { .. } | Record::List { .. })),
        events: count(|r| matches!(r, Record::Event { .. })),
        violations,
        history: path,
    })
}

fn progress(count: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(count));
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} kills, last {msg} {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}
