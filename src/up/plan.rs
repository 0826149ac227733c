//! What `kontiki up` starts: names, ports, directories and command lines. Pure: it looks at nothing.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::network::NodeNetwork;
use crate::cloud::Choice;
use crate::cluster_cidr::ClusterCidr;

/// Servers at most: so many ports lie between two kinds.
pub const SERVERS_MAX: u16 = 9;
/// Agents at most on one machine.
pub const AGENTS_MAX: u16 = 9;
/// The last port used, counted from the base port.
const PORTS: u16 = 40;
const RAFT_PORTS: u16 = 10;
const ETCD_PORTS: u16 = 20;
const AGENT_PORTS: u16 = 30;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Which container runtime the agents of `up` drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// A containerd of their own.
    Containerd,
    /// None: the control plane alone.
    None,
}

/// The addresses of servers on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hosts {
    /// One for all, and a port for each.
    #[default]
    Shared,
    /// A loopback address for each, so that a firewall can tell them apart.
    Own,
}

impl Hosts {
    fn of(self, number: u16) -> IpAddr {
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        match self {
            Self::Shared => LOOPBACK,
            Self::Own => IpAddr::V4(Ipv4Addr::new(127, 77, 0, last)),
        }
    }
}

/// The flags of `kontiki up`, validated.
#[derive(Debug, Clone)]
pub struct UpConfig {
    /// How many servers.
    pub servers: u16,
    /// How many agents.
    pub agents: u16,
    /// Where everything lives; absolute.
    pub data_dir: PathBuf,
    /// The first port.
    pub base_port: u16,
    /// What runs pods.
    pub runtime: Runtime,
    /// Folder of image archives for the agents.
    pub images: Option<PathBuf>,
    /// Where the agents send every pull.
    pub registry_mirror: Option<String>,
    /// Install what is missing.
    pub install_packages: bool,
    /// Start again what dies.
    pub restart: bool,
    /// Worker threads of each server's runtime.
    pub runtime_threads: Option<usize>,
    /// The address of this machine that pods reach servers at.
    pub node_ip: IpAddr,
    /// The nodes' own network; without it the node is this machine.
    pub network: Option<NodeNetwork>,
    /// The addresses of the servers.
    pub hosts: Hosts,
    /// The cloud that the cluster stands on.
    pub cloud: Choice,
    /// What a cloud tells it from others by.
    pub cluster_name: String,
    /// The addresses of all pods; none where that is not decided yet, or no pods run.
    pub cluster_cidr: Option<ClusterCidr>,
    /// Further flags of every server.
    pub server_args: Vec<String>,
    /// Further flags of every agent.
    pub agent_args: Vec<String>,
    /// What the children log.
    pub log: String,
}

/// One server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlan {
    /// `server-1`.
    pub name: String,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// Where it serves the Kubernetes API, as seen from this machine.
    pub api: SocketAddr,
    /// What it listens on for that.
    pub api_listen: SocketAddr,
    /// Where its peers reach it.
    pub raft: SocketAddr,
    /// Where it speaks etcd.
    pub etcd: SocketAddr,
}

/// One agent to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPlan {
    /// The name of its node.
    pub name: String,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// Where servers reach it, for logs and the like.
    pub api: SocketAddr,
    /// The network namespace it is in; without one it is this machine's.
    pub namespace: Option<PathBuf>,
}

/// How a server comes by its cluster. What it finds in its own directory wins over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It begins a new one.
    Init,
    /// It joins one through any of these servers.
    Join(Vec<SocketAddr>),
}

/// Everything to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The address in the kubeconfig.
    pub balancer: SocketAddr,
    /// The servers.
    pub servers: Vec<ServerPlan>,
    /// The agents.
    pub agents: Vec<AgentPlan>,
}

