//! From policies, pods and namespaces to addresses and ports. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
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
    pub peers: Option<Vec<Block>>,
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

/// A rule as policies have it, whatever its direction.
struct Written<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

/// A pod that has an address of its own.
struct Known<'a> {
    pod: &'a Pod,
    namespace: &'a str,
    ips: Vec<&'a str>,
}

/// Everything at one moment.
pub(super) struct Snapshot<'a> {
    pods: Vec<Known<'a>>,
    namespaces: HashMap<&'a str, Labels>,
    policies: &'a [Arc<NetworkPolicy>],
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(
        pods: &'a [Arc<Pod>],
        namespaces: &'a [Arc<Namespace>],
        policies: &'a [Arc<NetworkPolicy>],
    ) -> Self {
        let namespaces = namespaces.iter().filter_map(|namespace| {
            let name = namespace.metadata.name.as_deref()?;
            Some((name, namespace.metadata.labels.clone().unwrap_or_default()))
        });
        Self {
            pods: pods.iter().filter_map(known).collect(),
            namespaces: namespaces.collect(),
            policies,
        }
    }

    /// The pods of a node that some policy selects.
    pub(super) fn of_node(&self, node: &str) -> Vec<Policed> {
        let on_node = |known: &&Known<'_>| {
            known.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        };
        let ours = self.pods.iter().filter(on_node);
        let mut policed: Vec<Policed> = ours
            .filter_map(|known| {
                let ingress = self.rules(known, Direction::Ingress);
                let egress = self.rules(known, Direction::Egress);
                if ingress.is_none() && egress.is_none() {
                    return None;
                }
                let uid = known.pod.metadata.uid.clone().unwrap_or_default();
                let ips = known.ips.iter().map(|ip| (*ip).to_owned()).collect();
                Some(Policed { uid, ips, ingress, egress })
            })
            .collect();
        policed.sort_by(|left, right| left.uid.cmp(&right.uid));
        policed
    }

    /// What the policies that select a pod let through together; none if no policy selects it.
    fn rules(&self, known: &Known<'_>, direction: Direction) -> Option<Vec<Rule>> {
        let mut is_selected = false;
        let mut rules = BTreeSet::new();
        for policy in self.policies {
            let Some(spec) = &policy.spec else { continue };
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            let is_for = namespace == known.namespace
                && direction.is_of(spec)
                && spec.pod_selector.as_ref().is_none_or(|s| selects(s, labels(known.pod)));
            if !is_for {
                continue;
            }
            is_selected = true;
            for written in written(spec, direction) {
                rules.extend(self.resolved(known, namespace, &written, direction));
            }
        }
        is_selected.then(|| rules.into_iter().collect())
    }

    fn resolved(
        &self,
        known: &Known<'_>,
        namespace: &str,
        written: &Written<'_>,
        direction: Direction,
    ) -> Vec<Rule> {
        let is_named =
            |port: &&NetworkPolicyPort| matches!(port.port, Some(IntOrString::String(_)));
        let has_names = written.ports.iter().any(|port| is_named(&port));
        if direction == Direction::Ingress || !has_names {
            let ports =
                ports(written.ports, (direction == Direction::Ingress).then_some(known.pod));
            let peers = self.peers(written.peers, namespace);
            return rule(peers.map(|peers| peers.into_iter().collect()), ports);
        }
        // A name means another port in each pod: of what goes out each peer has a rule of its own.
        let numbered: Vec<_> =
            written.ports.iter().filter(|port| !is_named(port)).cloned().collect();
        let mut rules = Vec::new();
        if !numbered.is_empty() {
            let plain = Written { peers: written.peers, ports: &numbered };
            rules.extend(self.resolved(known, namespace, &plain, direction));
        }
        for peer in self.pods.iter().filter(|peer| self.is_peer(written.peers, namespace, peer)) {
            let named: Vec<_> = written.ports.iter().filter(is_named).cloned().collect();
            let blocks = peer.ips.iter().map(|ip| single(ip)).collect();
            rules.extend(rule(Some(blocks), ports(&named, Some(peer.pod))));
        }
        rules
    }

    /// The other side; none for anybody.
    fn peers(&self, written: &[NetworkPolicyPeer], namespace: &str) -> Option<BTreeSet<Block>> {
        if written.is_empty() {
            return None;
        }
        let selected = self.pods.iter().filter(|peer| self.is_peer(written, namespace, peer));
        let pods = selected.flat_map(|peer| peer.ips.iter().map(|ip| single(ip)));
        let blocks = written.iter().filter_map(|peer| peer.ip_block.as_ref());
        let blocks = blocks.map(|block| Block {
            cidr: block.cidr.clone(),
            except: block.except.clone().unwrap_or_default(),
        });
        Some(pods.chain(blocks).collect())
    }

    /// Whether a pod is on the other side.
    fn is_peer(&self, written: &[NetworkPolicyPeer], namespace: &str, peer: &Known<'_>) -> bool {
        written.is_empty()
            || written.iter().any(|written| {
                let in_namespace = match (&written.namespace_selector, &written.pod_selector) {
                    (Some(selector), _) => {
                        let labels = self.namespaces.get(peer.namespace);
                        labels.is_some_and(|labels| selects(selector, Some(labels)))
                    }
                    (None, Some(_)) => peer.namespace == namespace,
                    (None, None) => false,
                };
                let selector = written.pod_selector.as_ref();
                in_namespace && selector.is_none_or(|s| selects(s, labels(peer.pod)))
            })
    }
}

/// A pod with an address that is its own, while it has one.
fn known(pod: &Arc<Pod>) -> Option<Known<'_>> {
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

/// A selector that cannot be read selects nothing: validation has seen it.
fn selects(selector: &Selector, labels: Option<&Labels>) -> bool {
    let value = serde_json::to_value(selector).ok();
    let selector = value.as_ref().and_then(LabelSelector::from_value);
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    selector.is_some_and(|selector| selector.matches(label))
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
        peers: peers.map(Vec::as_slice).unwrap_or_default(),
        ports: ports.map(Vec::as_slice).unwrap_or_default(),
    }
}

/// A rule, unless it lets nothing through.
fn rule(peers: Option<Vec<Block>>, ports: Option<Vec<Ports>>) -> Vec<Rule> {
    let lets_nobody = peers.as_ref().is_some_and(Vec::is_empty);
    let lets_nothing = ports.as_ref().is_some_and(Vec::is_empty);
    if lets_nobody || lets_nothing { Vec::new() } else { vec![Rule { peers, ports }] }
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

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

#[cfg(test)]
mod tests;
