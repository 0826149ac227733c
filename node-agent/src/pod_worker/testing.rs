//! A worker's surroundings in memory: a runtime, an API that can be down, and folders of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Secret,
};
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::allocations::{Amounts, Room};
use crate::api::Token;
use crate::events;
use crate::runtime::Dns;
use crate::runtime::fake::FakeRuntime;

/// Beyond this something hangs.
const AT_MOST: Duration = Duration::from_secs(30);
/// Between two looks, and between two nudges of the worker.
const POLL: Duration = Duration::from_millis(5);
/// What the node has for its pods.
pub(crate) const ROOM: Room = Room {
    amounts: Amounts { cpu_milli: 2000, memory_bytes: 1 << 30, disk_bytes: 1 << 30 },
    pods: 10,
};

/// The API as a worker sees it.
#[derive(Default)]
pub(crate) struct FakeApi {
    is_down: AtomicBool,
    is_deleted: AtomicBool,
    /// Every status written, in order.
    pub(crate) written: Mutex<Vec<PodStatus>>,
    /// The UIDs of the pods they were written to.
    pub(crate) told: Mutex<Vec<String>>,
    pub(crate) config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    pub(crate) secrets: Mutex<BTreeMap<String, Secret>>,
    pub(crate) node: Mutex<Option<Node>>,
    tokens: AtomicUsize,
    /// What happened, in order.
    pub(crate) calls: Mutex<Vec<&'static str>>,
}

impl FakeApi {
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    pub(crate) fn deleted(&self) -> bool {
        self.is_deleted.load(Ordering::SeqCst)
    }

    fn answers(&self) -> Result<(), ApiError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ApiError::Unreachable { act: "ask".into(), message: "down".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl PodApi for FakeApi {
    async fn write_status(&self, pod: &Pod, status: &PodStatus) -> Result<Pod, ApiError> {
        self.answers()?;
        self.calls.lock().push("status");
        self.told.lock().push(crate::api::uid(pod).to_owned());
        self.written.lock().push(status.clone());
        Ok(Pod { status: Some(status.clone()), ..pod.clone() })
    }

    async fn delete(&self, _: &Pod) -> Result<(), ApiError> {
        self.answers()?;
        self.calls.lock().push("delete");
        self.is_deleted.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn config_map(&self, _: &str, name: &str) -> Result<ConfigMap, ApiError> {
        self.answers()?;
        self.calls.lock().push("config map");
        let found = self.config_maps.lock().get(name).cloned();
        found.ok_or_else(|| ApiError::Gone(name.to_owned()))
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Secret, ApiError> {
        self.answers()?;
        let found = self.secrets.lock().get(name).cloned();
        found.ok_or_else(|| ApiError::Gone(name.to_owned()))
    }

    async fn claim(&self, _: &str, name: &str) -> Result<PersistentVolumeClaim, ApiError> {
        self.answers()?;
        Err(ApiError::Gone(name.to_owned()))
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ApiError> {
        self.answers()?;
        Err(ApiError::Gone(name.to_owned()))
    }

    async fn node(&self, name: &str) -> Result<Node, ApiError> {
        self.answers()?;
        let found = self.node.lock().clone();
        found.ok_or_else(|| ApiError::Gone(name.to_owned()))
    }

    async fn token(&self, _: &Pod, _: Option<&str>, seconds: i64) -> Result<Token, ApiError> {
        self.answers()?;
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let life = Duration::from_secs(u64::try_from(seconds).unwrap());
        Ok(Token { value: format!("token {number}"), expires_at: Timestamp::now() + life })
    }
}

/// One pod and everything around it.
pub(crate) struct Lab {
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) api: Arc<FakeApi>,
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Pod,
    _dir: TempDir,
    _events: events::Sender,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    nudges: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.nudges.abort();
        self.task.abort();
    }
}

impl Running {
    /// The runtime is silent from now on.
    pub(crate) fn hear_nothing(&self) {
        self.nudges.abort();
    }
}

impl Lab {
    /// With a runtime that has these images, and a pod with the one container `c` of `i:1`.
    pub(crate) fn new(images: &[&str]) -> Self {
        Self::with(images, &json!({ "containers": [{ "name": "c", "image": "i:1" }] }))
    }

    pub(crate) fn with(images: &[&str], spec: &serde_json::Value) -> Self {
        let timers = Timers {
            backoff_initial: Duration::from_millis(40),
            backoff_max: Duration::from_millis(200),
            ..Timers::default()
        };
        Self::with_timers(images, spec, timers)
    }

    pub(crate) fn with_timers(images: &[&str], spec: &serde_json::Value, timers: Timers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let runtime = Arc::new(FakeRuntime::with_images(images));
        let api = Arc::new(FakeApi::default());
        let (recorder, sender) = events::recorder("n1");
        let mut catalog = Catalog::default();
        catalog.complete();
        let context = Arc::new(Context {
            runtime: runtime.clone(),
            api: api.clone(),
            recorder,
            checkpoint: Checkpoint::open(&paths).unwrap(),
            allocations: Allocations::open(&paths, ROOM).unwrap(),
            known_node: KnownNode::default(),
            paths,
            pressure: Pressure::default(),
            node: NodeFacts {
                ip: "192.0.2.1".parse().unwrap(),
                cgroup_root: "/kontiki-no-such-cgroup".into(),
                memory_bytes: 1 << 30,
                cpu_milli: 2000,
                host_dns: Dns::default(),
                cluster_dns: None,
            },
            catalog: Arc::new(RwLock::new(catalog)),
            timers,
            pulls: Semaphore::new(1),
            archived: ["archived".to_owned()].into(),
        });
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": spec,
        }))
        .unwrap();
        Self { runtime, api, context, pod, _dir: dir, _events: sender }
    }

