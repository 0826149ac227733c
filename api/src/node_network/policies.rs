//! From policies, pods and namespaces to addresses and ports. Pure.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Selector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use crate::selectors::LabelSelector;

type Labels = BTreeMap<String, String>;

/// A pod that some policy selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Policed {
    /// Whose rules these are.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// What may come in; without it everything may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; without it everything may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Rule>>,
}

/// What is let through: whatever is from, or to, one of the peers, and to one of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct Rule {
    /// The other side; without it anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Arc<Vec<Block>>>,
    /// The ports; without it any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Ports>>,
}

/// Addresses: one, or a range without some parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct Block {
    /// An address or a range.
    pub cidr: String,
    /// Ranges within that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Ports of a protocol; all of them from 0 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct Ports {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// Whether a policy speaks of it.
    fn is_of(self, spec: &NetworkPolicySpec) -> bool {
        match (&spec.policy_types, self) {
            (Some(types), Self::Ingress) => types.iter().any(|t| t == "Ingress"),
            (Some(types), Self::Egress) => types.iter().any(|t| t == "Egress"),
            (None, Self::Ingress) => true,
            (None, Self::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        }
    }
}

/// A rule as policies have it, whatever its direction, with what it comes to.
struct Written<'a> {
    peers: Vec<Peer<'a>>,
    ports: &'a [NetworkPolicyPort],
    /// Its peers; none for anybody. The same for all pods that it is about.
    blocks: OnceCell<Option<Blocks>>,
}

/// Shared by all rules that came of one.
type Blocks = Arc<Vec<Block>>;

/// One of the other sides that a rule names, its selectors read.
struct Peer<'a> {
    namespaces: Option<Selected>,
    pods: Option<Selected>,
    block: Option<&'a IPBlock>,
}

/// What a selector says. One that cannot be read selects nothing: validation has seen it.
struct Selected(Option<LabelSelector>);

/// A policy, its selector read.
struct Policy<'a> {
    namespace: &'a str,
    pods: Option<Selected>,
    /// Without rules of a direction it says nothing of it.
    ingress: Option<Vec<Written<'a>>>,
    /// What its rules let out: the same for all pods that it is about.
    egress: Option<(Vec<Written<'a>>, OnceCell<Vec<Rule>>)>,
}

/// A pod that has an address of its own.
pub(super) struct Known<'a> {
    pod: &'a Pod,
    namespace: &'a str,
    pub(super) ips: Vec<&'a str>,
}

/// Everything at one moment.
pub(super) struct Snapshot<'a> {
    pods: Vec<Known<'a>>,
    namespaces: HashMap<&'a str, &'a Labels>,
    /// By their namespaces.
    policies: HashMap<&'a str, Vec<Policy<'a>>>,
}

static NO_LABELS: Labels = Labels::new();

impl<'a> Snapshot<'a> {
    pub(super) fn new(
        pods: &'a [Arc<Pod>],
        namespaces: &'a [Arc<Namespace>],
        policies: &'a [Arc<NetworkPolicy>],
    ) -> Self {
        let namespaces = namespaces.iter().filter_map(|namespace| {
            let name = namespace.metadata.name.as_deref()?;
            Some((name, namespace.metadata.labels.as_ref().unwrap_or(&NO_LABELS)))
        });
        let mut by_namespace: HashMap<&str, Vec<Policy<'_>>> = HashMap::new();
        for policy in policies.iter().filter_map(|policy| Policy::read(policy)) {
            by_namespace.entry(policy.namespace).or_default().push(policy);
        }
        Self {
            pods: pods.iter().filter_map(|pod| known(pod)).collect(),
            namespaces: namespaces.collect(),
            policies: by_namespace,
        }
    }

