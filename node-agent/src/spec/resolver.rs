//! How a pod resolves names: its policy, and what it says beside.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use super::NodeFacts;
use crate::api::namespace;
use crate::runtime::Dns;

/// Names with fewer dots are tried below the search domains first: `web`, `web.shop`, and the five
/// labels of `_http._tcp.web.shop.svc`.
const NDOTS: &str = "ndots:5";

/// The resolver's settings of a pod. A pod in the node's network has the node's, unless it asks for
/// the cluster's.
pub(super) fn dns(pod: &Pod, node: &NodeFacts) -> Dns {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let on_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let mut dns = match policy {
        "None" => Dns::default(),
        "ClusterFirstWithHostNet" => cluster(pod, node),
        "ClusterFirst" if !on_host => cluster(pod, node),
        _ => node.host_dns.clone(),
    };
    let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) else { return dns };
    extend(&mut dns.servers, own.nameservers.iter().flatten());
    extend(&mut dns.searches, own.searches.iter().flatten());
    for option in own.options.iter().flatten() {
        set(&mut dns.options, option);
    }
    dns
}

fn cluster(pod: &Pod, node: &NodeFacts) -> Dns {
    let Some(cluster) = &node.cluster_dns else { return node.host_dns.clone() };
    let domain = &cluster.domain;
    let mut searches =
        vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
    extend(&mut searches, node.host_dns.searches.iter());
    Dns { servers: vec![cluster.address.to_string()], searches, options: vec![NDOTS.to_owned()] }
}

fn extend<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for text in more {
        if !list.contains(text) {
            list.push(text.clone());
        }
    }
}

/// The pod's own value of an option takes the place of another.
fn set(options: &mut Vec<String>, option: &PodDNSConfigOption) {
    let name = option.name.as_deref().unwrap_or_default();
    options.retain(|known| known.split(':').next() != Some(name));
    options.push(match &option.value {
        Some(value) => format!("{name}:{value}"),
        None => name.to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dns::ClusterDns;
    use crate::spec::files::parse_resolv_conf;

    fn node() -> NodeFacts {
        NodeFacts {
            ip: "192.0.2.1".parse().unwrap(),
            cgroup_root: "/".into(),
            memory_bytes: 1 << 30,
            cpu_milli: 2000,
            host_dns: parse_resolv_conf("nameserver 9.9.9.9\nsearch example.org\noptions rotate\n"),
            cluster_dns: Some(ClusterDns {
                address: "10.96.0.10".parse().unwrap(),
                domain: "cluster.local".into(),
            }),
        }
    }

    fn of(spec: Value) -> Dns {
        let pod = json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": spec });
        dns(&serde_json::from_value(pod).unwrap(), &node())
    }

    #[test]
    fn pods_ask_the_cluster_first_and_search_their_namespace() {
        let dns = of(json!({ "containers": [] }));
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn pods_in_the_nodes_network_ask_as_the_node_does_unless_they_want_the_cluster() {
        let dns = of(json!({ "containers": [], "hostNetwork": true }));
        assert_eq!((dns.servers, dns.options), (vec!["9.9.9.9".into()], vec!["rotate".into()]));
        let policy = "ClusterFirstWithHostNet";
        let dns = of(json!({ "containers": [], "hostNetwork": true, "dnsPolicy": policy }));
        assert_eq!(dns.servers, ["10.96.0.10"]);
    }

    #[test]
    fn a_pods_own_settings_are_added_once_and_its_options_win() {
        let dns = of(json!({ "containers": [], "dnsConfig": {
            "nameservers": ["1.1.1.1", "10.96.0.10"], "searches": ["cluster.local", "my.org"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }],
        } }));
        assert_eq!(dns.servers, ["10.96.0.10", "1.1.1.1"]);
        assert_eq!(dns.searches.last().map(String::as_str), Some("my.org"));
        assert_eq!(dns.searches.len(), 5);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
        let dns = of(json!({ "containers": [], "dnsPolicy": "None",
            "dnsConfig": { "nameservers": ["1.1.1.1"] } }));
        assert_eq!((dns.servers, dns.searches.len()), (vec!["1.1.1.1".into()], 0));
    }
}
