//! The Node object: registered once, told about every few seconds, and its Lease renewed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::RwLock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::chain;
use crate::config::{AgentConfig, RuntimeChoice};
use crate::events::{Kind, Recorder};
use crate::evict::pressure::Pressure;
use crate::evict::signal::Condition;
use crate::network;
use crate::paths::Paths;
use crate::runtime::{Runtime, RuntimeStatus, RuntimeVersion};
use crate::status::whole_second;
use crate::system::{self, Capacity};

/// Namespace of the nodes' Leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Says where the control plane may make volumes on this node's disk.
const LOCAL_VOLUMES: &str = "kontiki/local-volumes";
/// Between two looks at the node's own state.
const LOOK: Duration = Duration::from_millis(500);
/// Wait after the API did not take something.
const RETRY: Duration = Duration::from_millis(500);
/// What events call a node that has just come under a condition, or out of it.
const EVENTS: [(Condition, [&str; 2]); 3] = [
    (Condition::Memory, ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"]),
    (Condition::Disk, ["NodeHasDiskPressure", "NodeHasNoDiskPressure"]),
    (Condition::Pid, ["NodeHasInsufficientPID", "NodeHasSufficientPID"]),
];
/// Images listed in the status.
const IMAGES_MAX: usize = 50;

/// The Node as the API showed it last, for whoever judges pods by its labels and taints.
#[derive(Clone, Debug, Default)]
pub struct KnownNode(Arc<RwLock<Option<Arc<Node>>>>);

impl KnownNode {
    /// The API shows this now.
    pub fn set(&self, node: Node) {
        *self.0.write() = Some(Arc::new(node));
    }

    /// None before the API has shown any.
    pub fn get(&self) -> Option<Arc<Node>> {
        self.0.read().clone()
    }
}

/// Tells the API about this node.
pub struct NodeReporter {
    /// How the agent was started.
    pub config: Arc<AgentConfig>,
    /// Where files go.
    pub paths: Paths,
    /// The runtime whose readiness is the node's.
    pub runtime: Arc<dyn Runtime>,
    /// Its name and version.
    pub version: RuntimeVersion,
    /// Port of the agent's server.
    pub port: u16,
    /// Where events go.
    pub recorder: Recorder,
    /// What the node is short of.
    pub pressure: Pressure,
    /// Where the Node goes as the API shows it.
    pub known: KnownNode,
}

impl NodeReporter {
    /// Registers the node and reports until `shutdown`.
    pub async fn run(self, client: kube::Client, shutdown: CancellationToken) {
        let api: Api<Node> = Api::all(client);
        let work = async {
            let node = self.register(&api).await;
            self.recorder.node(&node, Kind::Normal, "Starting", "Starting kubelet.");
            self.report(&api, node).await;
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Makes the Node, or finds the one made before and brings its labels up to date.
    async fn register(&self, api: &Api<Node>) -> Node {
        let name = &self.config.node_name;
        let node = self.new_node();
        loop {
            let labels = json!({ "metadata": {
                "labels": node.metadata.labels, "annotations": node.metadata.annotations,
            }});
            let outcome = match api.create(&PostParams::default(), &node).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.patch(name, &PatchParams::default(), &Patch::Merge(&labels)).await
                }
                outcome => outcome,
            };
            match outcome {
                Ok(node) => {
                    tracing::info!(node = %name, "registered");
                    self.known.set(node.clone());
                    return node;
                }
                Err(error) => tracing::debug!(error = chain(&error), "register the node again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn new_node(&self) -> Node {
        let mut labels = self.config.labels.clone();
        let name = &self.config.node_name;
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        // The old names are still what selectors of many charts go by, so upstream keeps both.
        for prefix in ["", "beta."] {
            let architecture = system::architecture().to_owned();
            labels.insert(format!("{prefix}kubernetes.io/os"), "linux".to_owned());
            labels.insert(format!("{prefix}kubernetes.io/arch"), architecture);
        }
        let folder = self.paths.local_volumes().display().to_string();
        let taints = &self.config.taints;
        Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: Some([(LOCAL_VOLUMES.to_owned(), folder)].into()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!taints.is_empty()).then(|| taints.clone()),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }

    /// Reports every few seconds, and at once when readiness changes.
    async fn report(&self, api: &Api<Node>, mut node: Node) {
        let mut told: Option<(RuntimeStatus, Under)> = None;
        let mut told_at = tokio::time::Instant::now();
        loop {
            self.configure_network(&node);
            let health = self.runtime.status().await.unwrap_or_else(|error| RuntimeStatus {
                message: format!("container runtime is down: {error}"),
                ..RuntimeStatus::default()
            });
            let capacity = system::capacity(self.paths.data());
            let now = (health, self.pressure.now());
            let waits_for_range = pod_cidr(&node).is_none();
            let due = told_at.elapsed() >= self.config.timers.node_status;
            if due || waits_for_range || told.as_ref() != Some(&now) {
                match self.tell(api, &node, &now.0, &now.1, &capacity).await {
                    Ok(newer) => {
                        self.announce(&node, &newer);
                        self.known.set(newer.clone());
                        node = newer;
                        told = Some(now);
                        told_at = tokio::time::Instant::now();
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        tracing::warn!("the node was deleted from the API: register it again");
                        node = self.register(api).await;
                        continue;
                    }
                    Err(error) => tracing::debug!(error = chain(&error), "status not taken"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn tell(
        &self,
        api: &Api<Node>,
        node: &Node,
        health: &RuntimeStatus,
        pressures: &Under,
        capacity: &Capacity,
    ) -> Result<Node, kube::Error> {
        let old = node.status.clone().unwrap_or_default();
        let images = self.runtime.images().await.unwrap_or_default();
        let status = NodeStatus {
            addresses: Some(self.addresses(node)),
            allocatable: Some(self.resources(capacity)),
            capacity: Some(self.resources(capacity)),
            conditions: Some(conditions(
                health,
                pressures,
                old.conditions.as_deref().unwrap_or_default(),
                Timestamp::now(),
            )),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.port) }),
            }),
            node_info: Some(system::info(&self.version)),
            images: Some(
                images
                    .into_iter()
                    .filter(|image| !image.tags.is_empty() || !image.digests.is_empty())
                    .take(IMAGES_MAX)
                    .map(|image| ContainerImage {
                        names: Some(image.digests.into_iter().chain(image.tags).collect()),
                        size_bytes: i64::try_from(image.size).ok(),
                    })
                    .collect(),
            ),
            ..NodeStatus::default()
        };
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&self.config.node_name, &PatchParams::default(), &patch).await
    }

    /// A change of what the node is short of is worth an event, as upstream.
    fn announce(&self, before: &Node, now: &Node) {
        let status = |node: &Node, condition: Condition| {
            let all = node.status.as_ref()?.conditions.as_ref()?.iter();
            let mut named = all.filter(|found| found.type_ == condition.name());
            named.next().map(|found| found.status.clone())
        };
        for (condition, [pressed, free]) in EVENTS {
            let told = status(now, condition);
            if told == status(before, condition) {
                continue;
            }
            let event = if told.as_deref() == Some("True") { pressed } else { free };
            let text = format!("Node {} status is now: {event}", self.config.node_name);
            self.recorder.node(now, Kind::Normal, event, text);
        }
    }

    /// Its own; where the node is a cloud's instance, those that the cloud has told.
    fn addresses(&self, node: &Node) -> Vec<NodeAddress> {
        let is_instance = node.spec.as_ref().is_some_and(|spec| spec.provider_id.is_some());
        let told = node.status.as_ref().and_then(|status| status.addresses.clone());
        if let Some(told) = told.filter(|told| is_instance && !told.is_empty()) {
            return told;
        }
        let address =
            |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
        vec![
            address("InternalIP", self.config.node_ip.to_string()),
            address("Hostname", self.config.node_name.clone()),
        ]
    }

    fn resources(&self, capacity: &Capacity) -> BTreeMap<String, Quantity> {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(capacity.cpus.to_string())),
            ("memory".to_owned(), Quantity(format!("{}Ki", capacity.memory_bytes / 1024))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", capacity.disk_bytes / 1024))),
            ("pods".to_owned(), Quantity(self.config.max_pods.to_string())),
        ])
    }

    /// Lays down the pods' network once the control plane has given the node its range.
    fn configure_network(&self, node: &Node) {
        if self.config.runtime != RuntimeChoice::Supervised {
            return;
        }
        let Some(range) = pod_cidr(node) else { return };
        match network::configure(&self.paths, range, self.config.service_proxy) {
            Ok(true) => tracing::info!(range, "pod network configured"),
            Ok(false) => {}
            Err(error) => tracing::error!(error = chain(&error), "pod network not configured"),
        }
    }
}

fn pod_cidr(node: &Node) -> Option<&str> {
    let spec = node.spec.as_ref()?;
    spec.pod_cidr.as_deref().filter(|range| network::is_cidr(range))
}

/// What a node is under.
type Under = BTreeSet<Condition>;

/// The conditions, in the kubelet's words; those of others stay.
fn conditions(
    health: &RuntimeStatus,
    under: &Under,
    old: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let ready = health.runtime_ready && health.network_ready;
    let verdicts = [
        (
            Condition::Memory,
            ["KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"],
            "memory available",
        ),
        (Condition::Disk, ["KubeletHasDiskPressure", "KubeletHasNoDiskPressure"], "disk pressure"),
        (Condition::Pid, ["KubeletHasInsufficientPID", "KubeletHasSufficientPID"], "PID available"),
    ];
    let mut all: Vec<NodeCondition> = verdicts
        .into_iter()
        .map(|(kind, reasons, what)| {
            let holds = under.contains(&kind);
            let quality = match (kind, holds) {
                (Condition::Disk, true) => "has",
                (Condition::Disk, false) => "has no",
                (_, true) => "has insufficient",
                (_, false) => "has sufficient",
            };
            let message = format!("kubelet {quality} {what}");
            condition(kind.name(), holds, reasons[usize::from(!holds)], message, old, now)
        })
        .collect();
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status".to_owned())
    } else {
        ("KubeletNotReady", health.message.clone())
    };
    all.push(condition("Ready", ready, reason, message, old, now));
    let others = old.iter().filter(|old| all.iter().all(|own| own.type_ != old.type_)).cloned();
    let others: Vec<_> = others.collect();
    all.extend(others);
    all
}

