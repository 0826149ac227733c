//! The task that hears of Services, endpoints, namespaces and nodes, and tells the proxy and cluster
//! DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{answers, is_cidr};
use crate::catalog::{Catalog, Key, key};
use crate::follow::{Change, follow};
use crate::proxy::Proxy;

/// Changes waiting to be taken in; the watches wait when it is full.
const EVENTS: usize = 256;
/// Between two looks whether the table is still there.
const CHECK_PERIOD: Duration = Duration::from_secs(10);

/// Namespace and name of the Service under which pods find cluster DNS.
pub const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Something was heard.
#[derive(Debug)]
enum Event {
    Services(Change<Service>),
    Slices(Change<EndpointSlice>),
    Namespaces(Change<Namespace>),
    Nodes(Change<Node>),
}

/// The ranges of pods' addresses, by node.
type Ranges = BTreeMap<String, String>;

/// Which lists came.
#[derive(Default)]
struct Heard {
    services: bool,
    slices: bool,
    namespaces: bool,
}

/// Hears and tells.
pub struct Services {
    node: String,
    catalog: Arc<RwLock<Catalog>>,
    proxy: Option<Proxy>,
    ranges: Ranges,
    own_range: watch::Sender<Option<String>>,
    /// The ranges of other nodes' pods.
    others: watch::Receiver<BTreeSet<String>>,
    /// The addresses of load balancers that this node answers for.
    answered: watch::Sender<Option<BTreeSet<Ipv4Addr>>>,
    heard: Heard,
    is_synced: bool,
}

impl Services {
    /// Fills `catalog`, tells `own_range` the range of this node's pods and `answered` the addresses
    /// it answers for, and drives `proxy`, if there is one.
    pub fn new(
        node: String,
        catalog: Arc<RwLock<Catalog>>,
        proxy: Option<Proxy>,
        own_range: watch::Sender<Option<String>>,
        others: watch::Receiver<BTreeSet<String>>,
        answered: watch::Sender<Option<BTreeSet<Ipv4Addr>>>,
    ) -> Self {
        Self {
            node,
            catalog,
            proxy,
            ranges: Ranges::new(),
            own_range,
            others,
            answered,
            heard: Heard::default(),
            is_synced: false,
        }
    }

    /// Works until `shutdown`. The rules stay in force after that.
    pub async fn run(mut self, client: kube::Client, shutdown: CancellationToken) {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        watch_all(&mut tasks, &client, &self.node, &sender, &shutdown);
        drop(sender);
        let mut ticks = tokio::time::interval(CHECK_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Every arm is cancel-safe: what was not received stays in its channel.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = events.recv() => {
                    let mut changed = self.take(event).await;
                    // What came meanwhile goes into the same transaction.
                    while let Ok(event) = events.try_recv() {
                        changed.extend(self.take(event).await);
                    }
                    self.sync(changed).await;
                }
                Ok(()) = self.others.changed() => self.tell_ranges().await,
                _ = ticks.tick() => self.check().await,
            }
        }
        events.close();
        tasks.shutdown().await;
    }

    async fn take(&mut self, event: Event) -> BTreeSet<Key> {
        match event {
            Event::Nodes(change) => {
                self.nodes(change).await;
                return BTreeSet::new();
            }
            Event::Namespaces(change) => {
                self.namespaces(change);
                return BTreeSet::new();
            }
            _ => {}
        }
        let mut catalog = self.catalog.write();
        match event {
            Event::Services(Change::Reset(all)) => {
                self.heard.services = true;
                catalog.reset_services(all)
            }
            Event::Services(Change::Apply(service)) => [catalog.apply_service(*service)].into(),
            Event::Services(Change::Delete(service)) => {
                let key = key(&service.metadata);
                catalog.delete_service(&key);
                [key].into()
            }
            Event::Slices(Change::Reset(all)) => {
                self.heard.slices = true;
                catalog.reset_slices(all)
            }
            Event::Slices(Change::Apply(slice)) => catalog.apply_slice(*slice),
            Event::Slices(Change::Delete(slice)) => catalog.delete_slice(&key(&slice.metadata)),
            Event::Namespaces(_) | Event::Nodes(_) => BTreeSet::new(),
        }
    }

    fn namespaces(&mut self, change: Change<Namespace>) {
        let mut catalog = self.catalog.write();
        match change {
            Change::Reset(all) => {
                self.heard.namespaces = true;
                catalog.reset_namespaces(all.into_iter().filter_map(|n| n.metadata.name));
            }
            Change::Apply(namespace) => {
                catalog.apply_namespace(namespace.metadata.name.unwrap_or_default());
            }
            Change::Delete(namespace) => {
                catalog.delete_namespace(&namespace.metadata.name.unwrap_or_default());
            }
        }
    }

    async fn nodes(&mut self, change: Change<Node>) {
        let mut ranges = self.ranges.clone();
        match change {
            Change::Reset(all) => ranges = all.iter().filter_map(range).collect(),
            Change::Apply(node) => ranges.extend(range(&node)),
            Change::Delete(node) => {
                ranges.remove(&node.metadata.name.unwrap_or_default());
            }
        }
        if ranges == self.ranges {
            return;
        }
        self.ranges = ranges;
        let own = self.ranges.get(&self.node).cloned();
        self.own_range.send_if_modified(|known| {
            let is_new = *known != own;
            known.clone_from(&own);
            is_new
        });
        self.tell_ranges().await;
    }

    /// What pods send to pods keeps its address, also on its way to other nodes.
    async fn tell_ranges(&mut self) {
        let own = self.ranges.get(&self.node).cloned();
        let mut all: BTreeSet<String> = self.others.borrow_and_update().clone();
        all.extend(self.ranges.values().cloned());
        if let Some(proxy) = &mut self.proxy {
            proxy.set_ranges(own.as_deref(), &all).await;
        }
    }

    /// Nothing is written before all is known: what is in force from before the agent's restart is
    /// better than half of it.
    async fn sync(&mut self, changed: BTreeSet<Key>) {
        if !self.heard.services || !self.heard.slices {
            return;
        }
        if self.heard.namespaces {
            self.catalog.write().complete();
        }
        self.tell_answered();
        let Some(proxy) = &mut self.proxy else { return };
        if self.is_synced {
            proxy.sync(&self.catalog, &changed).await;
            return;
        }
        let all: BTreeSet<Key> = self.catalog.read().keys().cloned().collect();
        proxy.begin();
        proxy.sync(&self.catalog, &all).await;
        self.is_synced = true;
        tracing::info!(services = all.len(), "Services are in force");
    }

    fn tell_answered(&self) {
        let now = Some(answers::wanted(&self.catalog.read(), &self.node));
        self.answered.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }

    async fn check(&mut self) {
        if let (Some(proxy), true) = (&mut self.proxy, self.is_synced) {
            proxy.check().await;
        }
    }
}

