//! Nodes of their own on one machine: each agent of several gets a network namespace, and all of them
//! one bridge.
//!
//! ```text
//!   machine: servers, kubectl          kn-HASH, 198.18.N.1/24 (masquerades the nodes to the world)
//!                                        │            │            │
//!                                        │                            .200-.239: load balancers
//!   network namespaces             up0 .11      up0 .12      up0 .13
//!   kontiki-HASH-1 …               agent-1      agent-2      agent-3   each with pods, ports and
//!                                                                      rules that are its own
//! ```
//!
//! Everything is named after the data directory, so that `down` finds it whoever made it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::cloud::pool::Pool;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
/// Where the kernel shows interfaces.
const INTERFACES: &str = "/sys/class/net";
/// The node's end of its cable.
const UPLINK: &str = "up0";
/// The first node's address ends with one more than this; below is room for the machine's own.
const NODES_FROM: u8 = 10;
/// Load balancers have addresses from here, up to there.
const BALANCERS: (u8, u8) = (200, 239);
/// Longest wait for `ip` or `nft`.
const DEADLINE: Duration = Duration::from_secs(10);

/// The network of one data directory's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    tag: String,
    /// The first three bytes of all addresses.
    prefix: [u8; 3],
}

impl NodeNetwork {
    /// The one of this data directory. Of the block that is set aside for measuring networks, so that
    /// no real one has it.
    pub fn of(data_dir: &Path) -> Self {
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let [a, b, c, d, ..] = digest[..] else { unreachable!("a digest has 32 bytes") };
        let tag = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
        Self { tag, prefix: [198, 18 + (digest[4] & 1), digest[5]] }
    }

