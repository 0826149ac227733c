//! `kontiki chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::{Global, Output};
use crate::chaos::{self, ChaosConfig, Outcome, check, history, report};
use crate::shutdown;
use crate::up::Cluster;
use crate::up::plan::{Runtime, UpConfig};

/// The exit code when a promise of the store was broken.
pub const EXIT_VIOLATION: u8 = 3;

/// Flags of `kontiki chaos`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Kill the leader again and again while clients write, read and watch; check what they saw.
    LeaderKill(LeaderKill),
    /// Check a history that was kept.
    Check(Check),
}

/// Flags of `kontiki chaos leader-kill`.
#[derive(Debug, Args)]
struct LeaderKill {
    /// How many times.
    #[arg(long, default_value_t = 20)]
    count: u32,
    /// Seconds from one kill to the next, at least; the next waits until all servers are back.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    interval: f64,
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
    /// Keep the history here, whatever comes of it.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
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
    match flags.verb {
        Verb::LeaderKill(flags) => super::runtime(None)?.block_on(leader_kill(global, flags)),
        Verb::Check(flags) => check_again(&flags),
    }
}

impl LeaderKill {
    fn config(&self, data_dir: PathBuf) -> anyhow::Result<ChaosConfig> {
        let interval = Duration::try_from_secs_f64(self.interval)
            .ok()
            .with_context(|| format!("--interval {}: expected seconds", self.interval))?;
        if self.writers == 0 || self.keys == 0 {
            bail!("--writers and --keys: expected at least 1");
        }
        Ok(ChaosConfig {
            data_dir,
            count: self.count,
            interval,
            writers: self.writers,
            readers: self.readers,
            watchers: self.watchers,
            keys: self.keys,
            history: self.history.clone(),
        })
    }
}

async fn leader_kill(global: &Global, flags: LeaderKill) -> anyhow::Result<ExitCode> {
    let stop = shutdown::on_signal()?;
    let outcome = match flags.data_dir.clone() {
        Some(data_dir) => chaos::leader_kill(&flags.config(data_dir)?, &stop).await?,
        None => on_own_cluster(global, &flags, &stop).await?,
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
    flags: &LeaderKill,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    crate::up::report::to_stderr();
    let folder = tempfile::Builder::new().prefix("kontiki-chaos-").tempdir()?;
    let config = flags.config(folder.path().into())?;
    let mut cluster = Cluster::prepare(own_cluster(global, &config, flags.base_port)).await?;
    let outcome = async {
        cluster.boot().await?;
        chaos::leader_kill(&config, stop).await
    }
    .await;
    let stopped = cluster.stop().await;
    let outcome = outcome?;
    stopped?;
    Ok(outcome)
}

fn own_cluster(global: &Global, config: &ChaosConfig, base_port: u16) -> UpConfig {
    UpConfig {
        servers: 3,
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
