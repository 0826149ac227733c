//! The rules of all Services on this node: a pure table from API objects to nftables.
//!
//! ```text
//!                    services                                    svc/NS/NAME/PROTO/PORT
//!   prerouting ─┐   ┌─────────────────────────────┐   goto      ┌──────────────────────────┐
//!               ├──►│ address . protocol . port   ├────────────►│ dnat to one at random    │
//!   output ─────┘   │ or, on this node's address, │             └──────────────────────────┘
//!                   │ protocol . node port        ├──► ext/…  (masquerade, or local only) ──► svc/… loc/…
//!                   └─────────────────────────────┘
//!   before it: guard (whom a load balancer's address admits)     after it, for what was led
//!   nowhere: refusals (no endpoints: refused at once; none here: dropped)
//! ```
//!
//! A Service's part of the table, its [`Fragment`], depends on nothing but that Service: what one
//! change costs does not depend on how many Services there are.

use std::collections::BTreeMap;

use super::ports::{Backend, Policy, Port, Promise};
use super::ruleset::{Chain, Kind, Ruleset, Set};

/// The bit of a packet's mark that asks for the node's address as its source, as upstream's.
pub const MASQUERADE_MARK: &str = "0x4000";

/// Addresses with protocol and port, and where they lead.
pub const SERVICES: &str = "services";
/// Node ports, and where they lead.
pub const NODE_PORTS: &str = "node-ports";
/// What nobody serves, and how that is said.
pub const REFUSED: &str = "refused";
/// Node ports that nobody serves.
pub const REFUSED_NODE_PORTS: &str = "refused-node-ports";
/// Load balancers' addresses that not everybody may use.
pub const GUARDED: &str = "guarded";
/// The Services' own addresses.
pub const CLUSTER_IPS: &str = "cluster-ips";
/// Pairs of the same address: a pod that reaches itself by way of a Service.
pub const HAIRPIN: &str = "hairpin";
/// The addresses of this node's pods.
pub const OWN_PODS: &str = "own-pods";
/// The addresses of all nodes' pods.
pub const ALL_PODS: &str = "all-pods";

const TO_ADDRESS: &str = "type ipv4_addr . inet_proto . inet_service : verdict;";
const TO_NODE_PORT: &str = "type inet_proto . inet_service : verdict;";

/// The shared sets, with what they hold.
const SETS: [(&str, Kind, &str); 9] = [
    (SERVICES, Kind::Map, TO_ADDRESS),
    (NODE_PORTS, Kind::Map, TO_NODE_PORT),
    (REFUSED, Kind::Map, TO_ADDRESS),
    (REFUSED_NODE_PORTS, Kind::Map, TO_NODE_PORT),
    (GUARDED, Kind::Map, TO_ADDRESS),
    (CLUSTER_IPS, Kind::Set, "type ipv4_addr;"),
    (HAIRPIN, Kind::Set, "type ipv4_addr . ipv4_addr;"),
    (OWN_PODS, Kind::Set, "type ipv4_addr; flags interval;"),
    (ALL_PODS, Kind::Set, "type ipv4_addr; flags interval;"),
];

/// A set and a key in it.
pub type Slot = (&'static str, String);

/// One Service's part of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Chains and sets that are its alone.
    pub own: Ruleset,
    /// Its elements of the shared sets.
    pub elements: BTreeMap<Slot, String>,
}

/// What stands in the table though there be no Service: the shared sets, empty, and the chains that
/// packets enter. `bridge` is the interface of this node's pods.
pub fn base(bridge: &str) -> Ruleset {
    let sets = SETS.map(|(name, kind, spec)| (name.to_owned(), Set::new(kind, spec)));
    let key = "ip daddr . meta l4proto . th dport";
    let here = "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport";
    let hook = |kind: &str, hook: &str, priority: &str| {
        Some(format!("type {kind} hook {hook} priority {priority}"))
    };
    // Another agent on this machine serves the pods of its own bridge.
    let others = format!("iifname \"kt-*\" iifname != \"{bridge}\" return");
    let mark = format!("meta mark set meta mark or {MASQUERADE_MARK}");
    let guard = format!("ct state new {key} vmap @{GUARDED}");
    let chains: [(&str, Option<String>, Vec<String>); 13] = [
        (
            "prerouting",
            hook("nat", "prerouting", "-100"),
            vec![others.clone(), "jump services".into()],
        ),
        ("output", hook("nat", "output", "-100"), vec!["jump services".into()]),
        (
            "services",
            None,
            vec![
                format!("ip daddr @{CLUSTER_IPS} ip saddr != @{OWN_PODS} {mark}"),
                format!("{key} vmap @{SERVICES}"),
                format!("{here} vmap @{NODE_PORTS}"),
            ],
        ),
        (
            "postrouting",
            hook("nat", "postrouting", "100"),
            vec![
                format!("ip saddr . ip daddr @{HAIRPIN} masquerade fully-random"),
                format!(
                    "meta mark & {MASQUERADE_MARK} == {MASQUERADE_MARK} \
                     meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random"
                ),
                "jump egress".into(),
            ],
        ),
        (
            "egress",
            None,
            vec![format!(
                "ip saddr @{OWN_PODS} ip daddr != @{ALL_PODS} oifname != \"{bridge}\" \
                 masquerade fully-random"
            )],
        ),
        ("guard-prerouting", hook("filter", "prerouting", "-110"), vec![others, guard.clone()]),
        ("guard-output", hook("filter", "output", "-110"), vec![guard]),
        (
            "refusals",
            None,
            vec![
                format!("{key} vmap @{REFUSED}"),
                format!("{here} vmap @{REFUSED_NODE_PORTS}"),
                format!("ip daddr @{CLUSTER_IPS} goto refuse"),
            ],
        ),
        ("filter-input", hook("filter", "input", "0"), vec!["ct state new jump refusals".into()]),
        (
            "filter-forward",
            hook("filter", "forward", "0"),
            vec!["ct state new jump refusals".into()],
        ),
        ("filter-output", hook("filter", "output", "0"), vec!["ct state new jump refusals".into()]),
        ("refuse", None, vec!["meta l4proto tcp reject with tcp reset".into(), "reject".into()]),
        ("masquerade-mark", None, vec![mark]),
    ];
    let chains = chains.map(|(name, hook, rules)| (name.to_owned(), Chain { hook, rules }));
    Ruleset { sets: sets.into(), chains: chains.into() }
}

