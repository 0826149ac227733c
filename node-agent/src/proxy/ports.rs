//! What a Service promises at each of its ports, and who keeps the promise: API objects in, plain
//! values out.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// A Service with this label is another proxy's.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// How long a client stays with its endpoint unless told otherwise, as upstream.
const AFFINITY_SECONDS: i32 = 10_800;

/// Protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn of(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Which endpoints serve a kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All.
    Cluster,
    /// Those on this node.
    Local,
}

impl Policy {
    fn of(text: Option<&str>) -> Self {
        if text == Some("Local") { Self::Local } else { Self::Cluster }
    }
}

/// An address and port behind a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// It runs on this node.
    pub is_local: bool,
}

/// One port of a Service, with those who serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `NAMESPACE/NAME/PROTOCOL/PORT`: no other has the same.
    pub key: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The number.
    pub number: u16,
    /// The Service's address within the cluster.
    pub cluster_ip: Ipv4Addr,
    /// The port of every node, where it has one.
    pub node_port: Option<u16>,
    /// Addresses beside: external ones and those of load balancers.
    pub external_ips: BTreeSet<Ipv4Addr>,
    /// Those of them that are a load balancer's.
    pub balancer_ips: BTreeSet<Ipv4Addr>,
    /// Who may come by a load balancer; none for everybody.
    pub source_ranges: Option<Vec<String>>,
    /// Whom clients within the cluster are led to.
    pub internal: Policy,
    /// Whom clients from outside are led to.
    pub external: Policy,
    /// Seconds that a client stays with its endpoint.
    pub affinity_s: Option<u32>,
    /// Endpoints for those whom all may serve.
    pub everywhere: Vec<Backend>,
    /// Endpoints on this node.
    pub here: Vec<Backend>,
    /// All endpoints there are, zones aside.
    pub has_any: bool,
}

/// A Service as the proxy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Its ports.
    pub ports: Vec<Port>,
    /// The port at which load balancers ask whether this node has endpoints, and how many it has.
    pub health: Option<(u16, usize)>,
}

/// Where this node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// Its zone, where it has one.
    pub zone: Option<String>,
}

/// What a Service promises on this node. Nothing where it has no address or is another proxy's.
pub fn promise(service: &Service, slices: &[Arc<EndpointSlice>], place: &Place) -> Promise {
    let Some(spec) = service.spec.as_ref() else { return Promise::default() };
    let Some(cluster_ip) = cluster_ip(service, spec) else { return Promise::default() };
    let ports: Vec<Port> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| resolve(service, spec, cluster_ip, port, slices, place))
        .collect();
    let health = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
    let health = health.filter(|port| *port != 0 && is_local(spec));
    let here: BTreeSet<Ipv4Addr> =
        ports.iter().flat_map(|port| &port.here).map(|backend| backend.address).collect();
    Promise { ports, health: health.map(|port| (port, here.len())) }
}

fn is_local(spec: &ServiceSpec) -> bool {
    Policy::of(spec.external_traffic_policy.as_deref()) == Policy::Local
}

fn cluster_ip(service: &Service, spec: &ServiceSpec) -> Option<Ipv4Addr> {
    let is_others =
        service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
    if is_others || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    // `None` of a headless Service is no address either.
    spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).find_map(|text| text.parse().ok())
}

fn resolve(
    service: &Service,
    spec: &ServiceSpec,
    cluster_ip: Ipv4Addr,
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    place: &Place,
) -> Option<Port> {
    let protocol = Protocol::of(port.protocol.as_deref())?;
    let number = u16::try_from(port.port).ok()?;
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let candidates = candidates(slices, port.name.as_deref().unwrap_or_default(), protocol, place);
    let balancer_ips = balancer_ips(service);
    let listed = spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok());
    let all = usable(&candidates);
    let here: Vec<&Candidate> = candidates.iter().filter(|c| c.backend.is_local).collect();
    let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
    Some(Port {
        key: format!("{namespace}/{name}/{protocol}/{number}"),
        protocol,
        number,
        cluster_ip,
        node_port: node_port.filter(|port| *port != 0),
        external_ips: listed.chain(balancer_ips.iter().copied()).collect(),
        balancer_ips,
        source_ranges: source_ranges(spec),
        internal: Policy::of(spec.internal_traffic_policy.as_deref()),
        external: Policy::of(spec.external_traffic_policy.as_deref()),
        affinity_s: affinity_s(spec),
        has_any: !all.is_empty(),
        everywhere: backends(&near(all, place)),
        here: backends(&usable(here)),
    })
}

