//! Ways to nodes' pods, where the cloud's network must be told of them.
//!
//! Only routes within the pods' addresses are touched: whatever else a cloud lists is another's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{Part, Patch};
use parking_lot::Mutex;
use serde_json::json;

use super::backoff::Backoff;
use super::provider::{CloudError, Provider, Route, Routes};
use crate::controllers::events::EventRecorder;
use crate::controllers::node_lifecycle::health::{condition, seconds};
use crate::controllers::owners;
use crate::controllers::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// How often the cloud's routes are looked at though no node changes, as upstream.
const PERIOD: Duration = Duration::from_secs(10);
/// The one key: all routes.
const ALL: &str = "all";

/// What must be done about a cloud's routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ranges by node that no route leads to.
    create: Vec<(String, String)>,
    /// Routes that lead astray, or twice.
    delete: Vec<Route>,
    /// The nodes whose pods are reached.
    reached: BTreeSet<String>,
}

/// What must be done so that each node's pods are reached, and no others of `pods`.
pub fn plan(nodes: &[Arc<Node>], routes: &[Route], pods: (Ipv4Addr, u8)) -> Plan {
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for node in nodes {
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        let range = range.filter(|range| is_within(range, pods));
        wanted.extend(range.map(|range| (owners::name(&node.metadata).to_owned(), range)));
    }
    let mut plan = Plan::default();
    for route in routes.iter().filter(|route| is_within(&route.destination, pods)) {
        let leads = wanted.get(&route.node) == Some(&route.destination);
        if !leads || !plan.reached.insert(route.node.clone()) {
            plan.delete.push(route.clone());
        }
    }
    wanted.retain(|node, _| !plan.reached.contains(node));
    plan.create = wanted.into_iter().collect();
    plan
}

fn is_within(range: &str, (base, bits): (Ipv4Addr, u8)) -> bool {
    let parsed = range.split_once('/').and_then(|(address, own)| {
        Some((address.parse::<Ipv4Addr>().ok()?, own.parse::<u8>().ok().filter(|own| *own <= 32)?))
    });
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    parsed.is_some_and(|(address, own)| {
        own >= bits && address.to_bits() & mask == base.to_bits() & mask
    })
}

/// Sees to routes.
pub struct Ways {
    client: Client,
    provider: Arc<dyn Provider>,
    nodes: Arc<Informer<Node>>,
    pods: (Ipv4Addr, u8),
    backoff: Backoff<()>,
    /// What was made since and is not listed yet, as far as is known.
    promised: Mutex<BTreeSet<(String, String)>>,
    events: EventRecorder,
}

/// The controller, ready to run. The provider must have routes.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
    provider: Arc<dyn Provider>,
) -> Controller<Ways> {
    let nodes = context.informers.of::<Node>();
    let reconciler = Ways {
        client: context.client_of("route-controller"),
        provider,
        nodes: Arc::clone(&nodes),
        pods: context.settings.cluster_cidr,
        backoff: Backoff::default(),
        promised: Mutex::default(),
        events: events.of("route_controller"),
    };
    let range = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    Controller::new("route", context, begin, reconciler).workers(1).watch_changes(
        &nodes,
        move |seen| {
            let is_news = seen.old.map(range) != seen.new.map(range);
            is_news.then(|| ALL.to_owned()).into_iter().collect()
        },
    )
}

#[async_trait]
impl Reconcile for Ways {
    type Key = String;

