//! The load of pods that want nodes: how long until all have one, on so many hollow nodes.
//!
//! Pods are created as fast as the API takes them, while a watch sees each get its node. What is
//! measured begins with the first creation and ends with the last binding.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::hollow::api::{Api, Events};
use crate::hollow::node::{LABEL, Shape};
use crate::hollow::pods::Life;
use crate::hollow::{self, Config};

const NAMESPACE: &str = "kontiki-bench-schedule";
const PODS: &str = "/api/v1/namespaces/kontiki-bench-schedule/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/kontiki-bench-schedule/deployments";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
/// Creations under way at the same time.
const CREATES_MAX: usize = 64;
/// Between two looks at whether what was made is gone.
const POLL: Duration = Duration::from_millis(200);
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// Which pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mix {
    /// Pods with requests and nothing else.
    Plain,
    /// Pods that no node may have two of; at most as many as there are nodes.
    AntiAffinity,
    /// Pods that are spread over zones and hosts.
    Spread,
    /// Pods for which others must go; at most as many as there are nodes.
    Preemption,
    /// One Deployment of that many replicas.
    Deployment,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::AntiAffinity => "anti-affinity",
            Self::Spread => "spread",
            Self::Preemption => "preemption",
            Self::Deployment => "deployment",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How many nodes.
    pub nodes: usize,
    /// How many pods.
    pub pods: usize,
    /// Which.
    pub mix: Mix,
    /// How long it may take.
    pub deadline: Duration,
}

/// What a run came to; times in seconds from the first creation.
#[derive(Debug, Clone, Serialize)]
pub struct Placed {
    /// Which pods.
    pub mix: Mix,
    /// How many nodes.
    pub nodes: usize,
    /// How many pods.
    pub pods: usize,
    /// Until all were created; with a Deployment, until it was.
    pub created_seconds: f64,
    /// Until the first had its node.
    pub first_bound_seconds: f64,
    /// Until the last had.
    pub bound_seconds: f64,
    /// Until all ran.
    pub running_seconds: f64,
    /// Pods bound a second, from the first creation to the last binding.
    pub per_second: f64,
}

/// Runs it on a cluster whose own nodes take no part.
pub async fn run(api: &Arc<Api>, run: Run) -> anyhow::Result<Placed> {
    let run = match run.mix {
        Mix::AntiAffinity | Mix::Preemption => Run { pods: run.pods.min(run.nodes), ..run },
        _ => run,
    };
    let config = Arc::new(Config {
        nodes: run.nodes,
        shape: Shape::default(),
        life: Life::default(),
        lease_period: Duration::from_secs(10),
        status_period: Duration::from_secs(300),
    });
    let stop = CancellationToken::new();
    let nodes = populate(api, &config, &stop).await?;
    let until = Instant::now() + run.deadline;
    let placed = place(api, run, until).await;
    let cleaned = clean_up(api, Instant::now() + run.deadline).await;
    stop.cancel();
    nodes.await??;
    hollow::remove(api, run.nodes).await?;
    let placed = placed?;
    cleaned.context("remove what was measured")?;
    Ok(placed)
}

/// Registers the nodes, and keeps them alive until `stop`.
async fn populate(
    api: &Arc<Api>,
    config: &Arc<Config>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    hollow::register(api, config).await?;
    Ok(tokio::spawn(hollow::live(Arc::clone(api), Arc::clone(config), stop.clone())))
}

