//! `kontiki agent`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use kontiki_node_agent::config::MAX_PODS;
use kontiki_node_agent::evict::EvictionConfig;
use kontiki_node_agent::images::collect::ImageGcConfig;
use kontiki_node_agent::{Agent, AgentConfig, ClusterDns, RuntimeChoice, ServiceProxy};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

mod pressure;

use pressure::PressureFlags;

use super::server::{check_name, check_url, read_token};
use crate::enroll::node::{NodeIdentity, NodeRequest};
use crate::pki::{CLUSTER_DNS_IP, CLUSTER_DOMAIN};
use crate::shutdown;
use crate::token::{Role, Token};

/// Flags of `kontiki agent`.
#[derive(Debug, Args)]
pub struct Flags {
    /// A server of the cluster (several may be named); the others are learnt from it.
    #[arg(long, env = "KONTIKI_SERVER", value_name = "URL", value_delimiter = ',')]
    server: Vec<String>,
    /// The cluster's token for nodes; needed until the node has certificates.
    #[arg(long, env = "KONTIKI_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the token.
    #[arg(long, env = "KONTIKI_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name of the node; by default this machine's.
    #[arg(long, env = "KONTIKI_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// The address at which servers and pods reach this node.
    #[arg(long, env = "KONTIKI_NODE_IP", value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// What the agent keeps: pods, volumes, logs, its containerd.
    #[arg(
        long,
        env = "KONTIKI_DATA_DIR",
        default_value = "./kontiki-data/agent",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// The network namespace to work in, as a file: the node is then not this machine, but a node of
    /// its own within it.
    #[arg(long, env = "KONTIKI_NETWORK_NAMESPACE", value_name = "FILE")]
    network_namespace: Option<PathBuf>,
    /// `containerd` to start and supervise one, or the path of a CRI socket to use.
    #[arg(
        long,
        env = "KONTIKI_RUNTIME",
        default_value = "containerd",
        value_name = "containerd|SOCKET"
    )]
    runtime: String,
    /// Folder with image archives (OCI or docker tar) to import at start.
    #[arg(long, env = "KONTIKI_IMAGES", value_name = "DIR")]
    images: Option<PathBuf>,
    /// A registry to which every pull is sent.
    #[arg(long, env = "KONTIKI_REGISTRY_MIRROR", value_name = "URL")]
    registry_mirror: Option<String>,
    /// The image of the containers that hold a pod's network.
    #[arg(long, env = "KONTIKI_SANDBOX_IMAGE", value_name = "IMAGE")]
    sandbox_image: Option<String>,
    /// Where the agent serves logs; by default a free port of the node's address.
    #[arg(long, env = "KONTIKI_AGENT_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address at which pods find the cluster's names; `none` leaves them the node's resolver.
    #[arg(
        long,
        env = "KONTIKI_CLUSTER_DNS",
        default_value_t = CLUSTER_DNS_IP.to_string(),
        value_name = "ADDRESS|none"
    )]
    cluster_dns: String,
    /// The domain of the cluster's names.
    #[arg(
        long,
        env = "KONTIKI_CLUSTER_DOMAIN",
        default_value = CLUSTER_DOMAIN,
        value_name = "DOMAIN"
    )]
    cluster_domain: String,
    /// What makes Services work on this node: the agent, or something else.
    #[arg(long, env = "KONTIKI_SERVICE_PROXY", value_enum, default_value = "nftables")]
    service_proxy: ProxyChoice,
    /// How many pods the node takes.
    #[arg(long, env = "KONTIKI_MAX_PODS", default_value_t = MAX_PODS)]
    max_pods: u32,
    /// Folder with manifests of pods that the node runs by itself, with servers or without.
    #[arg(long, env = "KONTIKI_POD_MANIFEST_PATH", value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    #[command(flatten)]
    pressure: PressureFlags,
    /// A label of the node (several may be given).
    #[arg(long, env = "KONTIKI_NODE_LABELS", value_name = "KEY=VALUE", value_delimiter = ',')]
    node_label: Vec<String>,
}

/// What makes Services work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProxyChoice {
    /// The agent, by nftables.
    Nftables,
    /// Another program, such as kube-proxy or Cilium.
    None,
}

/// The flags, validated: what the agent is told, without the certificates it has yet to get.
struct Validated {
    request: NodeRequest,
    token: Option<Token>,
    runtime: RuntimeChoice,
    labels: BTreeMap<String, String>,
    cluster_dns: Option<ClusterDns>,
    eviction: EvictionConfig,
    image_gc: ImageGcConfig,
}

impl Flags {
    fn validate(&self) -> anyhow::Result<Validated> {
        if self.server.is_empty() {
            bail!("--server is missing: name at least one server, such as https://192.0.2.2:6443");
        }
        for url in &self.server {
            check_url("--server", url)?;
        }
        let node_name = match &self.node_name {
            Some(name) => name.clone(),
            None => machine_name(),
        };
        check_name("--node-name", &node_name)?;
        if let Some(images) = self.images.as_ref().filter(|images| !images.is_dir()) {
            bail!("--images {}: expected a folder with image archives", images.display());
        }
        if let Some(folder) = self.pod_manifest_path.as_ref().filter(|folder| !folder.is_dir()) {
            bail!("--pod-manifest-path {}: expected a folder", folder.display());
        }
        let (eviction, image_gc) = self.pressure.validate()?;
        let node_ip = self.node_ip.unwrap_or_else(super::up::primary_address);
        Ok(Validated {
            request: NodeRequest { node_name, node_ip, servers: self.server.clone() },
            token: read_token(self.token.clone(), self.token_file.as_deref(), Role::Node)?,
            runtime: runtime(&self.runtime)?,
            labels: labels(&self.node_label)?,
            cluster_dns: cluster_dns(&self.cluster_dns, &self.cluster_domain)?,
            eviction,
            image_gc,
        })
    }

