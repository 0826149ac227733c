//! `kontiki bench` and `kontiki bench compare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Global, Output, some_seconds};
use crate::bench::api::{Api, ApiRequest, Workload};
use crate::bench::compare::trials::Sizes;
use crate::bench::compare::{self, CompareConfig};
use crate::bench::etcd::{self, Etcd, EtcdRequest};
use crate::bench::report::{Measured, table};
use crate::bench::schedule::{self, Mix};
use crate::bench::{load, watch};
use crate::cluster_file::ClusterFile;
use crate::{client, hollow};

/// The largest value: objects are at most 1.5 MiB.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Flags of `kontiki bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Flags {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure a real etcd of three members and a Kontiki of three servers, in turn, with one client.
    Compare(Compare),
    /// Measure how fast pods get their nodes, with hollow nodes.
    Schedule(Schedule),
}

/// Flags of `kontiki bench schedule`.
#[derive(Debug, Args)]
struct Schedule {
    /// How many hollow nodes (several numbers may be given, run one after the other).
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    nodes: Vec<usize>,
    /// How many pods.
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Which pods (several may be given); by default plain ones.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mix::Plain])]
    mix: Vec<Mix>,
    /// How long one run may take, in seconds.
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    deadline: f64,
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Load the cluster of this kubeconfig instead, through its one address.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How to print the figures.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Flags of `kontiki bench compare`.
#[derive(Debug, Args)]
struct Compare {
    /// The etcd to compare with.
    #[arg(long, default_value = "etcd", value_name = "PROGRAM")]
    etcd: PathBuf,
    /// Where the fresh data directories are made: on the disk that is to be measured.
    #[arg(long, default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// How many clients (several numbers may be given, run one after the other).
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    clients: Vec<u64>,
    /// For how many seconds each.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    duration: f64,
    /// How often all is done; medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How many bytes each value has.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    value_size: usize,
    /// Watchers of one prefix; 0 leaves them out, as it does for all that follows.
    #[arg(long, default_value_t = 1000)]
    watchers: u64,
    /// Puts a second that they watch.
    #[arg(long, default_value_t = 500)]
    watched_puts: u64,
    /// Leases that are kept alive.
    #[arg(long, default_value_t = 10_000)]
    leases: u64,
    /// How often the leader is killed, ended and stopped.
    #[arg(long, default_value_t = 5)]
    failovers: u32,
    /// Puts after which the size on disk is taken.
    #[arg(long, default_value_t = 100_000)]
    disk_puts: u64,
    /// Keys with which all members are started again.
    #[arg(long, default_value_t = 100_000)]
    reopen_keys: u64,
    /// Where to draw throughput against the number of clients (SVG).
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The first of fifty ports.
    #[arg(long, default_value_t = 17443, value_name = "PORT")]
    base_port: u16,
    /// How to print the figures.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Flags of `kontiki bench` itself.
#[derive(Debug, Args)]
struct Load {
    /// Through which interface.
    #[arg(long, value_enum, default_value = "api")]
    target: Target,
    /// What to do (several may be given); by default all that the target has.
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// How many clients (several numbers may be given, run one after the other).
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    clients: Vec<u64>,
    /// For how many seconds each.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    duration: f64,
    /// How many bytes each value has.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    value_size: usize,
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Load the cluster of this kubeconfig instead, through its one address.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How to print the figures.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The Kubernetes API.
    Api,
    /// The etcd API: on this machine only.
    Etcd,
}

/// Runs the loads and prints the figures.
pub fn run(global: &Global, flags: Flags) -> anyhow::Result<ExitCode> {
    match flags.verb {
        Some(Verb::Compare(flags)) => run_compare(global, &flags),
        Some(Verb::Schedule(flags)) => run_schedule(&flags),
        None => run_load(&flags.load),
    }
}

fn run_load(flags: &Load) -> anyhow::Result<ExitCode> {
    let duration = some_seconds("--duration", flags.duration)?;
    check_value_size(flags.value_size)?;
    let measured = super::runtime(None)?.block_on(async {
        match flags.target {
            Target::Api => api(flags, duration).await,
            Target::Etcd => etcd(flags, duration).await,
        }
    })?;
    match flags.output {
        Output::Table => super::print(&table(&measured))?,
        Output::Json => {
            super::print(&serde_json::to_string_pretty(&json!({ "measured": measured }))?)?;
        }
    }
    let failed = measured.iter().any(|one| one.done == 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_compare(global: &Global, flags: &Compare) -> anyhow::Result<ExitCode> {
    check_value_size(flags.value_size)?;
    if flags.rounds == 0 {
        bail!("--rounds 0: expected at least 1");
    }
    crate::up::report::to_stderr();
    let config = CompareConfig {
        folder: std::path::absolute(&flags.folder)?,
        etcd: flags.etcd.clone(),
        clients: flags.clients.clone(),
        duration: some_seconds("--duration", flags.duration)?,
        rounds: flags.rounds,
        value_bytes: flags.value_size,
        base_port: flags.base_port,
        log: global.log.clone(),
        sizes: Sizes {
            watchers: flags.watchers,
            watched_puts: flags.watched_puts,
            leases: flags.leases,
            failovers: flags.failovers,
            disk_puts: flags.disk_puts,
            reopen_keys: flags.reopen_keys,
        },
    };
    let comparison = super::runtime(None)?.block_on(compare::run(&config))?;
    if let Some(path) = &flags.picture {
        crate::picture::write(path, &compare::chart(&comparison))?;
    }
    match flags.output {
        Output::Table => super::print(&compare::table(&comparison))?,
        Output::Json => super::print(&serde_json::to_string_pretty(&comparison)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_schedule(flags: &Schedule) -> anyhow::Result<ExitCode> {
    if flags.pods == 0 || flags.nodes.contains(&0) {
        bail!("--nodes and --pods: expected at least 1");
    }
    let deadline = some_seconds("--deadline", flags.deadline)?;
    let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
    let servers = client::servers(flags.kubeconfig.as_deref(), &kubeconfig, &flags.data_dir)?;
    let measured = super::runtime(None)?.block_on(async {
        let mut measured = Vec::new();
        for nodes in &flags.nodes {
            for mix in &flags.mix {
                let run = schedule::Run { nodes: *nodes, pods: flags.pods, mix: *mix, deadline };
                let api = Arc::new(hollow::api::Api::new(&kubeconfig, servers.clone())?);
                measured.push(schedule::run(&api, run).await?);
            }
        }
        anyhow::Ok(measured)
    })?;
    match flags.output {
        Output::Table => super::print(&schedule::table(&measured))?,
        Output::Json => {
            super::print(&serde_json::to_string_pretty(&json!({ "measured": measured }))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_value_size(bytes: usize) -> anyhow::Result<()> {
    if bytes > VALUE_BYTES_MAX {
        bail!("--value-size {bytes}: expected at most {VALUE_BYTES_MAX}");
    }
    Ok(())
}

fn workloads(flags: &Load) -> &[Workload] {
    match flags.workload.as_slice() {
        [] => Workload::value_variants(),
        chosen => chosen,
    }
}

async fn etcd(flags: &Load, duration: Duration) -> anyhow::Result<Vec<Measured>> {
    let servers = ClusterFile::read(&flags.data_dir)?.servers;
    let endpoints: Vec<String> = servers.iter().map(|server| server.etcd.to_string()).collect();
    let etcd = Etcd::new(&endpoints, flags.value_size)?;
    let mut measured = Vec::new();
    for workload in workloads(flags) {
        let Some(name) = etcd::name(*workload) else { continue };
        for clients in &flags.clients {
            let request = |client| EtcdRequest::new(&etcd, *workload, client);
            measured.push(load::run(name, *clients, duration, request).await);
        }
    }
    Ok(measured)
}

async fn api(flags: &Load, duration: Duration) -> anyhow::Result<Vec<Measured>> {
    let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
    let servers = client::servers(flags.kubeconfig.as_deref(), &kubeconfig, &flags.data_dir)?;
    let api = Api::new(&kubeconfig, servers, flags.value_size)?;
    api.prepare().await.context("prepare the objects of the run")?;
    let mut measured = Vec::new();
    for workload in workloads(flags) {
        for clients in &flags.clients {
            let run = rand::random();
            measured.push(if *workload == Workload::Watch {
                watch::run(&api, *clients, duration).await?
            } else {
                let request = |_| ApiRequest::new(&api, *workload, run);
                load::run(workload.name(), *clients, duration, request).await
            });
        }
    }
    api.clean_up().await?;
    Ok(measured)
}
