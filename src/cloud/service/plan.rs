//! What a Service shall have of a cloud, which nodes it is led to, and what of a cloud's answer cannot
//! be true.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service, ServiceSpec};

use crate::cloud::bare_metal::is_local;
use crate::cloud::provider::{Balancer, CloudError};
use crate::controllers::node_lifecycle::health::Readiness;
use crate::controllers::owners::ObjectKey;

/// Keeps a Service until its balancer is gone.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// A node with this label is led no clients to.
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The cluster's autoscaler is about to remove the node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is to be done about a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It is no business of ours.
    Nothing,
    /// It shall have a balancer.
    Balance,
    /// It has one that must go.
    Release,
}

/// What a Service shall have. One with a class is another's.
pub fn wish(service: &Service) -> Wish {
    let spec = service.spec.as_ref();
    let wants = spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    });
    let is_leaving = service.metadata.deletion_timestamp.is_some();
    match (wants && !is_leaving, has_finalizer(service)) {
        (true, _) => Wish::Balance,
        (false, true) => Wish::Release,
        (false, false) => Wish::Nothing,
    }
}

/// Whether it waits for its balancer before it goes.
pub fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

/// Whether clients may be led to a node. With the policy `Local` a balancer finds out by itself
/// whether it serves, and being not ready does not count, as upstream.
pub fn is_eligible(node: &Node, whatever_its_health: bool) -> bool {
    let has_label = node.metadata.labels.as_ref().is_some_and(|all| all.contains_key(EXCLUDED));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let leaves = taints.into_iter().flatten().any(|taint| taint.key == TO_BE_DELETED)
        || node.metadata.deletion_timestamp.is_some();
    let serves = whatever_its_health || Readiness::of(node) == Readiness::Ready;
    !has_label && !leaves && serves
}

/// The nodes that a Service's clients may be led to, by name.
pub fn eligible(service: &Service, mut nodes: Vec<Arc<Node>>) -> Vec<Arc<Node>> {
    let local = is_local(service);
    nodes.retain(|node| is_eligible(node, local));
    nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    nodes
}

/// What it has now.
pub fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// Refuses what cannot be: no way in, a way that is none, or one at which another Service listens.
pub fn check(service: &Service, said: &Balancer, all: &[Arc<Service>]) -> Result<(), CloudError> {
    let untrue = |what: String| Err(CloudError::Untrue(what));
    if said.ingress.is_empty() {
        return untrue("the balancer has no address".into());
    }
    for way in &said.ingress {
        let is_ip = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| !is_nowhere(ip));
        match (way.ip.as_deref(), way.hostname.as_deref()) {
            (Some(ip), None) if is_ip(ip) => {}
            (None, Some(name)) if !name.is_empty() => {}
            (ip, name) => {
                let said = ip.or(name).unwrap_or_default();
                return untrue(format!("{said:?} is no address to come in by"));
            }
        }
    }
    let own = ObjectKey::of(service);
    let others = all.iter().filter(|other| ObjectKey::of(&***other) != own);
    for other in others.filter(|other| !listens(service).is_disjoint(&listens(other))) {
        let shared = said.ingress.iter().find(|way| {
            let same = |theirs: &&LoadBalancerIngress| {
                theirs.ip == way.ip && theirs.hostname == way.hostname
            };
            ingress(other).iter().any(|theirs| same(&theirs))
        });
        if let Some(way) = shared {
            let address = way.ip.as_deref().or(way.hostname.as_deref()).unwrap_or_default();
            return untrue(format!(
                "{address} is the address of {} already",
                ObjectKey::of(&**other)
            ));
        }
    }
    Ok(())
}

fn is_nowhere(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || address.is_multicast()
}

/// The ports of a Service that a balancer listens at.
fn listens(service: &Service) -> BTreeSet<(String, i32)> {
    let ports = service.spec.as_ref().and_then(|spec: &ServiceSpec| spec.ports.as_ref());
    let ports = ports.into_iter().flatten();
    ports.map(|p| (p.protocol.clone().unwrap_or_else(|| "TCP".into()), p.port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, spec: Value, ips: &[&str]) -> Arc<Service> {
        let ingress: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        let value = json!({
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
            "status": { "loadBalancer": { "ingress": ingress } },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_service_with_a_class_is_left_alone() {
        let spec = json!({ "type": "LoadBalancer", "loadBalancerClass": "example.com/theirs" });
        assert_eq!(wish(&service("web", spec, &[])), Wish::Nothing);
        assert_eq!(wish(&service("web", json!({ "type": "LoadBalancer" }), &[])), Wish::Balance);
        assert_eq!(wish(&service("web", json!({ "type": "NodePort" }), &[])), Wish::Nothing);
    }

    #[test]
    fn what_had_a_balancer_lets_go_of_it_when_it_is_deleted_or_changes_its_type() {
        let with = |kind: &str, deleted: bool| {
            let mut service = (*service("web", json!({ "type": kind }), &[])).clone();
            service.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            let at = "2026-01-01T00:00:00Z";
            service.metadata.deletion_timestamp =
                deleted.then(|| serde_json::from_value(json!(at)).unwrap());
            wish(&service)
        };
        assert_eq!(with("LoadBalancer", false), Wish::Balance);
        assert_eq!(with("LoadBalancer", true), Wish::Release);
        assert_eq!(with("ClusterIP", false), Wish::Release);
    }

    #[test]
    fn clients_are_led_to_nodes_that_are_ready_and_not_excluded() {
        let node = |ready: &str, labels: Value, taint: &str| {
            let value = json!({
                "metadata": { "name": "n", "labels": labels },
                "spec": { "taints": [{ "key": taint, "effect": "NoSchedule" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            });
            serde_json::from_value::<Node>(value).unwrap()
        };
        assert!(is_eligible(&node("True", json!({}), "example.com/mine"), false));
        assert!(!is_eligible(&node("Unknown", json!({}), "x"), false));
        assert!(is_eligible(&node("Unknown", json!({}), "x"), true), "the policy Local");
        assert!(!is_eligible(&node("True", json!({ EXCLUDED: "" }), "x"), true));
        assert!(!is_eligible(&node("True", json!({}), TO_BE_DELETED), false));
    }

    #[test]
    fn an_address_that_cannot_be_is_refused_with_the_reason() {
        let port = |port: u16| json!({ "type": "LoadBalancer", "ports": [{ "port": port }] });
        let web = service("web", port(80), &[]);
        let all = [web.clone(), service("old", port(80), &["192.0.2.1"])];
        let said = |ips: &[&str]| Balancer {
            ingress: ingress(&service("any", json!({}), ips)).to_vec(),
            node: None,
        };
        let refusal = |said: &Balancer| check(&web, said, &all).unwrap_err().to_string();
        assert_eq!(check(&web, &said(&["192.0.2.2"]), &all), Ok(()));
        assert!(refusal(&said(&["192.0.2.1"])).contains("is the address of shop/old already"));
        assert!(refusal(&said(&[])).contains("no address"));
        for bad in ["0.0.0.0", "127.0.0.1", "here", ""] {
            assert!(refusal(&said(&[bad])).contains("no address to come in by"), "{bad}");
        }
        let tls = service("tls", port(443), &[]);
        assert_eq!(check(&tls, &said(&["192.0.2.1"]), &all), Ok(()), "another port of the same");
    }
}