fn condition(
    type_: &str,
    holds: bool,
    reason: &str,
    message: String,
    old: &[NodeCondition],
    now: Timestamp,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let before = old.iter().find(|old| old.type_ == type_ && old.status == status);
    let now = Time(whole_second(now));
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: before
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(now)),
    }
}

/// Renews the node's Lease until `shutdown`. A renewal that fails is tried again soon, at another
/// server if need be, so that one lost server costs no heartbeat.
pub async fn renew_lease(
    client: kube::Client,
    config: Arc<AgentConfig>,
    shutdown: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let nodes: Api<Node> = Api::all(client);
    let mut known: Option<Lease> = None;
    loop {
        let renewal = renew(&leases, &nodes, &config, known.take());
        let renewal = tokio::select! {
            renewal = renewal => renewal,
            () = shutdown.cancelled() => return,
        };
        let wait = match renewal {
            Ok(lease) => {
                known = Some(lease);
                config.timers.lease_renew
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "the lease was not renewed");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn renew(
    leases: &Api<Lease>,
    nodes: &Api<Node>,
    config: &AgentConfig,
    known: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let name = &config.node_name;
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: i32::try_from(config.timers.lease_duration.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let known = match known {
        Some(known) => Some(known),
        None => leases.get_opt(name).await?,
    };
    if let Some(mut lease) = known {
        lease.spec = Some(spec);
        return leases.replace(name, &PostParams::default(), &lease).await;
    }
    let owner = nodes.get_opt(name).await?.and_then(|node| node.metadata.uid);
    let owner = owner.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    leases.create(&PostParams::default(), &lease).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(all: &'a [NodeCondition], type_: &str) -> &'a NodeCondition {
        all.iter().find(|condition| condition.type_ == type_).unwrap()
    }

    const FINE: Under = Under::new();

    #[test]
    fn a_node_is_ready_when_runtime_and_network_are() {
        let mut health = RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() };
        health.message = "cni plugin not initialized".into();
        let all = conditions(&health, &FINE, &[], Timestamp::UNIX_EPOCH);
        let ready = find(&all, "Ready");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref()),
            ("False", Some("KubeletNotReady"))
        );
        assert_eq!(ready.message.as_deref(), Some("cni plugin not initialized"));
        health.network_ready = true;
        let all = conditions(&health, &FINE, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(find(&all, "Ready").reason.as_deref(), Some("KubeletReady"));
    }

    #[test]
    fn times_of_change_stay_and_conditions_of_others_too() {
        let health =
            RuntimeStatus { runtime_ready: true, network_ready: true, message: String::new() };
        let first = conditions(&health, &FINE, &[], Timestamp::UNIX_EPOCH);
        let mut old = first.clone();
        old.push(NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            ..Default::default()
        });
        let later = Timestamp::from_second(100).unwrap();
        let second = conditions(&health, &[Condition::Disk].into(), &old, later);
        let epoch = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(find(&second, "Ready").last_transition_time, epoch);
        assert_eq!(find(&second, "Ready").last_heartbeat_time, Some(Time(later)));
        assert_eq!(find(&second, "DiskPressure").last_transition_time, Some(Time(later)));
        assert_eq!(find(&second, "DiskPressure").reason.as_deref(), Some("KubeletHasDiskPressure"));
        find(&second, "NetworkUnavailable");
    }
}
