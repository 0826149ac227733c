//! Node lifecycle: a node that falls silent becomes `Unknown`, what is wrong with a node becomes
//! taints, and its pods are no longer held for ready.
//!
//! ```text
//!   Lease, status ──► Heartbeats ──silent for too long──► conditions Unknown
//!                                                            │
//!   conditions, unschedulable ──► taints NoSchedule          ▼
//!   not ready ──► Zones (how fast, or not at all) ──► taint NoExecute ──► taint_eviction.rs
//! ```
//!
//! A node is looked at when it changes and when its grace ends. While it is not ready it is looked
//! at every monitor period, since what happens to it depends on how the other nodes fare.

pub mod health;
pub mod taints;
pub mod zones;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod, Taint};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{Part, Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::events::{EventRecorder, EventType};
use super::own_writes::OwnWrites;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{owners, pods};
use crate::leader_context::{LeaderContext, Settings};
use health::{Graces, Heartbeats, Readiness};
use taints::Eviction;
use zones::Zones;

/// The namespace of the nodes' Leases.
pub const LEASES: &str = "kube-node-lease";

/// Watches over nodes.
pub struct NodeLifecycle {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    own: OwnWrites<String, Node>,
    settings: Arc<Settings>,
    heartbeats: Arc<Heartbeats>,
    zones: Mutex<Zones>,
    /// The nodes whose pods were marked, with the moment from which on the node is not ready.
    marked: Mutex<HashMap<String, Option<Timestamp>>>,
    events: EventRecorder,
}

/// The controller, ready to run. Its keys are names of nodes.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<NodeLifecycle> {
    let nodes = context.informers.of::<Node>();
    let leases = context.informers.of::<Lease>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_node(&pods);
    let heartbeats = Arc::new(Heartbeats::default());
    let reconciler = NodeLifecycle {
        client: context.client_of("node-controller"),
        nodes: Arc::clone(&nodes),
        pods,
        own: OwnWrites::new(Arc::clone(&nodes)),
        settings: Arc::clone(&context.settings),
        heartbeats: Arc::clone(&heartbeats),
        zones: Mutex::new(Zones::new(context.settings.node_eviction_interval)),
        marked: Mutex::default(),
        events: events.of("node-controller"),
    };
    Controller::new("node-lifecycle", context, begin, reconciler)
        .watch(&nodes, |node| vec![owners::name(&node.metadata).to_owned()])
        .watch_changes(&leases, move |seen| renewed(&heartbeats, &seen))
}

/// Hears a renewal. It alone changes nothing about the node, so no key follows.
fn renewed(heartbeats: &Heartbeats, seen: &Seen<'_, Lease>) -> Vec<String> {
    if let Some(lease) = seen.new.filter(|lease| owners::namespace(&lease.metadata) == LEASES) {
        let at = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        heartbeats.renewed(owners::name(&lease.metadata), at, Instant::now());
    }
    Vec::new()
}

#[async_trait]
impl Reconcile for NodeLifecycle {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        self.own.seen(name).await?;
        let Some(node) = self.nodes.get("", name) else {
            self.forget(name);
            return Ok(Next::OnChange);
        };
        self.greet(&node);
        let now = Instant::now();
        let heard = self.heartbeats.observe(&node, now);
        let graces = self.graces();
        let node = match health::plan(&node, heard, graces, now, Timestamp::now()) {
            Some(conditions) => self.write_conditions(name, &node, conditions).await?,
            None => node,
        };
        let readiness = Readiness::of(&node);
        let eviction = self.eviction(name, &node, readiness, now);
        if let Some(taints) = taints::plan(&node, readiness, eviction, Timestamp::now()) {
            self.write_taints(name, &node, &taints).await?;
        }
        if readiness.is_down() {
            self.mark_pods(name, &node).await?;
            return Ok(Next::After(self.settings.node_monitor_period));
        }
        self.marked.lock().remove(name);
        Ok(health::next_look(&node, heard, graces, now).into())
    }
}

