//! The built-in provider for machines of one's own: an address of the pool for each Service, and a
//! node that answers for it.
//!
//! A node keeps its addresses for as long as it may answer for them. The choice among several is the
//! same whoever makes it, and spreads addresses over nodes; one that leaves moves only its own.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::informer::{Informer, Informers};
use kontiki_node_agent::network::answers::ANSWERED_BY;
use sha2::{Digest, Sha256};

use super::pool::{self, Pool};
use super::provider::{Balancer, LoadBalancers, Outcome, Provider};
use crate::controllers::node_lifecycle::health::Readiness;
use crate::controllers::owners;

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Machines and a pool of addresses.
pub struct BareMetal {
    pool: Pool,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
}

impl BareMetal {
    /// Gives addresses of `pool`.
    pub fn new(pool: Pool, informers: &Informers) -> Self {
        Self { pool, services: informers.of(), slices: informers.of() }
    }

    fn candidates<'a>(&self, service: &Service, nodes: &'a [Arc<Node>]) -> Vec<&'a str> {
        let ready = nodes.iter().filter(|node| Readiness::of(node) == Readiness::Ready);
        let names = ready.map(|node| owners::name(&node.metadata));
        if !is_local(service) {
            return names.collect();
        }
        let slices = self.slices.list_in(owners::namespace(&service.metadata));
        let serving = serving_nodes(owners::name(&service.metadata), &slices);
        names.filter(|name| serving.contains(*name)).collect()
    }
}

impl Provider for BareMetal {
    fn name(&self) -> &'static str {
        "bare-metal"
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }
}

#[async_trait]
impl LoadBalancers for BareMetal {
    fn is_local(&self) -> bool {
        true
    }

    /// An address is given by the Service's status, and gone with it.
    async fn find(&self, _service: &Service) -> Outcome<Option<Balancer>> {
        Ok(None)
    }

    async fn ensure(&self, service: &Service, nodes: &[Arc<Node>]) -> Outcome<Balancer> {
        let address = self.pool.plan(service, &self.services.list())?;
        let node = answering(service, address, &self.candidates(service, nodes));
        let ingress = LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        };
        Ok(Balancer { ingress: vec![ingress], node: node.map(str::to_owned) })
    }

    async fn delete(&self, _service: &Service) -> Outcome<()> {
        Ok(())
    }
}

/// Whether clients must stay on the node they arrive at.
pub fn is_local(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

/// The node that answers for a Service's address now.
pub fn answered_by(service: &Service) -> Option<&str> {
    service.metadata.annotations.as_ref()?.get(ANSWERED_BY).map(String::as_str)
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The nodes with ready endpoints of a Service.
fn serving_nodes(service: &str, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let slices = slices.iter().filter(|slice| service_of(slice) == Some(service));
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_none_or(|conditions| conditions.ready != Some(false))
    });
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The node that shall answer: the one that does, or the one with the highest lot.
fn answering<'a>(service: &Service, address: Ipv4Addr, candidates: &[&'a str]) -> Option<&'a str> {
    // One that answers for another address of before is as good as any.
    let has_it = pool::addresses_of(service).any(|has| has == address);
    let now = answered_by(service).filter(|_| has_it);
    let kept = candidates.iter().find(|name| now == Some(**name));
    kept.or_else(|| candidates.iter().min_by_key(|name| Reverse(lot(address, name)))).copied()
}

fn lot(address: Ipv4Addr, node: &str) -> [u8; 32] {
    Sha256::new().chain_update(address.octets()).chain_update(node).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn service(node: Option<&str>) -> Service {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop",
                "annotations": node.map(|node| json!({ ANSWERED_BY: node })),
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": ADDRESS }] } },
        }))
        .unwrap()
    }

    #[test]
    fn an_address_stays_at_its_node_and_moves_only_when_that_may_not_answer() {
        let all = ["a", "b", "c"];
        let first = answering(&service(None), ADDRESS, &all).unwrap();
        let other = all.into_iter().find(|name| *name != first).unwrap();
        assert_eq!(answering(&service(Some(other)), ADDRESS, &all), Some(other));
        let left: Vec<&str> = all.into_iter().filter(|name| *name != other).collect();
        assert_eq!(answering(&service(Some(other)), ADDRESS, &left), Some(first));
        assert_eq!(answering(&service(Some(other)), ADDRESS, &[]), None);
    }

    #[test]
    fn addresses_are_spread_over_the_nodes() {
        let mut counts = BTreeMap::new();
        for last in 0..90 {
            let address = Ipv4Addr::new(192, 0, 2, last);
            let node = answering(&service(None), address, &["a", "b", "c"]).unwrap();
            *counts.entry(node).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| *count > 15), "{counts:?}");
    }

    #[test]
    fn only_nodes_with_ready_endpoints_serve() {
        let slice = |service: &str, node: &str, ready: Option<bool>| {
            let value = json!({
                "metadata": { "labels": { SERVICE_NAME: service } },
                "addressType": "IPv4",
                "endpoints": [{
                    "addresses": ["10.0.0.1"], "nodeName": node, "conditions": { "ready": ready },
                }],
            });
            Arc::new(serde_json::from_value::<EndpointSlice>(value).unwrap())
        };
        let slices = [
            slice("web", "a", Some(true)),
            slice("web", "b", Some(false)),
            slice("web", "c", None),
            slice("other", "d", Some(true)),
        ];
        let expected: BTreeSet<String> = ["a", "c"].map(str::to_owned).into();
        assert_eq!(serving_nodes("web", &slices), expected);
    }
}
