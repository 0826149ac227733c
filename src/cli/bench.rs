//! `kontiki bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Output;
use crate::bench::api::{Api, ApiRequest, Workload};
use crate::bench::report::{Measured, table};
use crate::bench::{load, watch};
use crate::client;
use crate::cluster_file::ClusterFile;

/// The largest value: objects are at most 1.5 MiB.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Flags of `kontiki bench`.
#[derive(Debug, Args)]
pub struct Flags {
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
}

/// Runs the loads and prints the figures.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let duration = Duration::try_from_secs_f64(flags.duration).ok().filter(|d| !d.is_zero());
    let duration = duration
        .with_context(|| format!("--duration {}: expected seconds above 0", flags.duration))?;
    if flags.value_size > VALUE_BYTES_MAX {
        bail!("--value-size {}: expected at most {VALUE_BYTES_MAX}", flags.value_size);
    }
    let measured = match flags.target {
        Target::Api => super::runtime(None)?.block_on(api(flags, duration))?,
    };
    match flags.output {
        Output::Table => println!("{}", table(&measured)),
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&json!({ "measured": measured }))?);
        }
    }
    let failed = measured.iter().any(|one| one.done == 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn api(flags: &Flags, duration: Duration) -> anyhow::Result<Vec<Measured>> {
    let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
    let servers = if flags.kubeconfig.is_some() {
        vec![kubeconfig.server.clone()]
    } else {
        let file = ClusterFile::read(&flags.data_dir)?;
        file.servers.into_iter().map(|server| server.api).collect()
    };
    let api = Api::new(&kubeconfig, servers, flags.value_size)?;
    api.prepare().await.context("prepare the objects of the run")?;
    let workloads = match flags.workload.as_slice() {
        [] => Workload::value_variants(),
        chosen => chosen,
    };
    let mut measured = Vec::new();
    for workload in workloads {
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