/// The addresses of load balancers that reach a Service's ports as they are.
pub fn balancer_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    // With the mode `Proxy` the balancer itself wants to be passed through.
    let ours = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    ours.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn source_ranges(spec: &ServiceSpec) -> Option<Vec<String>> {
    let said = spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty())?;
    let ranges: Vec<String> = said.iter().filter_map(|range| ipv4_range(range.trim())).collect();
    (!ranges.iter().any(|range| range.ends_with("/0"))).then_some(ranges)
}

/// A range of IPv4 addresses as nft takes it, with the bits of the host cleared.
pub fn ipv4_range(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    Some(format!("{}/{bits}", Ipv4Addr::from_bits(address.to_bits() & mask)))
}

fn affinity_s(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    u32::try_from(seconds).ok()
}

/// An endpoint that may be chosen.
struct Candidate {
    backend: Backend,
    is_ready: bool,
    is_leaving: bool,
    /// Zones that it is meant for; none where nobody said.
    zones: Option<Vec<String>>,
}

fn candidates(
    slices: &[Arc<EndpointSlice>],
    port_name: &str,
    protocol: Protocol,
    place: &Place,
) -> Vec<Candidate> {
    let mut all = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let port = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::of(port.protocol.as_deref()) == Some(protocol)
        });
        let number = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok());
        let Some(number) = number else { continue };
        all.extend(slice.endpoints.iter().filter_map(|e| candidate(e, number, place)));
    }
    all.sort_by_key(|candidate| candidate.backend);
    // While a pod moves from slice to slice it may stand in both.
    all.dedup_by_key(|candidate| candidate.backend);
    all
}

fn candidate(endpoint: &Endpoint, port: u16, place: &Place) -> Option<Candidate> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is_ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
    Some(Candidate {
        backend: Backend {
            address,
            port,
            is_local: endpoint.node_name.as_ref() == Some(&place.node),
        },
        is_ready,
        is_leaving: conditions.serving.unwrap_or(is_ready)
            && conditions.terminating.unwrap_or(false),
        zones: hints.map(|zones| zones.iter().map(|zone| zone.name.clone()).collect()),
    })
}

/// Those that are ready; where there is none, those that still serve while they end.
fn usable<'a>(all: impl IntoIterator<Item = &'a Candidate>) -> Vec<&'a Candidate> {
    let all: Vec<&Candidate> = all.into_iter().collect();
    let ready: Vec<&Candidate> = all.iter().copied().filter(|c| c.is_ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    all.into_iter().filter(|candidate| candidate.is_leaving).collect()
}

/// Those meant for this node's zone, if every endpoint says whom it is meant for and one of them is
/// meant for us; else all.
fn near<'a>(all: Vec<&'a Candidate>, place: &Place) -> Vec<&'a Candidate> {
    let Some(zone) = &place.zone else { return all };
    let has_zones =
        |candidate: &&Candidate| candidate.zones.as_ref().is_some_and(|z| !z.is_empty());
    if !all.iter().all(has_zones) {
        return all;
    }
    let is_ours = |candidate: &&&Candidate| candidate.zones.iter().flatten().any(|z| z == zone);
    let ours: Vec<&Candidate> = all.iter().filter(is_ours).copied().collect();
    if ours.is_empty() { all } else { ours }
}

fn backends(candidates: &[&Candidate]) -> Vec<Backend> {
    candidates.iter().map(|candidate| candidate.backend).collect()
}

#[cfg(test)]
pub(crate) mod tests;
