//! The two systems under measurement: how each is started, told apart, hurt and ended.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::CompareConfig;
use crate::bench::etcd::Etcd;
use crate::cloud::Choice;
use crate::process::ProcessId;
use crate::up::Cluster;
use crate::up::plan::{Hosts, Runtime, UpConfig};

/// Members of either system.
pub const MEMBERS: u16 = 3;
/// Ports of etcd begin so far behind Kontiki's.
const ETCD_PORTS: u16 = 40;
/// How long a cluster may take to acknowledge its first write.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a member may take to end, or to come back.
const MEMBER_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a member.
const POLL: Duration = Duration::from_millis(50);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// The etcd of `--etcd`.
    Etcd,
    /// This program.
    Kontiki,
}

impl System {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kontiki => "kontiki",
        }
    }
}

/// A cluster of one of the two. Its processes are ended by [`Members::stop`]; those of etcd also
/// when this is dropped.
pub struct Members {
    running: Running,
    folder: PathBuf,
    /// Where each member speaks etcd.
    pub endpoints: Vec<String>,
}

enum Running {
    Etcd(Vec<Child>),
    Kontiki(Box<Cluster>),
}

impl Members {
    /// Starts a cluster on what is in `folder`, and says after how many seconds it acknowledged
    /// its first write.
    pub async fn boot(
        system: System,
        config: &CompareConfig,
        folder: &Path,
    ) -> anyhow::Result<(Self, f64)> {
        let started = Instant::now();
        let (running, endpoints) = match system {
            System::Etcd => start_etcds(config, folder)?,
            System::Kontiki => start_kontiki(config, folder).await?,
        };
        let members = Self { running, folder: folder.into(), endpoints };
        let client = members.client(1)?;
        match client.first_write(started + BOOT_DEADLINE).await {
            Ok(()) => Ok((members, started.elapsed().as_secs_f64())),
            Err(error) => {
                members.stop().await?;
                Err(error)
            }
        }
    }

    /// A client of all members.
    pub fn client(&self, value_bytes: usize) -> anyhow::Result<Etcd> {
        Etcd::new(&self.endpoints, value_bytes)
    }

    /// The processes, in the order of their endpoints; 0 for one that has ended.
    pub fn pids(&self) -> Vec<u32> {
        match &self.running {
            Running::Etcd(members) => {
                members.iter().map(|member| member.id().unwrap_or(0)).collect()
            }
            Running::Kontiki(cluster) => {
                cluster.file().servers.iter().map(|server| server.process.pid).collect()
            }
        }
    }

    /// The process of the member that leads.
    pub async fn leader(&self) -> anyhow::Result<(usize, ProcessId)> {
        let until = Instant::now() + MEMBER_DEADLINE;
        loop {
            let leader = self.client(1)?.leader().await;
            let pid = leader.and_then(|leader| self.pids().get(leader).copied());
            if let Some((leader, process)) = leader.zip(pid.and_then(ProcessId::of)) {
                return Ok((leader, process));
            }
            anyhow::ensure!(Instant::now() < until, "no member leads within {MEMBER_DEADLINE:?}");
            sleep(POLL).await;
        }
    }

    /// Brings a member back that was ended, and waits until all answer. Kontiki's are started again
    /// by the supervisor of `up`.
    pub async fn revive(&mut self, config: &CompareConfig, member: usize) -> anyhow::Result<()> {
        if let Running::Etcd(members) = &mut self.running {
            members[member].wait().await.context("wait for the etcd that was ended")?;
            let number = u16::try_from(member).context("number a member")?;
            members[member] = start_etcd(config, &self.folder, number)?;
        }
        self.all_answer().await
    }

    /// Waits until every member answers writes.
    pub async fn all_answer(&self) -> anyhow::Result<()> {
        for endpoint in &self.endpoints {
            let one = Etcd::new(std::slice::from_ref(endpoint), 1)?;
            let answered = one.first_write(Instant::now() + MEMBER_DEADLINE).await;
            answered.with_context(|| format!("wait for the member at {endpoint}"))?;
        }
        Ok(())
    }

    /// Ends all members in order, as a service manager would.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.running {
            Running::Kontiki(cluster) => cluster.stop().await,
            Running::Etcd(mut members) => {
                for member in &members {
                    if let Some(process) = member.id().and_then(ProcessId::of) {
                        process.signal(rustix::process::Signal::TERM).context("end etcd")?;
                    }
                }
                for member in &mut members {
                    let ended = tokio::time::timeout(MEMBER_DEADLINE, member.wait()).await;
                    if ended.is_err() {
                        member.kill().await.context("end etcd by force")?;
                    }
                }
                Ok(())
            }
        }
    }
}

async fn start_kontiki(
    config: &CompareConfig,
    folder: &Path,
) -> anyhow::Result<(Running, Vec<String>)> {
    let mut cluster = Cluster::prepare(up_config(config, folder)).await?;
    if let Err(error) = cluster.boot().await {
        cluster.stop().await?;
        return Err(error);
    }
    let endpoints = cluster.file().servers.iter().map(|one| one.etcd.to_string()).collect();
    Ok((Running::Kontiki(Box::new(cluster)), endpoints))
}

fn up_config(config: &CompareConfig, data_dir: &Path) -> UpConfig {
    UpConfig {
        cloud: Choice::None,
        cluster_name: "kubernetes".into(),
        servers: MEMBERS,
        agents: 0,
        data_dir: data_dir.into(),
        base_port: config.base_port,
        runtime: Runtime::None,
        images: None,
        registry_mirror: None,
        install_packages: false,
        restart: true,
        runtime_threads: None,
        node_ip: [127, 0, 0, 1].into(),
        hosts: Hosts::Shared,
        network: None,
        cluster_cidr: None,
        server_args: Vec::new(),
        agent_args: Vec::new(),
        log: config.log.clone(),
    }
}

fn start_etcds(config: &CompareConfig, folder: &Path) -> anyhow::Result<(Running, Vec<String>)> {
    let members = (0..MEMBERS).map(|number| start_etcd(config, folder, number));
    let members = members.collect::<anyhow::Result<Vec<Child>>>()?;
    let endpoint = |number| format!("127.0.0.1:{}", client_port(config, number));
    Ok((Running::Etcd(members), (0..MEMBERS).map(endpoint).collect()))
}

fn client_port(config: &CompareConfig, number: u16) -> u16 {
    config.base_port + ETCD_PORTS + number
}

fn peer_url(config: &CompareConfig, number: u16) -> String {
    format!("http://127.0.0.1:{}", client_port(config, number) + MEMBERS)
}

/// Starts a member with etcd's defaults. What it kept, if anything, wins over the flags that
/// describe a new cluster.
fn start_etcd(config: &CompareConfig, folder: &Path, number: u16) -> anyhow::Result<Child> {
    let client = format!("http://127.0.0.1:{}", client_port(config, number));
    let peer = peer_url(config, number);
    let cluster: Vec<String> =
        (0..MEMBERS).map(|one| format!("member-{one}={}", peer_url(config, one))).collect();
    Command::new(&config.etcd)
        .args(["--name", &format!("member-{number}"), "--data-dir"])
        .arg(folder.join(format!("member-{number}")))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
        .args(["--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!(
                "start {}: install Debian's etcd-server, or name another etcd with --etcd",
                config.etcd.display()
            )
        })
}