    /// A worker for the pod, nudged all the time as by a busy runtime.
    pub(crate) fn start(&self) -> Running {
        let pod = Arc::new(self.pod.clone());
        let (desired, receiver) =
            watch::channel(Desired { pod, gone: false, eviction: None, mirror: None });
        let (nudge, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
        let worker = Worker::new(self.context.clone(), receiver, nudge.clone());
        let task = tokio::spawn(worker.run(shutdown.clone()));
        let nudges = tokio::spawn(async move {
            loop {
                tokio::time::sleep(POLL).await;
                nudge.notify_one();
            }
        });
        Running { desired, shutdown, task, nudges }
    }

    /// Runs the pod, then goes away without it, as a killed agent does.
    pub(crate) async fn leave_behind(&self) {
        let worker = self.start();
        self.until("the pod is told to run", || self.phase() == "Running").await;
        worker.task.abort();
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(AT_MOST, wait).await;
        assert!(waited.is_ok(), "{what}: {:?}, {:?}", self.runtime.calls(), self.status());
    }

    /// The status last written.
    pub(crate) fn status(&self) -> PodStatus {
        self.api.written.lock().last().cloned().unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> String {
        self.status().phase.unwrap_or_default()
    }

    /// Why a container waited, in every status so far; repetitions left out.
    pub(crate) fn waited(&self, container: &str) -> Vec<String> {
        let written = self.api.written.lock();
        let mut reasons: Vec<String> = written
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
            .filter(|status| status.name == container)
            .filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
            .collect();
        reasons.dedup();
        reasons
    }
}

impl Running {
    /// Deletes the pod as the API would say it.
    pub(crate) fn delete(&self, grace_seconds: i64) {
        self.desired.send_modify(|desired| {
            let pod = Arc::make_mut(&mut desired.pod);
            let end = Timestamp::now() + Duration::from_secs(u64::try_from(grace_seconds).unwrap());
            let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(end);
            pod.metadata.deletion_timestamp = Some(time);
            pod.metadata.deletion_grace_period_seconds = Some(grace_seconds);
        });
    }

    /// Waits until nothing is left to do.
    pub(crate) async fn finished(&mut self) {
        let ended = tokio::time::timeout(AT_MOST, &mut self.task).await;
        ended.expect("the worker must come to an end").expect("it must not break");
    }
}
