//! The way from nothing to `ready:`.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kontiki_node_agent::paths::Paths;
use tokio::time::{Instant, sleep};

use super::children::{CommandLine, OnStart, Spec, Started, Supervised};
use super::network::NodeNetwork;
use super::plan::{self, Runtime};
use super::{Cluster, packages, pod_range, report};
use crate::client;
use crate::cluster_cidr::ClusterCidr;
use crate::cluster_status::ServerStatus;
use crate::member::MemberRecord;

/// How long all servers together may take to form a cluster.
const SERVERS_DEADLINE: Duration = Duration::from_secs(60);
/// How long an agent may take until its node is Ready: it may have images to import.
const AGENTS_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(15);
/// How long one look may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

impl Cluster {
    /// Starts everything and waits until it is ready. Returns the summary for the last line.
    pub async fn boot(&mut self) -> anyhow::Result<String> {
        let can_run_pods = self.can_run_pods().await?;
        if can_run_pods {
            self.choose_pod_range().await?;
        }
        self.start_servers()?;
        let leader = self.servers_ready().await?;
        let agents = if can_run_pods { self.start_agents().await? } else { 0 };
        Ok(format!(
            "{}, {}, leader {leader}, {:.1} s; export KUBECONFIG={}",
            count(self.servers.len(), "server"),
            count(agents, "agent"),
            report::elapsed_s(),
            self.credentials.kubeconfig_path.display()
        ))
    }

    async fn choose_pod_range(&mut self) -> anyhow::Result<()> {
        let folders = self.plan.agents.iter().map(|agent| Paths::new(&agent.data_dir).bridge());
        let network = self.config.network.iter().map(NodeNetwork::bridge);
        let own: Vec<String> = folders.chain(network).collect();
        let (data_dir, wanted) = (&self.config.data_dir, self.config.cluster_cidr);
        let cidr = pod_range::decide(data_dir, wanted, &own).await?;
        if wanted.is_none() && cidr != ClusterCidr::default() {
            report::event(&format!("pods have addresses of {cidr}"));
        }
        self.config.cluster_cidr = Some(cidr);
        Ok(())
    }

    fn start_servers(&mut self) -> anyhow::Result<()> {
        for index in 0..self.plan.servers.len() {
            let server = self.plan.servers[index].clone();
            let (plan, config) = (self.plan.clone(), self.config.clone());
            let token = self.credentials.server_token.clone();
            // Decided at each start: a server whose directory was lost must join, not begin anew.
            let args: CommandLine = Arc::new(move || {
                let known: Vec<bool> =
                    plan.servers.iter().map(|server| has_member(&server.data_dir)).collect();
                let origin = plan.origin(index, &known);
                plan::server_args(&config, &plan.servers[index], &origin, &token)
            });
            let roster = Arc::clone(&self.roster);
            let on_start: OnStart = Arc::new(move |started: &Started| {
                report::event(&format!(
                    "{}: process {}, API https://{}, etcd {}",
                    server.name, started.process.pid, server.api, server.etcd
                ));
                roster.server_started(&server, started);
            });
            let server = &self.plan.servers[index];
            let data_dir = server.data_dir.clone();
            let spec = Spec {
                // Until `kontiki member replace`, or somebody by hand, has emptied its directory.
                resting: Arc::new(move || MemberRecord::is_removed(&data_dir)),
                ..self.spec(&server.name, args, &server.log)?
            };
            self.servers.push(Supervised::start(spec, on_start)?);
        }
        Ok(())
    }

    fn spec(&self, name: &str, args: CommandLine, log: &Path) -> anyhow::Result<Spec> {
        Ok(Spec {
            name: name.into(),
            program: std::env::current_exe().context("find this executable")?,
            args,
            log: log.into(),
            restart: self.config.restart,
            resting: Arc::new(|| false),
        })
    }

    /// Waits until all servers are ready voters of one cluster. Returns the leader's name.
    async fn servers_ready(&self) -> anyhow::Result<String> {
        let formed = async {
            let ready =
                self.plan.servers.iter().map(|server| self.server_ready(&server.name, server.api));
            futures_util::future::join_all(ready).await;
            self.voters_ready().await
        };
        let deaths = self.servers.iter().map(|child| Box::pin(child.died()));
        tokio::select! {
            formed = tokio::time::timeout(SERVERS_DEADLINE, formed) => formed.with_context(|| {
                let logs = self.config.data_dir.join("logs");
                format!(
                    "the servers formed no cluster within {SERVERS_DEADLINE:?}: see {}",
                    logs.display()
                )
            }),
            (error, ..) = futures_util::future::select_all(deaths) => Err(error),
        }
    }

