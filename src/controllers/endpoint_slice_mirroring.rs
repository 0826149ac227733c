//! Mirrors Endpoints that somebody else wrote, for Services that select no pods, into EndpointSlices:
//! proxies and resolvers read those alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::DeleteOptions;

use super::endpoints::SERVICE_NAME;
use super::owners::{self, ObjectKey};
use super::pod_control::is_namespace_terminating;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// On Endpoints that want no mirror.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints that are a lock and no endpoints.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";
/// The most endpoints of a mirrored subset.
const ENDPOINTS_MAX: usize = 1000;

/// Mirrors.
pub struct Mirror {
    client: Client,
    endpoints: Arc<Informer<Endpoints>>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Mirror> {
    let endpoints = context.informers.of::<Endpoints>();
    let services = context.informers.of::<Service>();
    let slices = context.informers.of::<EndpointSlice>();
    let reconciler = Mirror {
        client: context.client_of("endpointslicemirroring-controller"),
        endpoints: Arc::clone(&endpoints),
        services: Arc::clone(&services),
        slices: Arc::clone(&slices),
    };
    Controller::new("endpointslice-mirroring", context, begin, reconciler)
        .watch(&endpoints, |endpoints| vec![ObjectKey::of(endpoints)])
        .watch(&services, |service| vec![ObjectKey::of(service)])
        .watch(&slices, |slice| {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
            let service = service.filter(|_| is_mirror(slice));
            let namespace = owners::namespace(&slice.metadata);
            service.map(|name| ObjectKey::new(namespace, name.clone())).into_iter().collect()
        })
}

fn is_mirror(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == CONTROLLER)
}

#[async_trait]
impl Reconcile for Mirror {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let service = self.services.get(&key.namespace, &key.name);
        let wanted = wanted(endpoints.as_deref(), service.as_deref());
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .list_in(&key.namespace)
            .into_iter()
            .filter(|slice| is_mirror(slice) && names(slice, &key.name))
            .collect();
        for change in plan(wanted, &existing) {
            let outcome = match &change {
                Change::Create(slice) => self.client.create(slice).await.map(drop),
                Change::Update(slice) => self.client.update(slice).await.map(drop),
                Change::Delete(name) => {
                    let options = DeleteOptions::default();
                    let namespace = &key.namespace;
                    self.client.delete::<EndpointSlice>(namespace, name, &options).await.map(drop)
                }
            };
            match outcome {
                Err(status) if status.is_not_found() || is_namespace_terminating(&status) => {}
                outcome => outcome.during(|| format!("mirroring the endpoints {key}"))?,
            }
        }
        Ok(Next::OnChange)
    }
}

fn names(slice: &EndpointSlice, service: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|name| name == service)
}

/// The slices that mirror these Endpoints.
pub fn wanted(endpoints: Option<&Endpoints>, service: Option<&Service>) -> Vec<EndpointSlice> {
    let (Some(endpoints), Some(service)) = (endpoints, service) else { return Vec::new() };
    let selects = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let meta = &endpoints.metadata;
    let is_skipped = meta.labels.as_ref().is_some_and(|l| l.get(SKIP).is_some_and(|v| v == "true"))
        || meta.annotations.as_ref().is_some_and(|all| all.contains_key(LOCK));
    let is_going = service.metadata.deletion_timestamp.is_some();
    if is_skipped || is_going || selects.is_some_and(|selector| !selector.is_empty()) {
        return Vec::new();
    }
    let subsets = endpoints.subsets.iter().flatten().enumerate();
    subsets.flat_map(|(number, subset)| mirrored(endpoints, number, subset)).collect()
}