/// A Service's part.
pub fn fragment(promise: &Promise) -> Fragment {
    let mut fragment = Fragment::default();
    for port in &promise.ports {
        fragment.port(port);
    }
    fragment
}

impl Fragment {
    fn port(&mut self, port: &Port) {
        self.elements.insert((CLUSTER_IPS, port.cluster_ip.to_string()), String::new());
        self.backends(port);
        self.internal(port);
        self.external(port);
    }

    fn chain(&mut self, name: String, rules: Vec<String>) {
        self.own.chains.insert(name, Chain::of(rules));
    }

    /// `svc/…` leads to any endpoint, `loc/…` to those on this node.
    fn backends(&mut self, port: &Port) {
        for backend in port.everywhere.iter().chain(&port.here).copied() {
            if let Some(seconds) = port.affinity_s {
                self.sticky(port, backend, seconds);
            }
            if backend.is_local {
                let pair = format!("{0} . {0}", backend.address);
                self.elements.insert((HAIRPIN, pair), String::new());
            }
        }
        if !port.everywhere.is_empty() {
            self.chain(format!("svc/{}", port.key), choose(port, &port.everywhere));
        }
        let is_needed = port.internal == Policy::Local || port.external == Policy::Local;
        if is_needed && !port.here.is_empty() {
            self.chain(format!("loc/{}", port.key), choose(port, &port.here));
        }
    }

    /// An endpoint that remembers its clients.
    fn sticky(&mut self, port: &Port, backend: Backend, seconds: u32) {
        let set = affinity_set(port, backend, seconds);
        let spec =
            format!("type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; size 65535;");
        let remember = format!("update @{set} {{ ip saddr }}");
        self.own.sets.insert(set, Set::new(Kind::Set, spec));
        let dnat = format!(
            "meta l4proto {} dnat ip to {}:{}",
            port.protocol, backend.address, backend.port
        );
        self.chain(endpoint_chain(port, backend), vec![remember, dnat]);
    }

    fn internal(&mut self, port: &Port) {
        let slot = address_key(port, port.cluster_ip);
        match (port.internal, port.has_any, port.here.is_empty()) {
            (_, false, _) => self.lead((REFUSED, slot), "goto refuse"),
            (Policy::Local, true, true) => self.lead((REFUSED, slot), "drop"),
            (Policy::Local, true, false) => {
                self.lead((SERVICES, slot), &format!("goto loc/{}", port.key));
            }
            (Policy::Cluster, true, _) => {
                self.lead((SERVICES, slot), &format!("goto svc/{}", port.key));
            }
        }
    }

    fn external(&mut self, port: &Port) {
        let mut doors: Vec<(Slot, Slot)> = port
            .external_ips
            .iter()
            .map(|address| address_key(port, *address))
            .map(|key| ((SERVICES, key.clone()), (REFUSED, key)))
            .collect();
        doors.extend(port.node_port.map(|number| {
            let key = format!("{} . {number}", port.protocol);
            ((NODE_PORTS, key.clone()), (REFUSED_NODE_PORTS, key))
        }));
        if doors.is_empty() {
            return;
        }
        self.guard(port);
        if port.has_any {
            self.chain(format!("ext/{}", port.key), outside(port));
        }
        for (open, closed) in doors {
            if !port.has_any {
                self.lead(closed, "goto refuse");
                continue;
            }
            self.lead(open, &format!("goto ext/{}", port.key));
            if port.external == Policy::Local && port.here.is_empty() {
                self.lead(closed, "drop");
            }
        }
    }

