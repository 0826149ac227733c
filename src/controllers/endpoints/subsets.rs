//! The Endpoints of a Service: the same as its slices, in the old form.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ports::{self, ResolvedPort};
use super::slices;
use crate::controllers::labels::Labels;
use crate::controllers::pods;

/// The most addresses; further ones are left out and the annotation says so.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Whether this controller wrote them.
pub fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == CONTROLLER)
}

/// The Endpoints as they shall be; `None` where they are.
pub fn plan(
    service: &Service,
    members: &[Arc<Pod>],
    existing: Option<&Endpoints>,
) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, members);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let labels = labels(service);
    let over = truncated.then(|| "truncated".to_owned());
    let annotation = |endpoints: &Endpoints| {
        endpoints.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY)).cloned()
    };
    if existing.is_some_and(|old| {
        old.subsets == subsets
            && old.metadata.labels.as_ref() == Some(&labels)
            && annotation(old) == over
    }) {
        return None;
    }
    let mut endpoints = existing.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    endpoints.subsets = subsets;
    endpoints.metadata.labels = Some(labels);
    if let Some(annotations) = &mut endpoints.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    if let Some(over) = over {
        endpoints
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(OVER_CAPACITY.to_owned(), over);
    }
    Some(endpoints)
}

/// Addresses by their ports, ready ones apart from the others; whether some were left out.
fn subsets(service: &Service, members: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let published =
        service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let mut groups: BTreeMap<Vec<ResolvedPort>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    let present: Vec<&Arc<Pod>> = members
        .iter()
        .filter(|pod| pods::is_active(pod) || (published && !pods::is_terminal(pod)))
        .collect();
    for pod in present.iter().take(ADDRESSES_MAX) {
        let Some(address) = address(service, pod) else { continue };
        let ports = ports::resolve(service, pod);
        if ports.is_empty() && !slices::is_headless(service) {
            continue;
        }
        let (ready, not_ready) = groups.entry(ports).or_default();
        if published || pods::is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    let subsets = groups
        .into_iter()
        .map(|(ports, (ready, not_ready))| subset(&ports, ready, not_ready))
        .collect();
    (subsets, present.len() > ADDRESSES_MAX)
}

fn subset(
    ports: &[ResolvedPort],
    mut ready: Vec<EndpointAddress>,
    mut not_ready: Vec<EndpointAddress>,
) -> EndpointSubset {
    ready.sort_by(|a, b| a.ip.cmp(&b.ip));
    not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
    let some =
        |addresses: Vec<EndpointAddress>| Some(addresses).filter(|addresses| !addresses.is_empty());
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()).filter(|name| !name.is_empty()),
            port: port.port,
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?,
        hostname: slices::hostname(service, pod),
        node_name: pods::node_name(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if slices::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}
