//! Which EndpointSlices a Service shall have.
//!
//! Endpoints with the same ports share slices, at most [`ENDPOINTS_MAX`] in one. What is there
//! already stays where it is, so that a change of one pod rewrites one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::SERVICE_NAME;
use super::ports::{self, ResolvedPort};
use crate::controllers::labels::Labels;
use crate::controllers::{owners, pods};

/// The most endpoints of a slice.
pub const ENDPOINTS_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The family of addresses of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn has(self, address: &str) -> bool {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self == Self::V4,
            Ok(IpAddr::V6(_)) => self == Self::V6,
            Err(_) => false,
        }
    }
}

/// What endpoints must have in common to share a slice.
pub type Group = (Family, Vec<ResolvedPort>);

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A slice that is not there.
    Create(Box<EndpointSlice>),
    /// A slice as it shall be.
    Update(Box<EndpointSlice>),
    /// A slice that is not wanted, by name.
    Delete(String),
}

/// Whether a slice belongs to this controller and this Service.
pub fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    label(MANAGED_BY).is_some_and(|by| by == CONTROLLER)
        && label(SERVICE_NAME).is_some_and(|name| name == service)
}

/// The endpoints a Service shall have, by group. Each family of the Service has at least one group,
/// though it may be empty.
pub fn wanted(
    service: &Service,
    members: &[Arc<Pod>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families(service) {
        for pod in members.iter().filter(|pod| !pods::is_terminal(pod)) {
            let Some(address) = address(pod, family) else { continue };
            let group = (family, ports::resolve(service, pod));
            groups.entry(group).or_default().push(endpoint(service, pod, address, zone));
        }
        if !groups.keys().any(|(present, _)| *present == family) {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    groups
}

fn families(service: &Service) -> Vec<Family> {
    let said = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let families: Vec<Family> =
        said.iter().map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if families.is_empty() { vec![Family::V4] } else { families }
}

fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).chain(status.pod_ip.clone());
    all.into_iter().find(|address| family.has(address))
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let published = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let node = pods::node_name(pod);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(published || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: node.and_then(zone),
        ..Endpoint::default()
    }
}

/// The pod's own name under the Service's, where it asks for one.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_under = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|hostname| !hostname.is_empty() && is_under)
}

/// The writes that lead from the existing slices to the wanted endpoints.
pub fn plan(
    service: &Service,
    wanted: BTreeMap<Group, Vec<Endpoint>>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Change> {
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    let mut changes = Vec::new();
    for (group, endpoints) in wanted {
        let (same, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|slice| is_of(slice, &group));
        left = others;
        changes.extend(plan_group(service, &group, endpoints, &same));
    }
    // What is left has ports that nobody has any more.
    changes
        .extend(left.iter().map(|slice| Change::Delete(owners::name(&slice.metadata).to_owned())));
    changes
}

fn is_of(slice: &EndpointSlice, (family, wanted): &Group) -> bool {
    slice.address_type == family.as_str()
        && slice.ports.clone().unwrap_or_default() == ports(wanted)
}

fn ports(resolved: &[ResolvedPort]) -> Vec<EndpointPort> {
    resolved
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn plan_group(
    service: &Service,
    group: &Group,
    endpoints: Vec<Endpoint>,
    same: &[Arc<EndpointSlice>],
) -> Vec<Change> {
    let mut waiting: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    // Each endpoint stays in the slice that has it, in its present state.
    let mut filled: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = same
        .iter()
        .map(|slice| {
            let kept =
                slice.endpoints.iter().filter_map(|old| waiting.remove(&identity(old))).collect();
            (slice, kept)
        })
        .collect();
    // The fullest first: the emptiest may become empty and go.
    filled.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.len()));
    let mut rest = waiting.into_values();
    for (_, kept) in &mut filled {
        let room = ENDPOINTS_MAX.saturating_sub(kept.len());
        kept.extend(rest.by_ref().take(room));
    }
    let mut changes = Vec::new();
    let mut has_slice = false;
    for (slice, kept) in filled {
        if kept.is_empty() && has_slice {
            changes.push(Change::Delete(owners::name(&slice.metadata).to_owned()));
            continue;
        }
        has_slice = true;
        changes.extend(update(service, slice, kept));
    }
    let rest: Vec<Endpoint> = rest.collect();
    for part in rest.chunks(ENDPOINTS_MAX) {
        changes.push(Change::Create(Box::new(new_slice(service, group, part.to_vec()))));
        has_slice = true;
    }
    if !has_slice {
        changes.push(Change::Create(Box::new(new_slice(service, group, Vec::new()))));
    }
    changes
}

/// An endpoint is the same while it is the same pod at the same address.
fn identity(endpoint: &Endpoint) -> String {
    let uid =
        endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(","))
}

fn update(service: &Service, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<Change> {
    let labels = Some(labels(service));
    if slice.endpoints == endpoints && slice.metadata.labels == labels {
        return None;
    }
    let mut slice = slice.clone();
    slice.endpoints = endpoints;
    slice.metadata.labels = labels;
    Some(Change::Update(Box::new(slice)))
}

fn new_slice(
    service: &Service,
    (family, resolved): &Group,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owners::name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owners::controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().to_owned(),
        endpoints,
        ports: Some(ports(resolved)),
    }
}

/// The Service's labels and those that tell whose the slice is.
fn labels(service: &Service) -> Labels {
    let reserved: BTreeSet<&str> = BTreeSet::from([MANAGED_BY, SERVICE_NAME, HEADLESS]);
    let own = service
        .metadata
        .labels
        .iter()
        .flatten()
        .filter(|(key, _)| !reserved.contains(key.as_str()));
    let mut labels: Labels = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), owners::name(&service.metadata).to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// Whether the Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

#[cfg(test)]
mod tests;