async fn place(api: &Arc<Api>, run: Run, until: Instant) -> anyhow::Result<Placed> {
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    api.create("/api/v1/namespaces", &namespace).await?;
    if run.mix == Mix::Preemption {
        for (name, value) in [("kontiki-bench-low", 0), ("kontiki-bench-high", 1000)] {
            let class = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": { "name": name }, "value": value,
            });
            api.create(CLASSES, &class).await?;
        }
        let mut seen = Seen::begin(api, "low").await?;
        create(api, run.nodes, filler).await?;
        seen.until_all(run.nodes, Instant::now(), until).await?;
    }
    let mut seen = Seen::begin(api, "measured").await?;
    let began = Instant::now();
    let creating = {
        let api = Arc::clone(api);
        tokio::spawn(async move {
            if run.mix == Mix::Deployment {
                api.create(DEPLOYMENTS, &deployment(run.pods)).await?;
            } else {
                create(&api, run.pods, move |index| pod(run.mix, index)).await?;
            }
            anyhow::Ok(began.elapsed())
        })
    };
    let times = seen.until_all(run.pods, began, until).await;
    let created = creating.await??;
    let times = times?;
    #[allow(clippy::cast_precision_loss, reason = "there are far fewer pods than 2^52")]
    let per_second = run.pods as f64 / times.last_bound.as_secs_f64();
    Ok(Placed {
        mix: run.mix,
        nodes: run.nodes,
        pods: run.pods,
        created_seconds: created.as_secs_f64(),
        first_bound_seconds: times.first_bound.as_secs_f64(),
        bound_seconds: times.last_bound.as_secs_f64(),
        running_seconds: times.last_running.as_secs_f64(),
        per_second,
    })
}

/// Creates so many pods, some at a time.
async fn create(api: &Arc<Api>, count: usize, pod: impl Fn(usize) -> Value) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(CREATES_MAX));
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for index in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.context("places are never closed")?;
        let (api, pod) = (Arc::clone(api), pod(index));
        tasks.spawn(async move {
            let created = api.create(PODS, &pod).await;
            drop(place);
            created
        });
        while let Some(ended) = tasks.try_join_next() {
            ended?.context("create a pod")?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?.context("create a pod")?;
    }
    Ok(())
}

/// When pods were seen.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    first_bound: Duration,
    last_bound: Duration,
    last_running: Duration,
}

/// The pods of a group as a watch sees them.
struct Seen {
    events: Events,
    bound: HashSet<String>,
    running: HashSet<String>,
}

impl Seen {
    async fn begin(api: &Api, group: &str) -> anyhow::Result<Self> {
        let path = format!("{PODS}?labelSelector=group%3D{group}&watch=true");
        let events = api.watch(&path).await.context("watch the pods")?;
        Ok(Self { events, bound: HashSet::new(), running: HashSet::new() })
    }

    /// Until so many have a node and run.
    async fn until_all(
        &mut self,
        count: usize,
        began: Instant,
        until: Instant,
    ) -> anyhow::Result<Times> {
        let mut times = Times::default();
        while self.running.len() < count {
            let Ok(event) = timeout_at(until, self.events.next()).await else {
                let (bound, running) = (self.bound.len(), self.running.len());
                bail!("not all of {count} pods in time: {bound} are bound, {running} run");
            };
            let event = event?.context("the watch of the pods ended")?;
            let now = began.elapsed();
            let text = |pointer: &str| event.object.pointer(pointer).and_then(Value::as_str);
            let Some(uid) = text("/metadata/uid") else { continue };
            if text("/spec/nodeName").is_some() && self.bound.insert(uid.to_owned()) {
                if self.bound.len() == 1 {
                    times.first_bound = now;
                }
                times.last_bound = now;
            }
            if text("/status/phase") == Some("Running") && self.running.insert(uid.to_owned()) {
                times.last_running = now;
            }
        }
        Ok(times)
    }
}

/// What all pods of a run have in common: they go to hollow nodes only.
fn base(name: &str, group: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "group": group } },
        "spec": {
            "nodeSelector": { LABEL: "true" },
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "hollow",
                "resources": { "requests": { "cpu": cpu, "memory": "64Mi" } },
            }],
        },
    })
}