    /// The pods that some policy selects, by their nodes.
    pub(super) fn by_node(&self) -> HashMap<&'a str, Vec<Policed>> {
        let mut nodes: HashMap<&str, Vec<Policed>> = HashMap::new();
        for known in &self.pods {
            let node = known.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if let (Some(node), Some(policed)) = (node, self.policed(known)) {
                nodes.entry(node).or_default().push(policed);
            }
        }
        for policed in nodes.values_mut() {
            policed.sort_by(|left, right| left.uid.cmp(&right.uid));
        }
        nodes
    }

    fn policed(&self, known: &Known<'_>) -> Option<Policed> {
        let all = self.policies.get(known.namespace)?;
        let is_about = |policy: &&Policy<'_>| selects(policy.pods.as_ref(), labels(known.pod));
        let ours: Vec<&Policy<'_>> = all.iter().filter(is_about).collect();
        let (mut ingress, mut egress) = (None::<BTreeSet<Rule>>, None::<BTreeSet<Rule>>);
        for policy in ours {
            if let Some(rules) = &policy.ingress {
                let all = ingress.get_or_insert_default();
                all.extend(
                    rules.iter().filter_map(|rule| self.lets_in(policy.namespace, rule, known)),
                );
            }
            if let Some((rules, out)) = &policy.egress {
                let out = out.get_or_init(|| {
                    rules.iter().flat_map(|rule| self.lets_out(policy.namespace, rule)).collect()
                });
                egress.get_or_insert_default().extend(out.iter().cloned());
            }
        }
        if ingress.is_none() && egress.is_none() {
            return None;
        }
        let rules = |rules: Option<BTreeSet<Rule>>| Some(rules?.into_iter().collect());
        Some(Policed {
            uid: known.pod.metadata.uid.clone().unwrap_or_default(),
            ips: known.ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ingress: rules(ingress),
            egress: rules(egress),
        })
    }

    /// What a rule lets into a pod.
    fn lets_in(&self, namespace: &str, written: &Written<'_>, known: &Known<'_>) -> Option<Rule> {
        rule(self.blocks(namespace, written), ports(written.ports, Some(known.pod)))
    }

    /// What a rule lets out of any pod.
    fn lets_out(&self, namespace: &str, written: &Written<'_>) -> Vec<Rule> {
        let is_named =
            |port: &&NetworkPolicyPort| matches!(port.port, Some(IntOrString::String(_)));
        let (named, numbered): (Vec<_>, Vec<_>) =
            written.ports.iter().partition(|port| is_named(port));
        let (named, numbered): (Vec<_>, Vec<_>) =
            (named.into_iter().cloned().collect(), numbered.into_iter().cloned().collect());
        let mut rules = Vec::new();
        if named.is_empty() || !numbered.is_empty() {
            rules.extend(rule(self.blocks(namespace, written), ports(&numbered, None)));
        }
        if named.is_empty() {
            return rules;
        }
        // A name means another port in each pod: of what goes out each peer has a rule of its own.
        for peer in self.pods.iter().filter(|peer| self.is_peer(&written.peers, namespace, peer)) {
            let blocks = peer.ips.iter().map(|ip| single(ip)).collect();
            rules.extend(rule(Some(Arc::new(blocks)), ports(&named, Some(peer.pod))));
        }
        rules
    }

    /// The other side; none for anybody.
    fn blocks(&self, namespace: &str, written: &Written<'_>) -> Option<Blocks> {
        let find = || {
            let peers = &written.peers;
            let selected = self.pods.iter().filter(|peer| self.is_peer(peers, namespace, peer));
            let pods = selected.flat_map(|peer| peer.ips.iter().map(|ip| single(ip)));
            let blocks = peers.iter().filter_map(|peer| peer.block).map(|block| Block {
                cidr: block.cidr.clone(),
                except: block.except.clone().unwrap_or_default(),
            });
            let all: BTreeSet<Block> = pods.chain(blocks).collect();
            (!peers.is_empty()).then(|| Arc::new(all.into_iter().collect()))
        };
        written.blocks.get_or_init(find).clone()
    }

    /// Whether a pod is on the other side.
    fn is_peer(&self, peers: &[Peer<'_>], namespace: &str, peer: &Known<'_>) -> bool {
        peers.is_empty()
            || peers.iter().any(|one| {
                let in_namespace = match (&one.namespaces, &one.pods) {
                    (Some(selector), _) => {
                        let labels = self.namespaces.get(peer.namespace).copied();
                        labels.is_some_and(|labels| selects(Some(selector), Some(labels)))
                    }
                    (None, Some(_)) => peer.namespace == namespace,
                    (None, None) => false,
                };
                in_namespace && selects(one.pods.as_ref(), labels(peer.pod))
            })
    }
}