    /// Who may come by a load balancer's address.
    fn guard(&mut self, port: &Port) {
        let Some(ranges) = &port.source_ranges else { return };
        if port.balancer_ips.is_empty() {
            return;
        }
        let mut rules = Vec::new();
        if !ranges.is_empty() {
            rules.push(format!("ip saddr {{ {} }} return", distinct(ranges)));
        }
        rules.push("drop".to_owned());
        self.chain(format!("fw/{}", port.key), rules);
        for address in &port.balancer_ips {
            let slot = (GUARDED, address_key(port, *address));
            self.lead(slot, &format!("goto fw/{}", port.key));
        }
    }

    fn lead(&mut self, slot: Slot, verdict: &str) {
        self.elements.insert(slot, verdict.to_owned());
    }
}

/// What happens to clients from outside, and to those within that use the outer address.
fn outside(port: &Port) -> Vec<String> {
    let all = format!("goto svc/{}", port.key);
    if port.external == Policy::Cluster {
        // The answer must come back this way.
        return vec!["jump masquerade-mark".to_owned(), all];
    }
    // Pods and the node itself are led anywhere: only what comes from outside keeps its address.
    let mut rules = vec![
        format!("ip saddr @{OWN_PODS} {all}"),
        "fib saddr type local jump masquerade-mark".to_owned(),
        format!("fib saddr type local {all}"),
    ];
    if !port.here.is_empty() {
        rules.push(format!("goto loc/{}", port.key));
    }
    rules
}

/// One of the endpoints, each as likely as any other; the one it had, for a client that stays.
fn choose(port: &Port, backends: &[Backend]) -> Vec<String> {
    let count = backends.len();
    if let Some(seconds) = port.affinity_s {
        let known = backends.iter().map(|backend| {
            let set = affinity_set(port, *backend, seconds);
            format!("ip saddr @{set} goto {}", endpoint_chain(port, *backend))
        });
        let mut rules: Vec<String> = known.collect();
        rules.push(pick(backends, |backend| format!("goto {}", endpoint_chain(port, *backend))));
        return rules;
    }
    let protocol = port.protocol;
    if let [only] = backends {
        return vec![format!("meta l4proto {protocol} dnat ip to {}:{}", only.address, only.port)];
    }
    let targets: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(at, backend)| format!("{at} : {} . {}", backend.address, backend.port))
        .collect();
    vec![format!(
        "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {} }}",
        targets.join(", ")
    )]
}

fn pick(backends: &[Backend], verdict: impl Fn(&Backend) -> String) -> String {
    if let [only] = backends {
        return verdict(only);
    }
    let targets: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(at, backend)| format!("{at} : {}", verdict(backend)))
        .collect();
    format!("numgen random mod {} vmap {{ {} }}", backends.len(), targets.join(", "))
}

/// The set's name says how long it remembers: a set cannot change that.
fn affinity_set(port: &Port, backend: Backend, seconds: u32) -> String {
    format!("aff/{}/{}/{}/{seconds}", port.key, backend.address, backend.port)
}

fn endpoint_chain(port: &Port, backend: Backend) -> String {
    format!("ep/{}/{}/{}", port.key, backend.address, backend.port)
}

fn address_key(port: &Port, address: std::net::Ipv4Addr) -> String {
    format!("{address} . {} . {}", port.protocol, port.number)
}

/// Ranges of which none lies within another: nft refuses elements that overlap.
pub fn distinct(ranges: &[String]) -> String {
    let parsed = |range: &String| {
        let (address, bits) = range.split_once('/')?;
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some((bits.parse::<u32>().ok()?, address.to_bits()))
    };
    let mut all: Vec<(u32, u32)> = ranges.iter().filter_map(parsed).collect();
    all.sort_unstable();
    all.dedup();
    let mut kept: Vec<(u32, u32)> = Vec::new();
    for (bits, address) in all {
        let is_within = |(wider, base): &(u32, u32)| {
            let mask = u32::MAX.checked_shl(32 - wider).unwrap_or(0);
            address & mask == *base
        };
        if !kept.iter().any(is_within) {
            kept.push((bits, address));
        }
    }
    let texts: Vec<String> = kept
        .iter()
        .map(|(bits, address)| format!("{}/{bits}", std::net::Ipv4Addr::from_bits(*address)))
        .collect();
    texts.join(", ")
}

/// The whole table: the base, and of elements that two Services claim, that of the first by name.
pub fn table<'a>(bridge: &str, fragments: impl IntoIterator<Item = &'a Fragment>) -> Ruleset {
    let mut all = base(bridge);
    for fragment in fragments {
        all.chains.extend(fragment.own.chains.clone());
        all.sets.extend(fragment.own.sets.clone());
        for ((set, key), value) in &fragment.elements {
            let set = all.sets.get_mut(*set).expect("shared sets must be in the base");
            set.elements.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests;