impl Plan {
    /// The plan for a configuration.
    pub fn new(config: &UpConfig) -> Self {
        let at = |offset: u16| SocketAddr::new(LOOPBACK, config.base_port + offset);
        let of_server = |number: u16, kind: u16| {
            SocketAddr::new(config.hosts.of(number), config.base_port + kind + number)
        };
        let log = |name: &str| config.data_dir.join("logs").join(format!("{name}.log"));
        let server = |number: u16| {
            let name = format!("server-{number}");
            let api = of_server(number, 0);
            ServerPlan {
                data_dir: config.data_dir.join(&name),
                log: log(&name),
                api,
                api_listen: match config.runtime {
                    Runtime::None => api,
                    // Pods reach the API at the machine's own address.
                    Runtime::Containerd => (Ipv4Addr::UNSPECIFIED, api.port()).into(),
                },
                raft: of_server(number, RAFT_PORTS),
                etcd: of_server(number, ETCD_PORTS),
                name,
            }
        };
        let agent = |number: u16| {
            let name = format!("agent-{number}");
            let network = config.network.as_ref();
            let address = network.map_or(config.node_ip, |network| network.node(number));
            AgentPlan {
                data_dir: config.data_dir.join(&name),
                log: log(&name),
                api: SocketAddr::new(address, config.base_port + AGENT_PORTS + number),
                namespace: network.map(|network| network.namespace(number)),
                name,
            }
        };
        Self {
            balancer: at(0),
            servers: (1..=config.servers).map(server).collect(),
            agents: (1..=config.agents).map(agent).collect(),
        }
    }

    /// Every address of this machine that must be free, with the flag that moves it.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let of_servers =
            self.servers.iter().flat_map(|server| [server.api_listen, server.raft, server.etcd]);
        let of_agents = self.agents.iter().filter(|agent| agent.namespace.is_none());
        let of_agents = of_agents.map(|agent| agent.api);
        std::iter::once(self.balancer).chain(of_servers).chain(of_agents).collect()
    }

    /// How server `index` comes by its cluster, when `known[i]` says whether server `i` has one in
    /// its directory. Only where none has is a new cluster begun, and then by the first: a server
    /// whose directory was lost must never begin a second one beside its peers.
    pub fn origin(&self, index: usize, known: &[bool]) -> Origin {
        if index == 0 && !known.contains(&true) {
            return Origin::Init;
        }
        let others = self.servers.iter().enumerate().filter(|(other, _)| *other != index);
        Origin::Join(others.map(|(_, server)| server.api).collect())
    }
}

/// The highest base port whose last port still is one.
pub const fn base_port_max() -> u16 {
    u16::MAX - PORTS
}

/// The command line of a server.
pub fn server_args(
    config: &UpConfig,
    server: &ServerPlan,
    origin: &Origin,
    token_file: &Path,
) -> Vec<OsString> {
    let advertise = match config.hosts {
        Hosts::Shared => config.node_ip,
        Hosts::Own => server.api.ip(),
    };
    let mut args = Args::new("server", config);
    args.flag("--name", &server.name);
    args.flag("--data-dir", &server.data_dir);
    args.flag("--api-listen", server.api_listen.to_string());
    args.flag("--raft-listen", server.raft.to_string());
    args.flag("--etcd-listen", server.etcd.to_string());
    args.flag("--advertise", advertise.to_string());
    args.flag("--peer-advertise", server.raft.ip().to_string());
    if let Some(threads) = config.runtime_threads {
        args.flag("--runtime-threads", threads.to_string());
    }
    if let Some(cidr) = config.cluster_cidr {
        args.flag("--cluster-cidr", cidr.to_string());
    }
    match &config.cloud {
        Choice::None => {}
        Choice::BareMetal(pool) => args.flag("--load-balancer-pool", pool.to_string()),
        Choice::OutOfProcess(address) => {
            args.flag("--cloud-provider", address.to_string());
            args.flag("--cluster-name", &config.cluster_name);
        }
    }
    match origin {
        Origin::Init => args.0.push("--init".into()),
        Origin::Join(servers) => {
            for server in servers {
                args.flag("--join", format!("https://{server}"));
            }
            args.flag("--token-file", token_file);
        }
    }
    args.0.extend(config.server_args.iter().map(Into::into));
    args.0
}

/// When an agent of `up` ends pods. The kubelet's shares of the disk are meant for machines of their
/// own: a laptop's may be nine tenths full and have room for years.
const EVICTION_HARD: &str = "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<1%,\
                             imagefs.available<1Gi,imagefs.inodesFree<1%";