    async fn reconcile(&self, _all: &String) -> Result<Next, ReconcileError> {
        let cloud = self.cloud();
        let nodes = self.nodes.list();
        let routes = match cloud.list().await {
            Ok(routes) => routes,
            Err(error) => return Ok(self.later(&error)),
        };
        let plan = plan(&nodes, &routes, self.pods);
        self.promised.lock().retain(|promise| plan.create.contains(promise));
        let mut failed = None;
        for route in &plan.delete {
            failed = cloud.delete(route).await.err().or(failed);
        }
        let mut reached = plan.reached;
        for (node, range) in &plan.create {
            match self.create(node, range).await {
                Ok(()) => drop(reached.insert(node.clone())),
                Err(error) => {
                    self.lament(node, range, &error);
                    failed = Some(error);
                }
            }
        }
        for node in &nodes {
            self.tell(node, reached.contains(owners::name(&node.metadata))).await?;
        }
        if let Some(error) = failed {
            return Ok(self.later(&error));
        }
        self.backoff.reset(&());
        // What was made is looked for: a cloud may forget.
        Ok(Next::After(PERIOD))
    }
}

impl Ways {
    fn cloud(&self) -> &dyn Routes {
        self.provider.routes().expect("the controller runs only where there are routes")
    }

    /// Makes a route. That it was made before, and is not listed, is a failure.
    async fn create(&self, node: &str, range: &str) -> Result<(), CloudError> {
        self.cloud().create(node, range).await?;
        if self.promised.lock().insert((node.to_owned(), range.to_owned())) {
            return Ok(());
        }
        Err(CloudError::Untrue("the route was made, and is not there".to_owned()))
    }

    fn later(&self, error: &CloudError) -> Next {
        let wait = self.backoff.failed(&(), error);
        tracing::warn!(%error, ?wait, "the cloud's routes are looked at again");
        Next::After(wait)
    }

    fn lament(&self, node: &str, range: &str, error: &CloudError) {
        if let Some(node) = self.nodes.get("", node) {
            let message = format!("Could not create route for {range}: {error}");
            self.events.warning(&*node, "FailedToCreateRoute", message);
        }
    }

    /// Says whether a node's pods are reached, where that is news.
    async fn tell(&self, node: &Node, is_reached: bool) -> Result<(), ReconcileError> {
        let name = owners::name(&node.metadata);
        let has_range = node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
        let status = if is_reached { "False" } else { "True" };
        let known = condition(node, "NetworkUnavailable");
        if !has_range || known.is_some_and(|known| known.status == status) {
            return Ok(());
        }
        let (reason, message) = if is_reached {
            ("RouteCreated", "RouteController created a route")
        } else {
            ("NoRouteCreated", "RouteController failed to create a route")
        };
        let now = seconds(Timestamp::now());
        let patch = Patch::Strategic(json!({ "status": { "conditions": [{
            "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now, "lastHeartbeatTime": now,
        }] } }));
        match self.client.patch::<Node>("", name, Part::Status, &patch).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("writing whether node {name} is reached"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);

    fn node(name: &str, range: &str) -> Arc<Node> {
        let value = json!({ "metadata": { "name": name }, "spec": { "podCIDR": range } });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn route(name: &str, node: &str, destination: &str) -> Route {
        Route { name: name.into(), node: node.into(), destination: destination.into() }
    }

    #[test]
    fn each_nodes_pods_are_reached_once_and_nothing_else_is_touched() {
        let nodes = [node("a", "10.244.0.0/24"), node("b", "10.244.1.0/24")];
        let routes = [
            route("1", "a", "10.244.0.0/24"),
            route("2", "a", "10.244.0.0/24"),
            route("3", "gone", "10.244.7.0/24"),
            route("4", "b", "10.244.9.0/24"),
            route("5", "somebody", "192.0.2.0/24"),
            route("6", "somebody", "10.0.0.0/8"),
            route("7", "somebody", "nonsense"),
        ];
        let plan = plan(&nodes, &routes, PODS);
        assert_eq!(plan.create, [("b".to_owned(), "10.244.1.0/24".to_owned())]);
        assert_eq!(plan.reached, ["a".to_owned()].into());
        let deleted: Vec<&str> = plan.delete.iter().map(|route| &*route.name).collect();
        assert_eq!(deleted, ["2", "3", "4"]);
    }
}
