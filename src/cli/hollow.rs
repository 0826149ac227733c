//! `kontiki hollow`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::{seconds, some_seconds};
use crate::hollow::api::Api;
use crate::hollow::node::Shape;
use crate::hollow::pods::Life;
use crate::hollow::{self, Config};
use crate::{client, shutdown};

/// Flags of `kontiki hollow`.
#[derive(Debug, Args)]
pub struct Flags {
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// How many processors each offers.
    #[arg(long, default_value = "8", value_name = "QUANTITY")]
    node_cpu: String,
    /// How much memory each offers.
    #[arg(long, default_value = "32Gi", value_name = "QUANTITY")]
    node_memory: String,
    /// How many pods each takes.
    #[arg(long, default_value_t = 110, value_name = "COUNT")]
    node_pods: u32,
    /// How many seconds a pod takes until it runs.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    start_delay: f64,
    /// How many seconds a pod takes to end.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    stop_delay: f64,
    /// How many seconds a pod runs whose restartPolicy is not Always; then it has succeeded.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    run_time: f64,
    /// Which part of the pods fails instead of starting, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "PART")]
    fail_rate: f64,
    /// By which part of itself each delay may be longer or shorter, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "PART")]
    jitter: f64,
    /// Between two renewals of a node's lease.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    lease_period: f64,
    /// Between two reports of a node's status.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS")]
    status_period: f64,
    /// Leave the nodes registered at the end, as machines that went dark.
    #[arg(long)]
    keep: bool,
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Join the cluster of this kubeconfig instead, through its one address.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Runs the nodes until a signal.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = Arc::new(config(flags)?);
    super::runtime(None)?.block_on(async {
        let stop = shutdown::on_signal()?;
        let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
        let servers = client::servers(flags.kubeconfig.as_deref(), &kubeconfig, &flags.data_dir)?;
        let api = Arc::new(Api::new(&kubeconfig, servers)?);
        let ran = hollow::run(Arc::clone(&api), Arc::clone(&config), stop).await;
        if !flags.keep {
            hollow::remove(&api, config.nodes).await.context("remove the hollow nodes")?;
        }
        ran
    })?;
    Ok(ExitCode::SUCCESS)
}

fn config(flags: &Flags) -> anyhow::Result<Config> {
    if flags.nodes == 0 {
        bail!("--nodes 0: expected at least 1");
    }
    for (name, part) in [("--fail-rate", flags.fail_rate), ("--jitter", flags.jitter)] {
        if !(0.0..=1.0).contains(&part) {
            bail!("{name} {part}: expected a part from 0 to 1");
        }
    }
    Ok(Config {
        nodes: flags.nodes,
        shape: Shape {
            cpu: flags.node_cpu.clone(),
            memory: flags.node_memory.clone(),
            pods: flags.node_pods,
        },
        life: Life {
            start_delay: seconds("--start-delay", flags.start_delay)?,
            stop_delay: seconds("--stop-delay", flags.stop_delay)?,
            run_time: seconds("--run-time", flags.run_time)?,
            fail_rate: flags.fail_rate,
            jitter: flags.jitter,
        },
        lease_period: some_seconds("--lease-period", flags.lease_period)?,
        status_period: some_seconds("--status-period", flags.status_period)?,
    })
}
