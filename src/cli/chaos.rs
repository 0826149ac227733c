//! `kontiki chaos`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::{Global, Output, seconds};
use crate::chaos::faults::disk::SmallDisk;
use crate::chaos::scenario::{FaultKind, Scenario};
use crate::chaos::{self, ChaosConfig, Outcome, check, history, report};
use crate::cloud::Choice;
use crate::shutdown;
use crate::up::Cluster;
use crate::up::plan::{Hosts, Runtime, UpConfig};

/// The exit code when a promise of the store was broken.
pub const EXIT_VIOLATION: u8 = 3;
/// Servers of a cluster that is started for a run.
const SERVERS: u16 = 3;

/// Flags of `kontiki chaos`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Kill the leader again and again while clients write, read and watch; check what they saw.
    LeaderKill(Faults),
    /// Kill any server again and again.
    RandomKill(Faults),
    /// Let the leader, then any server, stand still (SIGSTOP) for a while.
    Pause(Faults),
    /// Cut the leader, then any server, off from its peers for a while (root, nftables).
    Partition(Faults),
    /// Drop what the leader sends its peers, then what they send it (root, nftables).
    OneWay(Faults),
    /// Make the leader's syncs slow for a while (root, strace).
    SlowDisk(Faults),
    /// Leave no room on the disk of the leader, then of any server, for a while (root).
    DiskFull(Faults),
    /// Flip bits in the files of the leader, then of any server, while it does not run.
    Corrupt(Faults),
    /// Restart all servers, one after the other.
    RollingRestart(Faults),
    /// Replace all servers by new members, one after the other.
    Membership(Faults),
    /// All of these in turn (root, nftables, strace).
    All(Faults),
    /// Check a history that was kept.
    Check(Check),
}

/// Flags of every scenario.
#[derive(Debug, Args)]
struct Faults {
    /// How many faults; by default enough to show the scenario.
    #[arg(long)]
    count: Option<u32>,
    /// Seconds from one fault to the next, at least; the next waits until all servers are back.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    interval: f64,
    /// Seconds that a fault lasts that has an end of its own.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    hold: f64,
    /// What random choices come from; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// The data directory of a running `kontiki up`. Without it a cluster of three servers is
    /// started for the run, in a directory that goes with it.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The base port of the cluster that is started for the run.
    #[arg(long, default_value_t = 16443, value_name = "PORT")]
    base_port: u16,
    /// How many clients write.
    #[arg(long, default_value_t = 6)]
    writers: u32,
    /// How many clients read.
    #[arg(long, default_value_t = 4)]
    readers: u32,
    /// How many clients watch.
    #[arg(long, default_value_t = 3)]
    watchers: u32,
    /// How many keys they share.
    #[arg(long, default_value_t = 8)]
    keys: u32,
    /// Where to keep the history; by default in the folder for temporary files.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Where to draw the throughput with the faults (SVG); by default beside the history.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// How to print the outcome.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Flags of `kontiki chaos check`.
#[derive(Debug, Args)]
struct Check {
    /// The history.
    history: PathBuf,
}

/// Runs it. The exit code is [`EXIT_VIOLATION`] when a promise was broken.
pub fn run(global: &Global, flags: Flags) -> anyhow::Result<ExitCode> {
    let (scenario, flags) = match flags.verb {
        Verb::LeaderKill(flags) => (Scenario::LeaderKill, flags),
        Verb::RandomKill(flags) => (Scenario::RandomKill, flags),
        Verb::Pause(flags) => (Scenario::Pause, flags),
        Verb::Partition(flags) => (Scenario::Partition, flags),
        Verb::OneWay(flags) => (Scenario::OneWay, flags),
        Verb::SlowDisk(flags) => (Scenario::SlowDisk, flags),
        Verb::DiskFull(flags) => (Scenario::DiskFull, flags),
        Verb::Corrupt(flags) => (Scenario::Corrupt, flags),
        Verb::RollingRestart(flags) => (Scenario::RollingRestart, flags),
        Verb::Membership(flags) => (Scenario::Membership, flags),
        Verb::All(flags) => (Scenario::All, flags),
        Verb::Check(flags) => return check_again(&flags),
    };
    super::runtime(None)?.block_on(bring(global, scenario, flags))
}

impl Faults {
    fn config(&self, scenario: Scenario, data_dir: PathBuf) -> anyhow::Result<ChaosConfig> {
        if self.writers == 0 || self.keys == 0 {
            bail!("--writers and --keys: expected at least 1");
        }
        let name = format!("kontiki-chaos-{}-{}", scenario.name(), std::process::id());
        let history = self
            .history
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("{name}.jsonl")));
        Ok(ChaosConfig {
            scenario,
            seed: self.seed.unwrap_or_else(rand::random),
            data_dir,
            count: self.count.unwrap_or_else(|| scenario.default_count()),
            interval: seconds("--interval", self.interval)?,
            hold: seconds("--hold", self.hold)?,
            writers: self.writers,
            readers: self.readers,
            watchers: self.watchers,
            keys: self.keys,
            picture: self.picture.clone().unwrap_or_else(|| history.with_extension("svg")),
            history,
        })
    }
}

