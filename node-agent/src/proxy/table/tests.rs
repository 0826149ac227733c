use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::ports::Protocol;
use super::super::ruleset::tests::Kernel;
use super::*;

fn backend(last: u8, is_local: bool) -> Backend {
    Backend { address: Ipv4Addr::new(10, 0, 0, last), port: 8080, is_local }
}

fn port(backends: &[Backend]) -> Port {
    Port {
        key: "shop/web/tcp/80".into(),
        protocol: Protocol::Tcp,
        number: 80,
        cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
        node_port: Some(30080),
        external_ips: BTreeSet::new(),
        balancer_ips: BTreeSet::new(),
        source_ranges: None,
        internal: Policy::Cluster,
        external: Policy::Cluster,
        affinity_s: None,
        everywhere: backends.to_vec(),
        here: backends.iter().copied().filter(|backend| backend.is_local).collect(),
        has_any: !backends.is_empty(),
    }
}

fn fragment_of(port: Port) -> Fragment {
    let fragment = fragment(&Promise { ports: vec![port], health: None });
    Kernel(table("kt-1", [&fragment])).check();
    fragment
}

fn element<'a>(fragment: &'a Fragment, set: &'static str, key: &str) -> Option<&'a str> {
    fragment.elements.get(&(set, key.to_owned())).map(String::as_str)
}

fn rules<'a>(fragment: &'a Fragment, chain: &str) -> &'a [String] {
    &fragment.own.chains[chain].rules
}

const CLUSTER: &str = "10.96.0.7 . tcp . 80";
const NODE: &str = "tcp . 30080";

#[test]
fn clients_are_spread_over_all_endpoints() {
    let fragment = fragment_of(port(&[backend(1, true), backend(2, false)]));
    assert_eq!(element(&fragment, SERVICES, CLUSTER), Some("goto svc/shop/web/tcp/80"));
    assert_eq!(
        rules(&fragment, "svc/shop/web/tcp/80"),
        [
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }"
        ]
    );
    assert_eq!(element(&fragment, NODE_PORTS, NODE), Some("goto ext/shop/web/tcp/80"));
    assert_eq!(
        rules(&fragment, "ext/shop/web/tcp/80"),
        ["jump masquerade-mark", "goto svc/shop/web/tcp/80"]
    );
    assert_eq!(element(&fragment, HAIRPIN, "10.0.0.1 . 10.0.0.1"), Some(""));
    assert_eq!(element(&fragment, HAIRPIN, "10.0.0.2 . 10.0.0.2"), None, "not our pod");
}

#[test]
fn where_nobody_serves_every_door_refuses() {
    let mut nobody = port(&[]);
    nobody.external_ips.insert(Ipv4Addr::new(192, 0, 2, 50));
    let fragment = fragment_of(nobody);
    for (set, key) in
        [(REFUSED, CLUSTER), (REFUSED, "192.0.2.50 . tcp . 80"), (REFUSED_NODE_PORTS, NODE)]
    {
        assert_eq!(element(&fragment, set, key), Some("goto refuse"), "{key}");
    }
    assert!(fragment.own.chains.is_empty());
}

#[test]
fn a_local_policy_drops_where_only_other_nodes_serve_but_leads_pods_anywhere() {
    let mut away = port(&[backend(2, false)]);
    (away.internal, away.external) = (Policy::Local, Policy::Local);
    let fragment = fragment_of(away);
    assert_eq!(element(&fragment, REFUSED, CLUSTER), Some("drop"));
    assert_eq!(element(&fragment, SERVICES, CLUSTER), None);
    assert_eq!(element(&fragment, REFUSED_NODE_PORTS, NODE), Some("drop"));
    assert_eq!(
        rules(&fragment, "ext/shop/web/tcp/80"),
        [
            "ip saddr @own-pods goto svc/shop/web/tcp/80",
            "fib saddr type local jump masquerade-mark",
            "fib saddr type local goto svc/shop/web/tcp/80",
        ]
    );
}

#[test]
fn a_local_policy_keeps_clients_and_their_addresses_on_the_node() {
    let mut both = port(&[backend(1, true), backend(2, false)]);
    (both.internal, both.external) = (Policy::Local, Policy::Local);
    let fragment = fragment_of(both);
    assert_eq!(element(&fragment, SERVICES, CLUSTER), Some("goto loc/shop/web/tcp/80"));
    assert_eq!(
        rules(&fragment, "loc/shop/web/tcp/80"),
        ["meta l4proto tcp dnat ip to 10.0.0.1:8080"]
    );
    assert_eq!(rules(&fragment, "ext/shop/web/tcp/80")[3], "goto loc/shop/web/tcp/80");
}

#[test]
fn a_client_that_stays_is_looked_for_before_an_endpoint_is_chosen() {
    let mut sticky = port(&[backend(1, true), backend(2, false)]);
    sticky.affinity_s = Some(600);
    let fragment = fragment_of(sticky);
    let set = "aff/shop/web/tcp/80/10.0.0.1/8080/600";
    assert_eq!(
        fragment.own.sets[set].spec,
        "type ipv4_addr; flags dynamic,timeout; timeout 600s; size 65535;"
    );
    let chosen = rules(&fragment, "svc/shop/web/tcp/80");
    assert_eq!(chosen[0], format!("ip saddr @{set} goto ep/shop/web/tcp/80/10.0.0.1/8080"));
    assert_eq!(
        chosen[2],
        "numgen random mod 2 vmap { 0 : goto ep/shop/web/tcp/80/10.0.0.1/8080, \
         1 : goto ep/shop/web/tcp/80/10.0.0.2/8080 }"
    );
    assert_eq!(
        rules(&fragment, "ep/shop/web/tcp/80/10.0.0.1/8080"),
        [
            format!("update @{set} {{ ip saddr }}").as_str(),
            "meta l4proto tcp dnat ip to 10.0.0.1:8080"
        ]
    );
}

#[test]
fn a_balancers_address_admits_only_its_source_ranges() {
    let mut guarded = port(&[backend(1, true)]);
    let address = Ipv4Addr::new(192, 0, 2, 60);
    guarded.external_ips.insert(address);
    guarded.balancer_ips.insert(address);
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "192.168.1.0/24"];
    guarded.source_ranges = Some(ranges.map(String::from).into());
    let fragment = fragment_of(guarded);
    assert_eq!(
        element(&fragment, GUARDED, "192.0.2.60 . tcp . 80"),
        Some("goto fw/shop/web/tcp/80")
    );
    assert_eq!(
        rules(&fragment, "fw/shop/web/tcp/80"),
        ["ip saddr { 10.0.0.0/8, 192.168.1.0/24 } return", "drop"]
    );
}