fn watch_all(
    tasks: &mut JoinSet<()>,
    client: &kube::Client,
    node: &str,
    sender: &mpsc::Sender<Event>,
    shutdown: &CancellationToken,
) {
    let (stop, all) = (shutdown.clone(), String::new());
    let services: Api<Service> = Api::all(client.clone());
    tasks.spawn(follow(services, all.clone(), sender.clone(), Event::Services, stop.clone()));
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    tasks.spawn(follow(slices, all.clone(), sender.clone(), Event::Slices, stop.clone()));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    tasks.spawn(follow(namespaces, all, sender.clone(), Event::Namespaces, stop.clone()));
    let nodes: Api<Node> = Api::all(client.clone());
    // A node reads no other's: what it must know of those it is told (`peers`).
    let own = format!("metadata.name={node}");
    tasks.spawn(follow(nodes, own, sender.clone(), Event::Nodes, stop));
}

fn range(node: &Node) -> Option<(String, String)> {
    let range = node.spec.as_ref()?.pod_cidr.clone().filter(|range| is_cidr(range))?;
    Some((node.metadata.name.clone()?, range))
}

/// The endpoint of cluster DNS on this node, where its resolver listens.
pub fn dns_slice(node: &str, resolver: SocketAddr) -> Option<(Key, EndpointSlice)> {
    let IpAddr::V4(address) = resolver.ip() else { return None };
    let (namespace, name) = DNS_SERVICE;
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": resolver.port(), "protocol": protocol });
    let slice = json!({
        "metadata": { "namespace": namespace, "name": format!("{name}-{node}") },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address.to_string()], "nodeName": node }],
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
    });
    let slice = serde_json::from_value(slice).ok()?;
    Some(((namespace.to_owned(), name.to_owned()), slice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::ports::{Place, promise};

    #[test]
    fn pods_find_cluster_dns_at_this_nodes_resolver() {
        let (key, slice) = dns_slice("n1", "192.0.2.7:5301".parse().unwrap()).unwrap();
        assert_eq!(key, ("kube-system".to_owned(), "kube-dns".to_owned()));
        let service = serde_json::from_value(json!({
            "metadata": { "namespace": "kube-system", "name": "kube-dns" },
            "spec": {
                "clusterIP": "10.96.0.10", "internalTrafficPolicy": "Local",
                "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }],
            },
        }))
        .unwrap();
        let place = Place { node: "n1".into(), zone: None };
        let promise = promise(&service, &[Arc::new(slice)], &place);
        assert_eq!(promise.ports[0].here[0].port, 5301);
    }
}
