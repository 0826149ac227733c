//! What the API says of Services, as this node has heard it: for the proxy and for cluster DNS.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use crate::proxy::index::Key;

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services with their endpoints, and the names of all namespaces.
#[derive(Default)]
pub struct Catalog {
    services: BTreeMap<Key, Arc<Service>>,
    /// Slices by Service, then by name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Which Service a slice belongs to.
    owners: HashMap<Key, Key>,
    /// What this agent itself serves for Services that select no pods.
    own: BTreeMap<Key, Arc<EndpointSlice>>,
    namespaces: BTreeSet<String>,
    is_complete: bool,
    /// Services by the addresses of theirs and of their endpoints.
    by_address: HashMap<IpAddr, BTreeSet<Key>>,
    addresses: HashMap<Key, BTreeSet<IpAddr>>,
}

/// Namespace and name of an object.
pub fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl Catalog {
    /// Takes in a Service, new or changed.
    pub fn apply_service(&mut self, mut service: Service) -> Key {
        service.metadata.managed_fields = None;
        let key = key(&service.metadata);
        self.services.insert(key.clone(), Arc::new(service));
        self.note_addresses(&key);
        key
    }

    /// Forgets a Service.
    pub fn delete_service(&mut self, key: &Key) {
        self.services.remove(key);
        self.note_addresses(key);
    }

    /// Takes in all Services there are. Returns those that may have changed.
    pub fn reset_services(&mut self, services: Vec<Service>) -> BTreeSet<Key> {
        let mut changed: BTreeSet<Key> = self.services.keys().cloned().collect();
        self.services.clear();
        changed.extend(services.into_iter().map(|service| self.apply_service(service)));
        for key in &changed {
            self.note_addresses(key);
        }
        changed
    }

    /// Takes in a slice, new or changed. Returns the Services it concerns.
    pub fn apply_slice(&mut self, mut slice: EndpointSlice) -> BTreeSet<Key> {
        slice.metadata.managed_fields = None;
        let own_key = key(&slice.metadata);
        let labels = slice.metadata.labels.as_ref();
        let owner = labels.and_then(|labels| labels.get(SERVICE_NAME).cloned());
        let mut changed = self.delete_slice(&own_key);
        if let Some(service) = owner.map(|name| (own_key.0.clone(), name)) {
            self.owners.insert(own_key.clone(), service.clone());
            let slices = self.slices.entry(service.clone()).or_default();
            slices.insert(own_key.1, Arc::new(slice));
            self.note_addresses(&service);
            changed.insert(service);
        }
        changed
    }

    /// Forgets a slice. Returns the Services it concerned.
    pub fn delete_slice(&mut self, slice: &Key) -> BTreeSet<Key> {
        let Some(service) = self.owners.remove(slice) else { return BTreeSet::new() };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&slice.1);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.note_addresses(&service);
        [service].into()
    }

    /// Takes in all slices there are. Returns the Services that may have changed.
    pub fn reset_slices(&mut self, slices: Vec<EndpointSlice>) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        for slice in self.owners.keys().cloned().collect::<Vec<_>>() {
            changed.extend(self.delete_slice(&slice));
        }
        for slice in slices {
            changed.extend(self.apply_slice(slice));
        }
        changed
    }

    /// What this agent serves for a Service, unless that selects pods.
    pub fn serve(&mut self, service: Key, slice: EndpointSlice) {
        self.own.insert(service, Arc::new(slice));
    }

    /// Takes in the name of a namespace.
    pub fn apply_namespace(&mut self, name: String) {
        self.namespaces.insert(name);
    }

    /// Forgets a namespace.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Takes in the names of all namespaces.
    pub fn reset_namespaces(&mut self, names: impl IntoIterator<Item = String>) {
        self.namespaces = names.into_iter().collect();
    }

    /// Whether there is such a namespace.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// All that the API has was heard once: what is not here is not there.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Whether what is not here is not there.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A Service.
    pub fn service(&self, key: &Key) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All Services' keys.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.services.keys()
    }

    /// The slices of a Service, by name.
    pub fn slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let selects = |service: &Arc<Service>| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| !selector.is_empty())
        };
        if let Some(own) = self.own.get(key)
            && !self.services.get(key).is_some_and(selects)
        {
            return vec![own.clone()];
        }
        self.slices.get(key).into_iter().flat_map(|slices| slices.values().cloned()).collect()
    }

    /// The Services that have this address, or an endpoint at it.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.by_address.get(&address).into_iter().flatten()
    }

    fn note_addresses(&mut self, key: &Key) {
        for address in self.addresses.remove(key).unwrap_or_default() {
            if let Some(keys) = self.by_address.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        let Some(service) = self.services.get(key) else { return };
        let cluster = cluster_ips(service);
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let endpoints = slices.flat_map(|slice| &slice.endpoints).flat_map(|e| &e.addresses);
        let now: BTreeSet<IpAddr> =
            cluster.into_iter().chain(endpoints.filter_map(|text| text.parse().ok())).collect();
        for address in &now {
            self.by_address.entry(*address).or_default().insert(key.clone());
        }
        self.addresses.insert(key.clone(), now);
    }
}