/// The command line of an agent.
pub fn agent_args(
    config: &UpConfig,
    plan: &Plan,
    agent: &AgentPlan,
    token_file: &Path,
) -> Vec<OsString> {
    let mut args = Args::new("agent", config);
    args.flag("--node-name", &agent.name);
    args.flag("--data-dir", &agent.data_dir);
    args.flag("--token-file", token_file);
    args.flag("--node-ip", agent.api.ip().to_string());
    args.flag("--listen", agent.api.to_string());
    for server in &plan.servers {
        // From a network of its own the machine's loopback is not reached.
        let address = match &agent.namespace {
            Some(_) => SocketAddr::new(config.node_ip, server.api.port()),
            None => server.api,
        };
        args.flag("--server", format!("https://{address}"));
    }
    if let Some(namespace) = &agent.namespace {
        args.flag("--network-namespace", namespace);
    }
    if let Some(images) = &config.images {
        args.flag("--images", images);
    }
    if let Some(mirror) = &config.registry_mirror {
        args.flag("--registry-mirror", mirror);
    }
    if !config.agent_args.iter().any(|arg| arg.starts_with("--eviction-hard")) {
        args.flag("--eviction-hard", EVICTION_HARD);
    }
    args.0.extend(config.agent_args.iter().map(Into::into));
    args.0
}

/// Refuses further flags that servers or agents would not take.
pub fn check_further(config: &UpConfig, plan: &Plan) -> anyhow::Result<()> {
    let understood = |args: Vec<OsString>, flag: &str| {
        let args = std::iter::once("kontiki".into()).chain(args);
        crate::config::parse(args).map(drop).with_context(|| format!("a flag of {flag}"))
    };
    let token = Path::new("token");
    for server in plan.servers.iter().take(usize::from(!config.server_args.is_empty())) {
        understood(server_args(config, server, &Origin::Init, token), "--server-arg")?;
    }
    for agent in plan.agents.iter().take(usize::from(!config.agent_args.is_empty())) {
        understood(agent_args(config, plan, agent, token), "--agent-arg")?;
    }
    Ok(())
}

struct Args(Vec<OsString>);

impl Args {
    fn new(verb: &str, config: &UpConfig) -> Self {
        Self(vec![verb.into(), "--log".into(), config.log.clone().into()])
    }