/// A subset as slices: one of each family of its addresses.
fn mirrored(endpoints: &Endpoints, number: usize, subset: &EndpointSubset) -> Vec<EndpointSlice> {
    let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    for (address, is_ready) in ready.chain(unready).take(ENDPOINTS_MAX) {
        let family = match address.ip.parse() {
            Ok(IpAddr::V4(_)) => "IPv4",
            Ok(IpAddr::V6(_)) => "IPv6",
            Err(_) => continue,
        };
        families.entry(family).or_default().push(endpoint(address, is_ready));
    }
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let slice = |(family, endpoints_of): (&str, Vec<Endpoint>)| EndpointSlice {
        metadata: meta(endpoints, number, family),
        address_type: family.to_owned(),
        endpoints: endpoints_of,
        ports: Some(ports.clone()),
    };
    families.into_iter().map(slice).collect()
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// Named by what it mirrors, so that it is made once.
fn meta(endpoints: &Endpoints, number: usize, family: &str) -> ObjectMeta {
    let name = owners::name(&endpoints.metadata);
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != "kubectl.kubernetes.io/last-applied-configuration");
    ObjectMeta {
        name: Some(format!("{name}-{}-{number}", family.to_lowercase())),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: Some(vec![owners::controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A slice that is not there.
    Create(EndpointSlice),
    /// A slice as it shall be.
    Update(EndpointSlice),
    /// A slice that is not wanted, by name.
    Delete(String),
}

/// The writes that lead from the existing slices to the wanted ones.
pub fn plan(wanted: Vec<EndpointSlice>, existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
    let is_named = |slice: &EndpointSlice, name: &str| owners::name(&slice.metadata) == name;
    let mut changes: Vec<Change> = existing
        .iter()
        .map(|slice| owners::name(&slice.metadata))
        .filter(|name| !wanted.iter().any(|slice| is_named(slice, name)))
        .map(|name| Change::Delete(name.to_owned()))
        .collect();
    for mut slice in wanted {
        let known = existing.iter().find(|old| is_named(old, owners::name(&slice.metadata)));
        let Some(known) = known else {
            changes.push(Change::Create(slice));
            continue;
        };
        let is_same = known.endpoints == slice.endpoints
            && known.ports == slice.ports
            && known.metadata.labels == slice.metadata.labels
            && known.metadata.annotations == slice.metadata.annotations;
        if !is_same {
            slice.metadata = ObjectMeta {
                labels: slice.metadata.labels,
                annotations: slice.metadata.annotations,
                ..known.metadata.clone()
            };
            changes.push(Change::Update(slice));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(labels: Value, ip: &str) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": { "name": "db", "namespace": "shop", "uid": "u1", "labels": labels },
            "subsets": [{
                "addresses": [{ "ip": ip }, { "ip": "2001:db8::1" }],
                "notReadyAddresses": [{ "ip": "10.0.0.9" }],
                "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }],
            }],
        }))
        .unwrap()
    }

    fn service(selector: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "db", "namespace": "shop" }, "spec": { "selector": selector },
        }))
        .unwrap()
    }

    #[test]
    fn endpoints_written_by_hand_are_mirrored_family_by_family() {
        let by_hand = endpoints(json!({ "a": "b" }), "10.0.0.8");
        let slices = wanted(Some(&by_hand), Some(&service(json!(null))));
        let [four, six] = slices.as_slice() else { panic!("{slices:?}") };
        assert_eq!((four.address_type.as_str(), six.address_type.as_str()), ("IPv4", "IPv6"));
        let ready = |slice: &EndpointSlice| -> Vec<Option<bool>> {
            slice.endpoints.iter().map(|e| e.conditions.as_ref().unwrap().ready).collect()
        };
        assert_eq!(ready(four), [Some(true), Some(false)]);
        assert_eq!(ready(six), [Some(true)]);
        let labels = four.metadata.labels.as_ref().unwrap();
        assert_eq!((labels["a"].as_str(), labels[SERVICE_NAME].as_str()), ("b", "db"));
        assert_eq!(four.ports.as_ref().unwrap()[0].port, Some(5432));
        assert!(owners::is_controlled_by(&four.metadata, "u1"));
    }

    #[test]
    fn what_needs_no_mirror_has_none() {
        let by_hand = endpoints(json!({}), "10.0.0.8");
        let selecting = service(json!({ "app": "db" }));
        let skipped = endpoints(json!({ SKIP: "true" }), "10.0.0.8");
        let plain = service(json!(null));
        assert!(wanted(Some(&by_hand), Some(&selecting)).is_empty());
        assert!(wanted(Some(&skipped), Some(&plain)).is_empty());
        assert!(wanted(Some(&by_hand), None).is_empty());
        assert!(wanted(None, Some(&plain)).is_empty());
    }

    #[test]
    fn a_mirror_follows_and_goes() {
        let plain = service(json!(null));
        let of = |ip: &str| wanted(Some(&endpoints(json!({}), ip)), Some(&plain));
        let existing: Vec<Arc<EndpointSlice>> = of("10.0.0.8").into_iter().map(Arc::new).collect();
        assert!(plan(of("10.0.0.8"), &existing).is_empty());
        let changes = plan(of("10.0.0.7"), &existing);
        assert!(matches!(changes.as_slice(), [Change::Update(_)]), "{changes:?}");
        let changes = plan(Vec::new(), &existing);
        assert!(matches!(changes.as_slice(), [Change::Delete(_), Change::Delete(_)]));
        assert_eq!(plan(of("10.0.0.8"), &[]).len(), 2);
    }
}