impl NodeLifecycle {
    /// Says that a node is new. One that was there before the term began is not news.
    fn greet(&self, node: &Node) {
        let name = owners::name(&node.metadata);
        if self.heartbeats.knows(name) {
            return;
        }
        let age = node.metadata.creation_timestamp.as_ref();
        let age = age.map(|created| Timestamp::now().duration_since(created.0));
        if age.is_some_and(|age| age < SignedDuration::from_secs(60)) {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.events.normal(node, "RegisteredNode", message);
        }
    }

    fn graces(&self) -> Graces {
        Graces {
            running: self.settings.node_monitor_grace,
            starting: self.settings.node_startup_grace,
        }
    }

    fn forget(&self, name: &str) {
        self.marked.lock().remove(name);
        self.zones.lock().delete(name);
        let Some(uid) = self.heartbeats.forget(name) else { return };
        let node = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        let message = format!("Node {name} event: Removing Node {name} from Controller");
        self.events.record(node, EventType::Normal, "RemovingNode", message);
    }

    async fn write_conditions(
        &self,
        name: &String,
        node: &Node,
        conditions: Vec<NodeCondition>,
    ) -> Result<Arc<Node>, ReconcileError> {
        let was_ready = Readiness::of(node) == Readiness::Ready;
        let mut changed = node.clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        // With its resourceVersion: a node that speaks just now is not called silent.
        let written = self.client.update_status(&changed).await;
        let written = written.during(|| format!("writing the conditions of node {name}"))?;
        self.own.wrote(name, &written);
        if was_ready {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.normal(&written, "NodeNotReady", message);
        }
        Ok(Arc::new(written))
    }

    /// Whether the node's pods shall be driven off now.
    fn eviction(&self, name: &str, node: &Node, readiness: Readiness, now: Instant) -> Eviction {
        let mut zones = self.zones.lock();
        if zones.is_empty() {
            zones.reset(&self.nodes.list());
        }
        if zones.apply(node) == zones::Turn::Recovered {
            self.heartbeats.restart(now);
        }
        let since = self.heartbeats.down_since(name, readiness, now);
        let Some(since) = since else { return Eviction::Later };
        if zones.all_are_down() {
            return Eviction::Never;
        }
        let is_settled = now.duration_since(since) >= self.settings.node_monitor_period;
        if is_settled && taints::wants_turn(node, readiness) && zones.take_turn(node, now) {
            return Eviction::Now;
        }
        Eviction::Later
    }

    async fn write_taints(
        &self,
        name: &String,
        node: &Node,
        taints: &[Taint],
    ) -> Result<(), ReconcileError> {
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        }));
        let written = self.client.patch::<Node>("", name, Part::Main, &patch).await;
        let written = written.during(|| format!("writing the taints of node {name}"))?;
        self.own.wrote(name, &written);
        Ok(())
    }

    /// Marks the pods of a node that is not ready any more: once, for a node that lives may say
    /// otherwise.
    async fn mark_pods(&self, name: &str, node: &Node) -> Result<(), ReconcileError> {
        let since = health::condition(node, "Ready")
            .and_then(|ready| ready.last_transition_time.as_ref())
            .map(|time| time.0);
        if self.marked.lock().get(name) == Some(&since) {
            return Ok(());
        }
        let ready: Vec<Arc<Pod>> =
            pods::on_node(&self.pods, name).into_iter().filter(|pod| pods::is_ready(pod)).collect();
        for outcome in join_all(ready.iter().map(|pod| self.mark_pod(pod))).await {
            outcome?;
        }
        self.marked.lock().insert(name.to_owned(), since);
        Ok(())
    }

    async fn mark_pod(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let (namespace, name) = (owners::namespace(&pod.metadata), owners::name(&pod.metadata));
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": {
                "conditions": [{
                    "type": "Ready",
                    "status": "False",
                    "lastTransitionTime": health::seconds(Timestamp::now()),
                }],
            }
        }));
        match self.client.patch::<Pod>(namespace, name, Part::Status, &patch).await {
            Ok(pod) => {
                self.events.warning(&pod, "NodeNotReady", "Node is not ready");
                Ok(())
            }
            // Gone, or another pod of the same name by now.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("marking pod {namespace}/{name} as not ready"))
            }
        }
    }
}
