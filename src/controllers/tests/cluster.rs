//! A control plane in this process, and nodes that run what is bound to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::{Change, Informer};
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, ListOptions, Part, Patch};
use kontiki_api::server::{ApiConfig, ApiServer};
use kontiki_api::status::Status;
use kontiki_storage::kv::{Kv, Term};
use kontiki_storage::local::LocalKv;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::controllers::api_services::availability::DiscoveryCheck;
use crate::controllers::autoscale::measure::MetricsApi;
use crate::controllers::local_path::{self, VolumeFolders};
use crate::controllers::{self, owners, pods};
use crate::leader_context::{LeaderContext, Settings};
use crate::pki::Authority;
use crate::scheduler;

/// How long a condition is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Aggregated API servers that all say the same.
#[derive(Default)]
pub(super) struct Aggregated {
    /// Why they do not answer; empty where they do.
    pub(super) refusal: Mutex<String>,
}

#[async_trait]
impl DiscoveryCheck for Aggregated {
    async fn check(&self, _service: &Object) -> Result<(), String> {
        let why = self.refusal.lock().clone();
        if why.is_empty() { Ok(()) } else { Err(why) }
    }
}

/// The cluster of one test.
pub(super) struct Cluster {
    pub(super) client: Client,
    server: ApiServer,
    settings: Settings,
    pub(super) folders: Arc<Folders>,
    pub(super) aggregated: Arc<Aggregated>,
    pub(super) used: Arc<Used>,
    tasks: Option<(CancellationToken, Vec<JoinHandle<()>>)>,
    nodes: (CancellationToken, JoinHandle<()>),
    /// The uids of all pods there ever were.
    pub(super) created: Arc<Mutex<BTreeSet<String>>>,
}

impl Cluster {
    pub(super) async fn with_nodes(names: &[&str]) -> Self {
        // These nodes send no heartbeats, and are never held for dead.
        let settings = Settings {
            root_ca_pem: "a certificate".to_owned(),
            node_monitor_grace: Duration::from_secs(3600),
            ..Settings::default()
        };
        Self::new(names, settings).await
    }

    pub(super) async fn new(names: &[&str], settings: Settings) -> Self {
        Self::over(Arc::new(LocalKv::in_memory()), names, settings).await
    }

    /// A cluster over that store.
    pub(super) async fn over(kv: Arc<dyn Kv>, names: &[&str], settings: Settings) -> Self {
        let server = ApiServer::new(kv, ApiConfig::default()).unwrap();
        server.bootstrap(&server.client()).await.unwrap();
        let client = server.client();
        let created = Arc::new(Mutex::default());
        let stop = CancellationToken::new();
        let pods = server.informers().of::<Pod>();
        let kubelets =
            tokio::spawn(run_kubelets(client.clone(), pods, Arc::clone(&created), stop.clone()));
        let nodes = (stop, kubelets);
        let folders = Arc::default();
        let aggregated = Arc::default();
        let used = Arc::new(Used { client: client.clone(), memory: Mutex::default() });
        let tasks = None;
        let mut cluster =
            Self { client, server, settings, folders, aggregated, used, tasks, nodes, created };
        if cluster.client.get::<Namespace>("", "default").await.is_err() {
            cluster.add_namespace("default").await;
        }
        for name in names {
            cluster.add_node(name, "4").await;
        }
        cluster.lead();
        cluster
    }

    /// Begins to lead: scheduler and controllers start.
    pub(super) fn lead(&mut self) {
        self.lead_in(Term(1));
    }

    /// The same in that term.
    pub(super) fn lead_in(&mut self, term: Term) {
        let token = CancellationToken::new();
        let context = LeaderContext {
            client: self.client.fenced(term),
            informers: self.server.informers(),
            token: token.clone(),
            settings: Arc::new(self.settings.clone()),
            folders: Arc::clone(&self.folders) as Arc<dyn VolumeFolders>,
            aggregated: Arc::clone(&self.aggregated) as Arc<dyn DiscoveryCheck>,
            metrics_api: Arc::clone(&self.used) as Arc<dyn MetricsApi>,
            signer: Arc::new(Authority::create("test").unwrap()),
            metrics: Arc::default(),
        };
        let tasks = vec![
            tokio::spawn(controllers::run(context.clone())),
            tokio::spawn(scheduler::run(context)),
        ];
        self.tasks = Some((token, tasks));
    }