    fn flag(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) {
        self.0.extend([name.into(), value.as_ref().into()]);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use super::*;

    pub(in crate::up) fn config(data_dir: &Path) -> UpConfig {
        UpConfig {
            cloud: Choice::None,
            cluster_name: "kubernetes".into(),
            servers: 3,
            agents: 1,
            data_dir: data_dir.into(),
            base_port: 6443,
            runtime: Runtime::None,
            images: None,
            registry_mirror: None,
            install_packages: false,
            restart: true,
            runtime_threads: None,
            node_ip: LOOPBACK,
            network: None,
            hosts: Hosts::Shared,
            cluster_cidr: None,
            server_args: Vec::new(),
            agent_args: Vec::new(),
            log: "info".into(),
        }
    }

    #[test]
    fn no_two_things_share_a_port_and_all_lie_within_forty() {
        let config =
            UpConfig { servers: SERVERS_MAX, agents: AGENTS_MAX, ..config(Path::new("/data")) };
        let addresses = Plan::new(&config).addresses();
        let distinct: HashSet<_> = addresses.iter().collect();
        assert_eq!(distinct.len(), addresses.len());
        let within = config.base_port..config.base_port + PORTS;
        assert!(addresses.iter().all(|address| within.contains(&address.port())));
    }

    #[test]
    fn a_port_is_needed_on_every_address_where_pods_are_to_reach_it() {
        let of = |runtime| {
            let config = UpConfig { runtime, ..config(Path::new("/data")) };
            let plan = Plan::new(&config);
            assert!(plan.addresses().contains(&plan.servers[0].api_listen));
            plan.servers[0].api_listen.to_string()
        };
        assert_eq!(of(Runtime::None), "127.0.0.1:6444");
        assert_eq!(of(Runtime::Containerd), "0.0.0.0:6444");
    }

    #[test]
    fn servers_with_addresses_of_their_own_share_none() {
        let config = UpConfig { hosts: Hosts::Own, ..config(Path::new("/data")) };
        let plan = Plan::new(&config);
        let hosts: HashSet<IpAddr> = plan.servers.iter().map(|server| server.raft.ip()).collect();
        assert_eq!(hosts.len(), 3);
        for server in &plan.servers {
            let args = server_args(&config, server, &Origin::Init, Path::new("/token"));
            let at = args.iter().position(|arg| arg == "--peer-advertise").unwrap();
            assert_eq!(args[at + 1], server.raft.ip().to_string().as_str());
        }
    }

    #[test]
    fn nodes_of_their_own_share_neither_address_nor_namespace_and_reach_the_machine() {
        let network = NodeNetwork::of(Path::new("/data"));
        let config = UpConfig {
            agents: 3,
            node_ip: network.machine(),
            network: Some(network.clone()),
            ..config(Path::new("/data"))
        };
        let plan = Plan::new(&config);
        let distinct: HashSet<_> =
            plan.agents.iter().map(|agent| (agent.api.ip(), agent.namespace.clone())).collect();
        assert_eq!(distinct.len(), 3);
        assert!(plan.addresses().iter().all(|address| address.ip() == LOOPBACK));
        let args = agent_args(&config, &plan, &plan.agents[1], Path::new("/token"));
        let after = |flag: &str| {
            let at = args.iter().position(|arg| arg == flag).unwrap();
            args[at + 1].to_string_lossy().into_owned()
        };
        assert_eq!(after("--node-ip"), network.node(2).to_string());
        assert_eq!(after("--server"), format!("https://{}:6444", network.machine()));
        assert_eq!(after("--network-namespace"), network.namespace(2).display().to_string());
    }

    #[test]
    fn only_the_first_server_of_an_empty_directory_begins_a_cluster() {
        let plan = Plan::new(&config(Path::new("/data")));
        let new = [false, false, false];
        assert_eq!(plan.origin(0, &new), Origin::Init);
        assert!(matches!(plan.origin(1, &new), Origin::Join(_)));
        let lost_its_disk = [false, true, true];
        let others = vec![plan.servers[1].api, plan.servers[2].api];
        assert_eq!(plan.origin(0, &lost_its_disk), Origin::Join(others));
    }

    #[test]
    fn further_flags_come_last_and_must_be_ones_that_we_understand() {
        let with = |server: &str, agent: &str| UpConfig {
            server_args: vec![server.into()],
            agent_args: vec![agent.into()],
            ..config(Path::new("/data"))
        };
        let good =
            with("--encrypt-resources=secrets,configmaps", "--eviction-hard=pid.available<1%");
        let plan = Plan::new(&good);
        check_further(&good, &plan).unwrap();
        let token = Path::new("/data/token");
        let server = server_args(&good, &plan.servers[0], &Origin::Init, token);
        assert_eq!(server.last().unwrap(), "--encrypt-resources=secrets,configmaps");
        let agent = agent_args(&good, &plan, &plan.agents[0], token);
        let thresholds =
            agent.iter().filter(|arg| arg.to_string_lossy().starts_with("--eviction-hard"));
        assert_eq!(thresholds.count(), 1, "its own takes the place of ours");
        for bad in [with("--no-such-flag", "--v"), with("--name=other", "--max-pods=many")] {
            assert!(check_further(&bad, &plan).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_command_lines_are_ones_that_we_understand() {
        let config = config(Path::new("/data"));
        let plan = Plan::new(&config);
        let token = Path::new("/data/token");
        let parse = |args: Vec<OsString>| {
            crate::config::parse(std::iter::once("kontiki".into()).chain(args)).unwrap()
        };
        for (index, server) in plan.servers.iter().enumerate() {
            let origin = plan.origin(index, &[false; 3]);
            parse(server_args(&config, server, &origin, token));
        }
        let clouds = [
            Choice::BareMetal(NodeNetwork::of(Path::new("/data")).balancers()),
            Choice::OutOfProcess("unix:///run/sky.sock".parse().unwrap()),
        ];
        for cloud in clouds {
            let config = UpConfig { cloud, ..config.clone() };
            parse(server_args(&config, &plan.servers[0], &Origin::Init, token));
        }
        parse(agent_args(&config, &plan, &plan.agents[0], token));
    }
}