fn pod(mix: Mix, index: usize) -> Value {
    let cpu = if mix == Mix::Preemption { "6" } else { "50m" };
    let mut pod = base(&format!("{}-{index:05}", mix.name()), "measured", cpu);
    let selector = json!({ "matchLabels": { "group": "measured" } });
    match mix {
        Mix::Plain | Mix::Deployment => {}
        Mix::AntiAffinity => {
            pod["spec"]["affinity"] = json!({ "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{
                    "topologyKey": HOST, "labelSelector": selector,
                }],
            } });
        }
        Mix::Spread => {
            pod["spec"]["topologySpreadConstraints"] = json!([
                { "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
                  "labelSelector": selector },
                { "maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway",
                  "labelSelector": selector },
            ]);
        }
        Mix::Preemption => pod["spec"]["priorityClassName"] = "kontiki-bench-high".into(),
    }
    pod
}

/// Takes a node up, and goes for the pods that are measured.
fn filler(index: usize) -> Value {
    let mut pod = base(&format!("low-{index:05}"), "low", "6");
    pod["spec"]["priorityClassName"] = "kontiki-bench-low".into();
    pod
}

fn deployment(replicas: usize) -> Value {
    let mut template = base("", "measured", "50m");
    template["metadata"] = json!({ "labels": { "group": "measured" } });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "measured", "namespace": NAMESPACE },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "group": "measured" } },
            "template": { "metadata": template["metadata"], "spec": template["spec"] },
        },
    })
}

/// Removes the pods, and waits until they are gone.
async fn clean_up(api: &Api, until: Instant) -> anyhow::Result<()> {
    api.delete(&format!("{DEPLOYMENTS}/measured"), None).await?;
    loop {
        api.delete(PODS, None).await?;
        let left = api.get(&format!("{PODS}?limit=1")).await?;
        if left["items"].as_array().is_none_or(Vec::is_empty) {
            break;
        }
        if Instant::now() >= until {
            bail!("there are pods left in {NAMESPACE}");
        }
        sleep(POLL).await;
    }
    api.delete(&format!("/api/v1/namespaces/{NAMESPACE}"), None).await?;
    loop {
        let left = api.get("/api/v1/namespaces").await?;
        let mut left = left["items"].as_array().into_iter().flatten();
        if !left.any(|one| one["metadata"]["name"] == NAMESPACE) {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("the namespace {NAMESPACE} does not go");
        }
        sleep(POLL).await;
    }
}

/// The figures for people; the last column is the cost of a pod against the smallest cluster of the
/// same mix.
pub fn table(all: &[Placed]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "MIX",
        "NODES",
        "PODS",
        "CREATED S",
        "FIRST BOUND S",
        "ALL BOUND S",
        "ALL RUN S",
        "PODS PER SECOND",
        "COST OF A POD",
    ]);
    for one in all {
        let of_mix = all.iter().filter(|other| other.mix == one.mix);
        let smallest = of_mix.min_by_key(|other| other.nodes).map_or(1.0, |one| one.per_second);
        table.add_row([
            one.mix.name().to_owned(),
            one.nodes.to_string(),
            one.pods.to_string(),
            format!("{:.2}", one.created_seconds),
            format!("{:.2}", one.first_bound_seconds),
            format!("{:.2}", one.bound_seconds),
            format!("{:.2}", one.running_seconds),
            format!("{:.0}", one.per_second),
            format!("x{:.2}", smallest / one.per_second),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hollow::stub::Stub;

    #[tokio::test]
    async fn each_node_is_registered_once() {
        let stub = Stub::start(|_, _| "{}".to_owned()).await;
        let config = Arc::new(Config {
            nodes: 3,
            shape: Shape::default(),
            life: Life::default(),
            lease_period: Duration::from_secs(3600),
            status_period: Duration::from_secs(3600),
        });
        let stop = CancellationToken::new();
        let nodes = populate(&Arc::new(stub.api()), &config, &stop).await.unwrap();
        let is_watched = || stub.asked().iter().any(|line| line.contains("watch=true"));
        while !is_watched() {
            sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        nodes.await.unwrap().unwrap();
        let made = stub.asked().iter().filter(|line| *line == "POST /api/v1/nodes").count();
        assert_eq!(made, 3);
    }
}