    /// Stops to lead, and waits until everything has ended.
    pub(super) async fn stop_leading(&mut self) {
        let Some((token, tasks)) = self.tasks.take() else { return };
        token.cancel();
        for task in tasks {
            tokio::time::timeout(DEADLINE, task)
                .await
                .expect("the leader's tasks must end")
                .unwrap();
        }
    }

    pub(super) async fn stop(mut self) {
        self.stop_leading().await;
        self.nodes.0.cancel();
        self.nodes.1.await.unwrap();
        self.server.informers().shutdown().await;
    }

    pub(super) async fn add_namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        )
        .unwrap();
        self.create(&namespace).await;
    }

    pub(super) async fn add_node(&self, name: &str, cpu: &str) {
        let node: Node = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": { "kubernetes.io/hostname": name },
                "annotations": { local_path::FOLDER: "/volumes" },
            },
        }))
        .unwrap();
        self.create(&node).await;
        let amounts = json!({ "cpu": cpu, "memory": "8Gi", "pods": "110" });
        let status = Patch::Merge(json!({
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            }
        }));
        self.client.patch::<Node>("", name, Part::Status, &status).await.unwrap();
    }

    /// Renews the Leases of these nodes, as their agents would.
    pub(super) async fn beat(&self, names: &[&str]) {
        for name in names {
            let lease: Lease = serde_json::from_value(json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": name, "namespace": "kube-node-lease" },
                "spec": {
                    "holderIdentity": name,
                    "renewTime": MicroTime(Timestamp::now()),
                },
            }))
            .unwrap();
            let patch = Patch::Merge(json!({ "spec": lease.spec }));
            let renewed =
                self.client.patch::<Lease>("kube-node-lease", name, Part::Main, &patch).await;
            if renewed.is_err() {
                self.create(&lease).await;
            }
        }
    }

    pub(super) async fn create<K: ApiType>(&self, object: &K) -> K {
        self.client.create(object).await.unwrap()
    }

    pub(super) async fn list<K: ApiType>(&self, namespace: &str) -> Vec<K> {
        self.client.list::<K>(namespace, &ListOptions::default()).await.unwrap()
    }

    pub(super) async fn patch<K: ApiType>(&self, name: &str, patch: Value) {
        self.client.patch::<K>("default", name, Part::Main, &Patch::Merge(patch)).await.unwrap();
    }

    pub(super) async fn json_patch<K: ApiType>(&self, name: &str, patch: Value) {
        self.client.patch::<K>("default", name, Part::Main, &Patch::Json(patch)).await.unwrap();
    }

    /// The images of the active pods.
    pub(super) async fn images(&self) -> Vec<String> {
        let pods = self.list::<Pod>("default").await;
        let active = pods.into_iter().filter(pods::is_active);
        active.filter_map(|pod| pod.spec?.containers.pop()?.image).collect()
    }

    pub(super) async fn pod_uids(&self) -> BTreeSet<String> {
        let pods = self.list::<Pod>("default").await;
        pods.into_iter().filter_map(|pod| pod.metadata.uid).collect()
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if let Ok(found) = tokio::time::timeout(DEADLINE, found).await {
            return found;
        }
        panic!("{what}: not within {DEADLINE:?}; pods: {:#?}", self.list::<Pod>("").await)
    }

    /// Waits until a deployment is as it shall be, as `kubectl rollout status` does.
    pub(super) async fn until_complete(&self, name: &str) -> Deployment {
        self.until("the rollout is complete", async || {
            let deployment = self.client.get::<Deployment>("default", name).await.ok()?;
            let status = deployment.status.clone()?;
            let wanted = deployment.spec.as_ref()?.replicas;
            let is_complete = status.observed_generation >= deployment.metadata.generation
                && status.updated_replicas == wanted
                && status.replicas == wanted
                && status.available_replicas == wanted;
            is_complete.then_some(deployment)
        })
        .await
    }
}