    fn address(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last).into()
    }

    /// Where nodes and pods reach the machine.
    pub fn machine(&self) -> IpAddr {
        self.address(1)
    }

    /// The address of a node; they are counted from 1.
    pub fn node(&self, number: u16) -> IpAddr {
        self.address(NODES_FROM.saturating_add(u8::try_from(number).unwrap_or(u8::MAX)))
    }

    /// The addresses of load balancers: on the nodes' link where they have one, on this machine where
    /// it is the node.
    pub fn balancers(&self) -> Pool {
        let (first, last) = (self.address(BALANCERS.0), self.address(BALANCERS.1));
        format!("{first}-{last}").parse().expect("two addresses of one block must be a range")
    }

    /// The file that stands for the network namespace of a node.
    pub fn namespace(&self, number: u16) -> PathBuf {
        Path::new(NAMESPACES).join(self.namespace_name(number))
    }

    fn namespace_name(&self, number: u16) -> String {
        format!("{}{number}", self.namespace_prefix())
    }

    fn namespace_prefix(&self) -> String {
        format!("kontiki-{}-", self.tag)
    }

    /// The link that all nodes are on.
    pub fn bridge(&self) -> String {
        format!("kn-{}", self.tag)
    }

    fn cable(&self, number: u16) -> String {
        format!("kn-{}-{number}", self.tag)
    }

    fn range(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// What `ip` is told on the machine. What is there already stays, with whatever runs in it.
    fn on_machine(&self, nodes: u16, is_there: &dyn Fn(&str) -> bool) -> Vec<String> {
        let bridge = self.bridge();
        let mut lines = Vec::new();
        if !is_there(&bridge) {
            lines.push(format!("link add {bridge} type bridge"));
        }
        lines.push(format!("addr replace {}/24 dev {bridge}", self.machine()));
        lines.push(format!("link set {bridge} up"));
        for number in 1..=nodes {
            let (cable, namespace) = (self.cable(number), self.namespace_name(number));
            if !is_there(&cable) {
                lines.push(format!(
                    "link add {cable} type veth peer name {UPLINK} netns {namespace}"
                ));
            }
            lines.push(format!("link set {cable} master {bridge} up"));
        }
        lines
    }

    /// What `ip` is told in a node's namespace.
    fn on_node(&self, number: u16) -> Vec<String> {
        vec![
            "link set lo up".to_owned(),
            format!("addr replace {}/24 dev {UPLINK}", self.node(number)),
            format!("link set {UPLINK} up"),
            format!("route replace default via {}", self.machine()),
        ]
    }

    /// The rules by which nodes have the machine's address towards the world.
    fn rules(&self) -> String {
        let (table, range, bridge) = (self.table(), self.range(), self.bridge());
        format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n  chain world {{\n    \
             type nat hook postrouting priority srcnat; policy accept;\n    \
             ip saddr {range} oifname != \"{bridge}\" masquerade\n  }}\n}}\n"
        )
    }

    fn table(&self) -> String {
        format!("kontiki-nodes-{}", self.tag)
    }

    /// Makes whatever is not there of it.
    pub async fn make(&self, nodes: u16) -> anyhow::Result<()> {
        for number in (1..=nodes).filter(|number| !self.namespace(*number).exists()) {
            run("ip", ["netns", "add", &self.namespace_name(number)], "").await?;
        }
        let is_there = |name: &str| Path::new(INTERFACES).join(name).exists();
        batch(&[], &self.on_machine(nodes, &is_there)).await?;
        for number in 1..=nodes {
            let name = self.namespace_name(number);
            batch(&["-n", &name], &self.on_node(number)).await?;
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .context("let this machine forward packets of its nodes")?;
        run("nft", ["-f", "-"], &self.rules()).await
    }

    /// Leads what goes to a node's pods to the node.
    pub async fn route(&self, number: u16, pods: &str) -> anyhow::Result<()> {
        let (node, bridge) = (self.node(number).to_string(), self.bridge());
        run("ip", ["route", "replace", pods, "via", &node, "dev", &bridge], "").await
    }

    /// Removes all of it that is there; all is tried, the first error is told.
    pub async fn remove(&self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let entries = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ours: Vec<_> =
            names.filter(|name| name.starts_with(&self.namespace_prefix())).collect();
        let bridge = self.bridge();
        let is_bridged = Path::new(INTERFACES).join(&bridge).exists();
        if ours.is_empty() && !is_bridged {
            return outcome;
        }
        // A namespace lives on while a process is in it, and its cable with it: that goes by name.
        let cables = std::fs::read_dir(INTERFACES).into_iter().flatten().flatten();
        let cables = cables.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let links =
            cables.filter(|name| name.starts_with(&format!("{bridge}-")) || *name == bridge);
        for link in links {
            outcome = outcome.and(run("ip", ["link", "delete", &link], "").await);
        }
        for name in &ours {
            outcome = outcome.and(run("ip", ["netns", "delete", name], "").await);
        }
        let table = self.table();
        let removal = format!("table ip {table}\ndelete table ip {table}\n");
        outcome.and(run("nft", ["-f", "-"], &removal).await)
    }
}

async fn batch(options: &[&str], lines: &[String]) -> anyhow::Result<()> {
    let args = options.iter().copied().chain(["-batch", "-"]);
    run("ip", args, &(lines.join("\n") + "\n")).await
}

/// Runs a program with `input`; fails with what it says.
async fn run<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> anyhow::Result<()> {
    output(program, args, input).await.map(drop)
}

/// Runs a program; answers what it prints.
pub(super) async fn ask(program: &str, args: &[&str]) -> anyhow::Result<String> {
    output(program, args, "").await
}

async fn output<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> anyhow::Result<String> {
    let path = kontiki_node_agent::preflight::search_path();
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let work = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(DEADLINE, work)
        .await
        .with_context(|| format!("{program} did not end"))?
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("the network of the nodes: {program}: {}", why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_data_directories_share_no_name_and_names_fit_an_interface() {
        let one = NodeNetwork::of(Path::new("/data/one"));
        let two = NodeNetwork::of(Path::new("/data/two"));
        assert_ne!((one.bridge(), one.table()), (two.bridge(), two.table()));
        assert_ne!(one.namespace(1), two.namespace(1));
        assert!(one.cable(super::super::plan::AGENTS_MAX).len() <= 15);
    }

    #[test]
    fn nodes_and_machine_have_addresses_of_one_range_that_no_network_has() {
        let network = NodeNetwork::of(Path::new("/data"));
        let IpAddr::V4(machine) = network.machine() else { panic!("an IPv4 address") };
        assert_eq!(machine.octets()[0], 198);
        assert!([18, 19].contains(&machine.octets()[1]), "{machine}");
        let base = machine.to_string().trim_end_matches(".1").to_owned();
        assert_eq!(network.node(1).to_string(), format!("{base}.11"));
        assert_eq!(network.node(9).to_string(), format!("{base}.19"));
        assert_eq!(network.range(), format!("{base}.0/24"));
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let network = NodeNetwork::of(Path::new("/data"));
        let made = |lines: Vec<String>| lines.iter().filter(|l| l.contains(" add ")).count();
        assert_eq!(made(network.on_machine(2, &|_| false)), 3);
        let cable = network.cable(1);
        let rest = network.on_machine(2, &|name| name == cable || name == network.bridge());
        assert_eq!(made(rest), 1);
    }

    #[test]
    fn each_node_has_its_own_end_of_a_cable_and_a_way_out() {
        let network = NodeNetwork::of(Path::new("/data"));
        let lines = network.on_node(2);
        assert!(lines.contains(&format!("addr replace {}/24 dev up0", network.node(2))));
        assert!(lines.contains(&format!("route replace default via {}", network.machine())));
    }
}
