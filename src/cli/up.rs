//! `kontiki up`.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::Global;
use super::cloud::CloudFlags;
use crate::cloud::Choice;
use crate::cluster_cidr::ClusterCidr;
use crate::up::boot::check_count;
use crate::up::network::NodeNetwork;
use crate::up::plan::{AGENTS_MAX, Hosts, Runtime, SERVERS_MAX, UpConfig, base_port_max};

/// Flags of `kontiki up`.
#[derive(Debug, Args)]
pub struct Flags {
    /// How many servers form the control plane: 1 to 9, best an odd number.
    #[arg(long, env = "KONTIKI_SERVERS", default_value_t = 3)]
    servers: u16,
    /// How many node agents run pods: 0 to 9. One is this machine; of several each has a network
    /// namespace of its own.
    #[arg(long, env = "KONTIKI_AGENTS", default_value_t = 1)]
    agents: u16,
    /// Where everything lives. Started again on the same directory, it is the same cluster.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The first of forty ports; kubectl's address has this one.
    #[arg(long, env = "KONTIKI_BASE_PORT", default_value_t = 6443, value_name = "PORT")]
    base_port: u16,
    /// What runs pods; `none` starts the control plane alone.
    #[arg(long, env = "KONTIKI_RUNTIME", value_enum, default_value = "containerd")]
    runtime: Runtime,
    /// Folder with image archives (OCI or docker tar) for the agents.
    #[arg(long, env = "KONTIKI_IMAGES", value_name = "DIR")]
    images: Option<PathBuf>,
    /// A registry to which the agents send every pull.
    #[arg(long, env = "KONTIKI_REGISTRY_MIRROR", value_name = "URL")]
    registry_mirror: Option<String>,
    /// Install what pods need (containerd, runc, CNI plugins, nftables) by the package manager.
    #[arg(long, env = "KONTIKI_INSTALL_PACKAGES")]
    install_packages: bool,
    /// Leave processes dead that die.
    #[arg(long, env = "KONTIKI_NO_RESTART")]
    no_restart: bool,
    /// Worker threads of each server; by default as the number of cores asks for.
    #[arg(long, env = "KONTIKI_RUNTIME_THREADS", value_name = "COUNT")]
    runtime_threads: Option<usize>,
    /// The addresses of all pods, an IPv4 range; by default 10.244.0.0/16, or the next such range that
    /// this machine does not lead elsewhere. A data directory keeps the range of its first start.
    #[arg(long, env = "KONTIKI_CLUSTER_CIDR", value_name = "RANGE")]
    cluster_cidr: Option<ClusterCidr>,
    /// A further flag of every server, such as --server-arg=--audit-log-path=/var/log/audit.log.
    #[arg(long = "server-arg", value_name = "FLAG", allow_hyphen_values = true)]
    server_args: Vec<String>,
    /// A further flag of every agent.
    #[arg(long = "agent-arg", value_name = "FLAG", allow_hyphen_values = true)]
    agent_args: Vec<String>,
    #[command(flatten)]
    cloud: CloudFlags,
    /// The address of this machine at which pods reach servers and kubelets are reached.
    #[arg(long, env = "KONTIKI_NODE_IP", value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
}

impl Flags {
    /// Checks what the flags say, and fills in what they do not.
    pub fn validate(self, log: &str) -> anyhow::Result<UpConfig> {
        check_count("servers", self.servers, 1..=SERVERS_MAX)?;
        check_count("agents", self.agents, 0..=AGENTS_MAX)?;
        check_count("base-port", self.base_port, 1..=base_port_max())?;
        if let Some(images) = self.images.as_ref().filter(|images| !images.is_dir()) {
            bail!("--images {}: expected a folder with image archives", images.display());
        }
        let agents = if self.runtime == Runtime::None { 0 } else { self.agents };
        let data_dir = absolute(&self.data_dir)?;
        let network = (agents > 1).then(|| NodeNetwork::of(&data_dir));
        let node_ip = self.node_ip.unwrap_or_else(|| match &network {
            Some(network) => network.machine(),
            None => default_node_ip(agents),
        });
        let cloud = match self.cloud.choice()? {
            // Where pods run, Services get addresses of a range that no real network has.
            Choice::None if agents > 0 && !self.cloud.are_given() => {
                Choice::BareMetal(NodeNetwork::of(&data_dir).balancers())
            }
            choice => choice,
        };
        Ok(UpConfig {
            cloud,
            cluster_name: self.cloud.cluster_name,
            servers: self.servers,
            agents,
            data_dir,
            base_port: self.base_port,
            runtime: self.runtime,
            images: self.images.as_deref().map(absolute).transpose()?,
            registry_mirror: self.registry_mirror,
            install_packages: self.install_packages,
            restart: !self.no_restart,
            runtime_threads: self.runtime_threads,
            hosts: Hosts::Shared,
            node_ip,
            network,
            cluster_cidr: self.cluster_cidr,
            server_args: self.server_args,
            agent_args: self.agent_args,
            log: log.into(),
        })
    }
}

/// Boots a cluster and keeps it running.
pub fn run(global: &Global, flags: Flags) -> anyhow::Result<ExitCode> {
    let config = flags.validate(&global.log)?;
    super::runtime(None)?.block_on(crate::up::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}

fn default_node_ip(agents: u16) -> IpAddr {
    if agents == 0 { Ipv4Addr::LOCALHOST.into() } else { primary_address() }
}

/// The address from which this machine would reach another network; loopback where there is none.
/// Connecting a UDP socket sends nothing: it only asks the routing table.
pub(super) fn primary_address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    ask().unwrap_or(Ipv4Addr::LOCALHOST.into())
}
