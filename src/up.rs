//! `kontiki up`: a whole cluster of real processes on this machine, under one foreground process.
//!
//! ```text
//! DATA-DIR/
//!   up.lock        held by the running `up`
//!   cluster.json   what runs
//!   kubeconfig     leads to the balancer
//!   cluster-cidr   the addresses of the pods
//!   server-token node-token
//!   logs/          one file a process
//!   server-N/ agent-N/
//! ```
//!
//! Start order: servers, balancer, agents. Stop order: agents (and what they made on the machine),
//! servers, balancer. Killing `up` itself kills nothing else: `kontiki down` finds the rest.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::balancer::Balancer;
use crate::cluster_file::ClusterFile;
use crate::dir_lock::DirLock;
use crate::{process::ProcessId, shutdown};

pub mod boot;
pub mod children;
pub mod credentials;
pub mod network;
pub mod packages;
pub mod plan;
pub mod pod_range;
pub mod report;
pub mod roster;
pub mod stop;

use children::Supervised;
use credentials::Credentials;
use network::NodeNetwork;
use plan::{Plan, UpConfig};
use roster::Roster;

/// How long the balancer may take to let go of its connections.
const BALANCER_PATIENCE: Duration = Duration::from_secs(2);

/// A cluster under supervision.
pub struct Cluster {
    /// What was planned.
    pub plan: Plan,
    config: UpConfig,
    credentials: Credentials,
    roster: Arc<Roster>,
    servers: Vec<Supervised>,
    agents: Vec<Supervised>,
    balancer: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    _lock: DirLock,
}

/// Boots a cluster, keeps it running until a signal or `kontiki down`, and stops it.
pub async fn run(config: UpConfig) -> anyhow::Result<()> {
    report::begin();
    let stop = shutdown::on_signal()?;
    let mut cluster = Cluster::prepare(config).await?;
    // Dropping a half-done boot is safe: what was started is in `cluster`, and stopped below.
    let booted = stop.run_until_cancelled(cluster.boot()).await;
    let outcome = match booted {
        Some(Ok(summary)) => {
            report::line(&format!("ready: {summary}"));
            stop.cancelled().await;
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    report::event("stopping");
    let stopped = cluster.stop().await;
    report::event("stopped");
    outcome.and(stopped)
}

impl Cluster {
    /// Checks what can be checked before anything starts, and writes tokens and kubeconfig.
    pub async fn prepare(config: UpConfig) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("create {}", config.data_dir.display()))?;
        let lock = DirLock::acquire(&config.data_dir, "up")?;
        refuse_leftovers(&config.data_dir)?;
        let plan = Plan::new(&config);
        plan::check_further(&config, &plan)?;
        check_ports(&plan, config.base_port)?;
        let credentials = Credentials::prepare(&config.data_dir, &plan)?;
        let roster = Arc::new(Roster::new(&config.data_dir, &plan, &credentials.kubeconfig_path)?);
        let (servers, agents) = (Vec::new(), Vec::new());
        let mut cluster = Self {
            plan,
            config,
            credentials,
            roster,
            servers,
            agents,
            balancer: None,
            _lock: lock,
        };
        cluster.start_balancer().await?;
        Ok(cluster)
    }

    async fn start_balancer(&mut self) -> anyhow::Result<()> {
        let backends: Vec<SocketAddr> = self.plan.servers.iter().map(|server| server.api).collect();
        let balancer = Balancer::bind(self.plan.balancer, &backends)
            .await
            .with_context(|| format!("listen on {}", self.plan.balancer))?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(balancer.run(self.credentials.client.clone(), stop.clone()));
        self.balancer = Some((stop, task));
        Ok(())
    }

    /// What runs now.
    pub fn file(&self) -> ClusterFile {
        self.roster.file()
    }

    /// Stops everything, agents first, and says what could not be cleaned up.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        stop_all(self.agents.drain(..)).await;
        let folders: Vec<PathBuf> =
            self.plan.agents.iter().map(|agent| agent.data_dir.clone()).collect();
        let cleaned = stop::clean_agents(&folders).await;
        let cleaned = cleaned.and(NodeNetwork::of(&self.config.data_dir).remove().await);
        stop_all(self.servers.drain(..)).await;
        if let Some((stop, task)) = self.balancer.take() {
            stop.cancel();
            shutdown::join("balancer", task, BALANCER_PATIENCE).await;
        }
        ClusterFile::remove(&self.config.data_dir)?;
        cleaned
    }
}

async fn stop_all(children: impl Iterator<Item = Supervised>) {
    futures_util::future::join_all(children.map(|child| async {
        let name = child.name.clone();
        child.stop().await;
        report::event(&format!("{name} stopped"));
    }))
    .await;
}

/// Servers of an `up` that was killed must not meet a second set over the same files.
fn refuse_leftovers(data_dir: &Path) -> anyhow::Result<()> {
    let Some(file) = ClusterFile::find(data_dir)? else { return Ok(()) };
    let alive = file.alive();
    if alive.is_empty() {
        return Ok(());
    }
    let who: Vec<String> = alive
        .iter()
        .map(|(name, ProcessId { pid, .. })| format!("{name} (process {pid})"))
        .collect();
    bail!(
        "{} of an earlier `kontiki up` still run in {}: stop them with `kontiki down --data-dir {}`",
        who.join(", "),
        data_dir.display(),
        data_dir.display()
    )
}

fn check_ports(plan: &Plan, base_port: u16) -> anyhow::Result<()> {
    for address in plan.addresses() {
        std::net::TcpListener::bind(address).map(drop).with_context(|| {
            format!(
                "port {} is needed and taken; choose others with --base-port (now {base_port}, \
                 ports {base_port} to {} are used)",
                address.port(),
                base_port + 39
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_flag_that_moves_it() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = UpConfig { base_port: port - 1, ..plan::tests::config(dir.path()) };
        let error = Cluster::prepare(config).await.err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("is needed and taken; choose others with --base-port"), "{text}");
        assert!(!dir.path().join("server-1").exists(), "nothing may be left behind");
    }

    #[tokio::test]
    async fn what_an_earlier_up_left_running_is_named_and_not_run_over() {
        let dir = tempfile::tempdir().unwrap();
        let me = ProcessId::current().unwrap();
        crate::cluster_file::tests::example(me).write(dir.path()).unwrap();
        let error = Cluster::prepare(plan::tests::config(dir.path())).await.err().unwrap();
        let text = error.to_string();
        assert!(text.contains(&format!("server-1 (process {})", me.pid)), "{text}");
        assert!(text.contains("kontiki down --data-dir"), "{text}");
    }

    #[tokio::test]
    async fn a_second_up_in_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DirLock::acquire(dir.path(), "up").unwrap();
        let error = Cluster::prepare(plan::tests::config(dir.path())).await.err().unwrap();
        assert!(error.to_string().contains("is in use by another `kontiki up`"), "{error}");
    }
}