/// The folders that were removed, as `node:folder`.
#[derive(Default)]
pub(super) struct Folders(pub(super) Mutex<Vec<String>>);

#[async_trait]
impl VolumeFolders for Folders {
    async fn remove(&self, node: &Node, volume: &PersistentVolume) -> Result<(), Status> {
        let folder = local_path::leaf_of(volume).unwrap_or_default();
        self.0.lock().push(format!("{}:{folder}", owners::name(&node.metadata)));
        Ok(())
    }
}

/// What every pod uses of memory; where it is nothing, nobody measures.
pub(super) struct Used {
    client: Client,
    pub(super) memory: Mutex<String>,
}

#[async_trait]
impl MetricsApi for Used {
    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Status> {
        let ["apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods"] = path else {
            return Err(Status::no_such_path());
        };
        let memory = self.memory.lock().clone();
        if memory.is_empty() {
            return Ok(json!({ "items": [] }));
        }
        let selector = query.iter().find(|(key, _)| *key == "labelSelector").expect("a selector").1;
        let pods = self.client.list::<Pod>(namespace, &ListOptions::labels(selector)).await?;
        let item = |pod: Pod| {
            json!({
                "metadata": { "name": pod.metadata.name }, "window": "10s",
                "timestamp": Timestamp::now().to_string(),
                "containers": [{ "name": "main", "usage": { "memory": memory } }],
            })
        };
        Ok(json!({ "items": pods.into_iter().map(item).collect::<Vec<_>>() }))
    }
}

/// Runs what is bound, and ends what is deleted.
async fn run_kubelets(
    client: Client,
    informer: Arc<Informer<Pod>>,
    created: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
) {
    let mut changes = informer.subscribe();
    let mut change = Some(Change::Resync);
    while let Some(this) = change {
        let seen = match this {
            Change::Added(pod) | Change::Updated { new: pod, .. } => vec![pod],
            Change::Deleted(_) => vec![],
            Change::Resync => informer.list(),
        };
        for pod in seen {
            created.lock().insert(owners::uid(&pod.metadata).to_owned());
            run_pod(&client, &pod).await;
        }
        change = stop.run_until_cancelled(changes.recv()).await.flatten();
    }
}

async fn run_pod(client: &Client, pod: &Pod) {
    let (namespace, name) = (owners::namespace(&pod.metadata), owners::name(&pod.metadata));
    if pods::node_name(pod).is_none() {
        return;
    }
    if pods::is_terminating(pod) {
        let options = DeleteOptions::of_uid(owners::uid(&pod.metadata)).within(0);
        drop(client.delete::<Pod>(namespace, name, &options).await);
    } else if pods::phase(pod) == "Pending" {
        let now = jiff::Timestamp::now().to_string();
        let status = Patch::Strategic(json!({
            "status": {
                "phase": "Running",
                "podIP": "10.244.0.9",
                "podIPs": [{ "ip": "10.244.0.9" }],
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }],
            }
        }));
        drop(client.patch::<Pod>(namespace, name, Part::Status, &status).await);
    }
}

pub(super) fn deployment(name: &str, replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": image }] },
            },
        },
    }))
    .unwrap()
}

/// The class that claims have where nothing else is said.
pub(super) fn local_path_class() -> StorageClass {
    serde_json::from_value(json!({
        "metadata": {
            "name": "local-path",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": local_path::PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer",
    }))
    .unwrap()
}

pub(super) fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "main", "image": "web:1" }] },
    }))
    .unwrap()
}

pub(super) fn service(name: &str) -> Service {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
    .unwrap()
}