async fn bring(global: &Global, scenario: Scenario, flags: Faults) -> anyhow::Result<ExitCode> {
    let stop = shutdown::on_signal()?;
    let outcome = match flags.data_dir.clone() {
        Some(data_dir) => {
            chaos::check_foreign(scenario, &data_dir)?;
            chaos::run(&flags.config(scenario, data_dir)?, &stop).await?
        }
        None => on_own_cluster(global, scenario, &flags, &stop).await?,
    };
    match flags.output {
        Output::Json => super::print(&serde_json::to_string_pretty(&outcome)?)?,
        Output::Table => super::print(&report::table(&outcome))?,
    }
    let kept = outcome.violations.is_empty();
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VIOLATION) })
}

async fn on_own_cluster(
    global: &Global,
    scenario: Scenario,
    flags: &Faults,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    crate::up::report::to_stderr();
    let folder = tempfile::Builder::new().prefix("kontiki-chaos-").tempdir()?;
    let config = flags.config(scenario, folder.path().into())?;
    // Unmounted when the servers have stopped, before the folder goes.
    let _disks = small_disks(scenario, folder.path())?;
    let mut cluster = Cluster::prepare(own_cluster(global, &config, flags.base_port)).await?;
    let outcome = async {
        cluster.boot().await?;
        chaos::run(&config, stop).await
    }
    .await;
    let stopped = cluster.stop().await;
    let outcome = outcome?;
    stopped?;
    Ok(outcome)
}

/// Disks that can be filled, where the scenario fills any.
fn small_disks(scenario: Scenario, folder: &Path) -> anyhow::Result<Vec<SmallDisk>> {
    if !scenario.faults().contains(&FaultKind::FullDisk) {
        return Ok(Vec::new());
    }
    (1..=SERVERS).map(|number| SmallDisk::mount(&folder.join(format!("server-{number}")))).collect()
}

fn own_cluster(global: &Global, config: &ChaosConfig, base_port: u16) -> UpConfig {
    UpConfig {
        cloud: Choice::None,
        cluster_name: "kubernetes".into(),
        network: None,
        servers: SERVERS,
        agents: 0,
        data_dir: config.data_dir.clone(),
        base_port,
        runtime: Runtime::None,
        images: None,
        registry_mirror: None,
        install_packages: false,
        restart: true,
        runtime_threads: None,
        node_ip: super::server::LOOPBACK,
        hosts: Hosts::Own,
        cluster_cidr: None,
        server_args: Vec::new(),
        agent_args: Vec::new(),
        log: global.log.clone(),
    }
}

fn check_again(flags: &Check) -> anyhow::Result<ExitCode> {
    let violations = check::check(&history::read(&flags.history)?);
    for violation in &violations {
        super::print(&format!("VIOLATION {violation}"))?;
    }
    super::print(&format!("{} promises broken", violations.len()))?;
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VIOLATION) })
}