/// The Service's own addresses; none for a headless one.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let listed: Vec<IpAddr> =
        spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect();
    if listed.is_empty() {
        return spec.cluster_ip.iter().filter_map(|text| text.parse().ok()).collect();
    }
    listed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn slice(name: &str, service: &str, address: &str) -> EndpointSlice {
        of(json!({
            "metadata": {
                "namespace": "shop", "name": name, "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4", "endpoints": [{ "addresses": [address] }], "ports": [],
        }))
    }

    fn service(name: &str, more: Value) -> Service {
        let mut service = json!({
            "metadata": { "namespace": "shop", "name": name }, "spec": { "clusterIP": "10.96.0.7" },
        });
        service["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(service)
    }

    fn at(catalog: &Catalog, address: &str) -> Vec<String> {
        catalog.at(address.parse().unwrap()).map(|(_, name)| name.clone()).collect()
    }

    #[test]
    fn a_slice_that_changes_hands_concerns_both_services() {
        let mut catalog = Catalog::default();
        catalog.apply_service(service("a", json!({})));
        catalog.apply_slice(slice("s1", "a", "10.0.0.1"));
        assert_eq!(at(&catalog, "10.0.0.1"), ["a"]);
        let changed = catalog.apply_slice(slice("s1", "b", "10.0.0.1"));
        let names: Vec<&str> = changed.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(at(&catalog, "10.0.0.1").is_empty(), "b is not there yet");
        assert_eq!(at(&catalog, "10.96.0.7"), ["a"]);
        catalog.apply_service(service("b", json!({})));
        assert_eq!(at(&catalog, "10.0.0.1"), ["b"]);
    }

    #[test]
    fn a_reset_names_what_was_there_and_is_no_more() {
        let mut catalog = Catalog::default();
        catalog.apply_service(service("a", json!({})));
        let changed = catalog.reset_services(vec![service("b", json!({}))]);
        assert_eq!(changed.len(), 2);
        assert_eq!(at(&catalog, "10.96.0.7"), ["b"]);
    }

    #[test]
    fn the_agent_serves_only_for_services_without_a_selector() {
        let mut catalog = Catalog::default();
        let key = ("shop".to_owned(), "dns".to_owned());
        catalog.serve(key.clone(), slice("own", "dns", "192.0.2.1"));
        catalog.apply_service(service("dns", json!({})));
        assert_eq!(catalog.slices(&key)[0].metadata.name.as_deref(), Some("own"));
        catalog.apply_service(service("dns", json!({ "selector": { "app": "coredns" } })));
        assert!(catalog.slices(&key).is_empty());
    }
}