    fn agent_config(
        self,
        validated: Validated,
        data_dir: PathBuf,
        identity: NodeIdentity,
    ) -> AgentConfig {
        let NodeRequest { node_name, node_ip, servers } = validated.request;
        let (client_tls, serving_tls) = identity.into_tls();
        let usual =
            AgentConfig::new(node_name, node_ip, data_dir, servers, client_tls, serving_tls);
        AgentConfig {
            runtime: validated.runtime,
            images_dir: self.images,
            registry_mirror: self.registry_mirror,
            sandbox_image: self.sandbox_image,
            listen: self.listen.unwrap_or(usual.listen),
            labels: validated.labels,
            max_pods: self.max_pods,
            cluster_dns: validated.cluster_dns,
            static_pods_dir: self.pod_manifest_path,
            eviction: validated.eviction,
            image_gc: validated.image_gc,
            service_proxy: match self.service_proxy {
                ProxyChoice::Nftables => ServiceProxy::Nftables,
                ProxyChoice::None => ServiceProxy::None,
            },
            ..usual
        }
    }
}

/// Runs one node's agent until it is told to stop; its containers run on.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    if let Some(file) = &flags.network_namespace {
        enter(file)?;
    }
    let validated = flags.validate()?;
    super::runtime(None)?.block_on(run_agent(flags, validated))?;
    Ok(ExitCode::SUCCESS)
}

/// Takes this process, while it has but one thread, into a network namespace; whatever it starts is
/// in it, too.
fn enter(namespace: &Path) -> anyhow::Result<()> {
    let shown = namespace.display();
    let file = std::fs::File::open(namespace)
        .with_context(|| format!("--network-namespace {shown}: open it"))?;
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), kind)
        .with_context(|| format!("--network-namespace {shown}: enter it"))
}

async fn run_agent(flags: Flags, validated: Validated) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let data_dir = std::path::absolute(&flags.data_dir)
        .with_context(|| format!("make {} absolute", flags.data_dir.display()))?;
    let identity = NodeIdentity::obtain(&data_dir, &validated.request, validated.token.as_ref());
    let Some(identity) = stop.run_until_cancelled(identity).await else { return Ok(()) };
    let config = flags.agent_config(validated, data_dir, identity?);
    let agent = Agent::start(config).await.context("start the agent")?;
    tracing::info!("logs are served at {}", agent.address());
    agent.run(stop).await.context("run the agent")
}

fn runtime(text: &str) -> anyhow::Result<RuntimeChoice> {
    if text == "containerd" {
        return Ok(RuntimeChoice::Supervised);
    }
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
    if path.is_absolute() {
        return Ok(RuntimeChoice::Socket(path));
    }
    bail!("--runtime {text}: expected `containerd` or the absolute path of a CRI socket")
}

fn cluster_dns(address: &str, domain: &str) -> anyhow::Result<Option<ClusterDns>> {
    if address == "none" {
        return Ok(None);
    }
    let Ok(address) = address.parse() else {
        bail!("--cluster-dns {address}: expected an address, or `none`");
    };
    Ok(Some(ClusterDns { address, domain: domain.to_owned() }))
}

fn labels(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let label = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--node-label {text}: expected KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(label).collect()
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use crate::cli::Verb;

    fn refused(line: &str) -> String {
        let cli = crate::config::parse(line.split_whitespace().map(Into::into)).unwrap();
        let Verb::Agent(flags) = cli.verb else { panic!("not the agent") };
        format!("{:#}", flags.validate().err().unwrap())
    }

    #[test]
    fn mistakes_name_the_flag_and_what_is_expected() {
        let server = "kontiki agent --server https://127.0.0.1:6443";
        for (line, expected) in [
            ("kontiki agent".to_owned(), "--server is missing"),
            ("kontiki agent --server 127.0.0.1".to_owned(), "expected a URL such as"),
            (format!("{server} --runtime docker"), "expected `containerd` or the absolute path"),
            (format!("{server} --cluster-dns x"), "expected an address, or `none`"),
            (format!("{server} --node-label gpu"), "--node-label gpu: expected KEY=VALUE"),
            (format!("{server} --node-name NODE"), "--node-name \"NODE\": expected lower-case"),
            (format!("{server} --images /nonexistent"), "expected a folder with image archives"),
            (format!("{server} --pod-manifest-path /nonexistent"), "expected a folder"),
            (format!("{server} --eviction-hard memory<1Gi"), "unsupported eviction signal"),
            (format!("{server} --eviction-soft pid.available<9"), "grace period must be specified"),
            (format!("{server} --image-gc-low-threshold 85"), "expected less than the high"),
            (format!("{server} --minimum-image-ttl-duration 2"), "such as 1m30s"),
            (format!("{server} --token x"), "--token: the token is malformed"),
        ] {
            let error = refused(&line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