    async fn server_ready(&self, name: &str, api: std::net::SocketAddr) {
        let url = format!("https://{api}/readyz");
        loop {
            let answer = self.credentials.client.get(&url).timeout(PROBE_DEADLINE).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                report::event(&format!("{name}: ready"));
                return;
            }
            sleep(POLL).await;
        }
    }

    async fn voters_ready(&self) -> String {
        let url = format!("https://{}/kontiki/v1/status", self.plan.servers[0].api);
        loop {
            let status = client::get_json(&self.credentials.client, &url, PROBE_DEADLINE).await;
            let status = status.and_then(|json| Ok(serde_json::from_value::<ServerStatus>(json)?));
            if let Ok(status) = status
                && status.voters() >= self.plan.servers.len()
                && let Some(leader) = status.leader
            {
                report::event(&format!("leader: {leader}, term {}", status.term));
                return leader;
            }
            sleep(POLL).await;
        }
    }

    /// Whether agents can be started. Says what is missing where they cannot.
    async fn can_run_pods(&self) -> anyhow::Result<bool> {
        if self.config.runtime == Runtime::None || self.plan.agents.is_empty() {
            return Ok(false);
        }
        let mut missing = kontiki_node_agent::preflight();
        if !missing.is_empty() && self.config.install_packages {
            packages::install(&packages::packages(&missing)).await?;
            missing = kontiki_node_agent::preflight();
        }
        if missing.is_empty() {
            return Ok(true);
        }
        report::event("pods cannot run on this machine: the control plane runs alone");
        for line in packages::advice(&missing) {
            report::line(&line);
        }
        Ok(false)
    }

    /// Starts the agents. Returns how many nodes are Ready.
    async fn start_agents(&mut self) -> anyhow::Result<usize> {
        if let Some(network) = &self.config.network {
            network.make(self.config.agents).await?;
        }
        for index in 0..self.plan.agents.len() {
            let agent = self.plan.agents[index].clone();
            let args: Vec<OsString> =
                plan::agent_args(&self.config, &self.plan, &agent, &self.credentials.node_token);
            let (name, log) = (agent.name.clone(), agent.log.clone());
            let roster = Arc::clone(&self.roster);
            let on_start: OnStart = Arc::new(move |started: &Started| {
                report::event(&format!("{}: process {}", agent.name, started.process.pid));
                roster.agent_started(&agent, started);
            });
            let spec = self.spec(&name, Arc::new(move || args.clone()), &log)?;
            self.agents.push(Supervised::start(spec, on_start)?);
        }
        let cluster = &*self;
        let ready = (1..).zip(&cluster.plan.agents).map(|(number, agent)| async move {
            let Some(node) = cluster.node_ready(&agent.name).await else { return false };
            cluster.lead_to(number, &node).await;
            true
        });
        let deaths = cluster.agents.iter().map(|child| Box::pin(child.died()));
        tokio::select! {
            ready = futures_util::future::join_all(ready) => Ok(ready.iter().filter(|r| **r).count()),
            (error, ..) = futures_util::future::select_all(deaths) => Err(error),
        }
    }

    /// Servers reach pods, too: for webhooks, for `kubectl proxy`.
    async fn lead_to(&self, number: u16, node: &Node) {
        let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
        let (Some(network), Some(pods)) = (&self.config.network, pods) else { return };
        if let Err(error) = network.route(number, pods).await {
            report::event(&format!("{error:#}"));
        }
    }

    /// The node once it is Ready.
    async fn node_ready(&self, name: &str) -> Option<Node> {
        let url = format!("https://{}/api/v1/nodes/{name}", self.plan.balancer);
        let until = Instant::now() + AGENTS_DEADLINE;
        while Instant::now() < until {
            let node = client::get_json(&self.credentials.client, &url, PROBE_DEADLINE).await;
            let node = node.and_then(|json| Ok(serde_json::from_value::<Node>(json)?));
            match node {
                Ok(node) if not_ready_because(&node).is_none() => {
                    report::event(&format!("{name}: node is Ready"));
                    return Some(node);
                }
                _ => sleep(POLL * 4).await,
            }
        }
        report::event(&format!("{name}: node is not Ready after {AGENTS_DEADLINE:?}; see its log"));
        None
    }
}

/// Nothing when the node is Ready.
fn not_ready_because(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
    match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_default()),
        None => Some("it has not said anything yet".into()),
    }
}

fn has_member(data_dir: &Path) -> bool {
    // A record that cannot be read still says that there was one.
    !matches!(MemberRecord::find(data_dir), Ok(None))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Refuses a count out of range with the range.
pub fn check_count(
    flag: &str,
    value: u16,
    allowed: std::ops::RangeInclusive<u16>,
) -> anyhow::Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    bail!("--{flag} {value}: expected {} to {}", allowed.start(), allowed.end())
}