impl<'a> Policy<'a> {
    fn read(policy: &'a NetworkPolicy) -> Option<Self> {
        let spec = policy.spec.as_ref()?;
        let written =
            |direction: Direction| direction.is_of(spec).then(|| written(spec, direction));
        Some(Self {
            namespace: policy.metadata.namespace.as_deref().unwrap_or_default(),
            pods: spec.pod_selector.as_ref().map(Selected::by),
            ingress: written(Direction::Ingress),
            egress: written(Direction::Egress).map(|rules| (rules, OnceCell::new())),
        })
    }
}

impl<'a> Peer<'a> {
    fn read(written: &'a NetworkPolicyPeer) -> Self {
        Self {
            namespaces: written.namespace_selector.as_ref().map(Selected::by),
            pods: written.pod_selector.as_ref().map(Selected::by),
            block: written.ip_block.as_ref(),
        }
    }
}

impl Selected {
    fn by(selector: &Selector) -> Self {
        let value = serde_json::to_value(selector).ok();
        Self(value.as_ref().and_then(LabelSelector::from_value))
    }
}

/// A pod with an address that is its own, while it has one.
pub(super) fn known(pod: &Pod) -> Option<Known<'_>> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let has_ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    if spec.host_network == Some(true) || has_ended {
        return None;
    }
    let ips: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    let namespace = pod.metadata.namespace.as_deref()?;
    (!ips.is_empty()).then_some(Known { pod, namespace, ips })
}

fn labels(pod: &Pod) -> Option<&Labels> {
    pod.metadata.labels.as_ref()
}

/// Whether a selector selects what has these labels; none selects everything.
fn selects(selector: Option<&Selected>, labels: Option<&Labels>) -> bool {
    let Some(Selected(selector)) = selector else { return true };
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    selector.as_ref().is_some_and(|selector| selector.matches(label))
}

fn written(spec: &NetworkPolicySpec, direction: Direction) -> Vec<Written<'_>> {
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| written_rule(rule.from.as_ref(), rule.ports.as_ref())).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| written_rule(rule.to.as_ref(), rule.ports.as_ref())).collect()
        }
    }
}

fn written_rule<'a>(
    peers: Option<&'a Vec<NetworkPolicyPeer>>,
    ports: Option<&'a Vec<NetworkPolicyPort>>,
) -> Written<'a> {
    Written {
        peers: peers.into_iter().flatten().map(Peer::read).collect(),
        ports: ports.map(Vec::as_slice).unwrap_or_default(),
        blocks: OnceCell::new(),
    }
}

/// A rule, unless it lets nothing through.
fn rule(peers: Option<Blocks>, ports: Option<Vec<Ports>>) -> Option<Rule> {
    let lets_nobody = peers.as_ref().is_some_and(|peers| peers.is_empty());
    let lets_nothing = ports.as_ref().is_some_and(Vec::is_empty);
    (!lets_nobody && !lets_nothing).then_some(Rule { peers, ports })
}

fn single(ip: &str) -> Block {
    Block { cidr: ip.to_owned(), except: Vec::new() }
}

/// The ports of a rule; none for any. Names are those of the pod that is talked to.
fn ports(written: &[NetworkPolicyPort], named_by: Option<&Pod>) -> Option<Vec<Ports>> {
    if written.is_empty() {
        return None;
    }
    let all = written.iter().flat_map(|port| resolve(port, named_by));
    Some(all.collect::<BTreeSet<_>>().into_iter().collect())
}

fn resolve(port: &NetworkPolicyPort, named_by: Option<&Pod>) -> Vec<Ports> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let range = |from: i32, to: i32| {
        let (from, to) = (u16::try_from(from).ok()?, u16::try_from(to).ok()?);
        Some(Ports { protocol: protocol.clone(), from, to })
    };
    match &port.port {
        None => vec![Ports { protocol, from: 0, to: u16::MAX }],
        Some(IntOrString::Int(from)) => {
            range(*from, port.end_port.unwrap_or(*from)).into_iter().collect()
        }
        Some(IntOrString::String(name)) => {
            let containers = named_by.into_iter().flat_map(containers);
            let ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports
                .filter(|own| own.name.as_ref() == Some(name))
                .filter(|own| own.protocol.as_deref().unwrap_or("TCP") == protocol)
                .filter_map(|own| range(own.container_port, own.container_port))
                .collect()
        }
    }
}

pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

#[cfg(test)]
mod tests;
