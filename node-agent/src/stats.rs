//! What the node and its pods use of processors, memory, disk and network.
//!
//! A task takes a [`Sample`] every ten seconds, as the kubelet does: counters of containers from the
//! runtime, those of pods and of the node from the kernel's cgroups. Rates come from two samples. The
//! agent's server shows the last one; nothing is kept beyond it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::cgroups::{Qos, pod_cgroup};
use crate::paths::Paths;
use crate::pods::PodIndex;
use crate::runtime::{ContainerFigures, Runtime, SandboxFigures};
use crate::system;

pub mod cgroup;
pub mod exposition;
pub mod host;
pub mod summary;

use cgroup::{Counters, Tree};

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(10);
/// Before the second sample, so that there are rates soon.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
/// How long a container must have run before its rate is reckoned from its start alone.
const FRESH_MIN: Duration = Duration::from_secs(10);

/// What something used at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When that was.
    pub at: Timestamp,
    /// Processor time so far, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Processor time per second now, in nanoseconds; reckoned from two samples.
    pub nano_cores: Option<u64>,
    /// Memory.
    pub memory: Memory,
}

/// What something used of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes, caches included.
    pub usage_bytes: Option<u64>,
    /// Bytes that cannot be given back at once.
    pub working_set_bytes: Option<u64>,
    /// Bytes that no file stands behind.
    pub rss_bytes: Option<u64>,
    /// Page faults so far.
    pub page_faults: Option<u64>,
    /// Page faults so far that had to wait for a disk.
    pub major_page_faults: Option<u64>,
    /// Bytes it may use at most.
    pub limit_bytes: Option<u64>,
}

/// What went through a network interface so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Errors while sending.
    pub tx_errors: u64,
}

/// How often a cgroup was held back from the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which it wanted to run.
    pub periods: u64,
    /// Those in which it was held back.
    pub throttled: u64,
    /// For how long, in nanoseconds.
    pub throttled_ns: u64,
}

/// A container in a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Identity given by the runtime.
    pub id: String,
    /// Name within the pod.
    pub name: String,
    /// Its image, as the pod's status has it.
    pub image: String,
    /// Its cgroup.
    pub cgroup: String,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Processors and memory.
    pub usage: Usage,
    /// Throttling, where its cgroup is the kubelet's.
    pub throttling: Option<Throttling>,
    /// Bytes it wrote to its own layer.
    pub disk_bytes: Option<u64>,
    /// Files in its own layer.
    pub inodes: Option<u64>,
}

/// A pod in a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its cgroup.
    pub cgroup: String,
    /// When the agent saw it first.
    pub started_at: Option<Timestamp>,
    /// Processors and memory of all its containers and of the sandbox.
    pub usage: Usage,
    /// Its processes and threads.
    pub processes: Option<u64>,
    /// Its network, where it has one of its own.
    pub network: Vec<Interface>,
    /// Its containers.
    pub containers: Vec<ContainerUsage>,
}

/// What the node and its pods used at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Processors and memory of the machine.
    pub node: Usage,
    /// The pods, ordered by namespace and name.
    pub pods: Vec<PodUsage>,
    /// Why the runtime's figures are missing, where they are.
    pub error: Option<String>,
}

/// What samples are taken from.
#[derive(Clone)]
pub struct Sources {
    /// The pods of the node.
    pub index: PodIndex,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Where the agent's files are.
    pub paths: Paths,
    /// Under which cgroup pods stand.
    pub cgroup_root: String,
    /// Where the kernel shows its cgroups.
    pub cgroup_fs: PathBuf,
}

/// The last sample, for whoever asks.
#[derive(Clone, Default)]
pub struct Stats {
    last: Arc<RwLock<Option<Arc<Sample>>>>,
}

impl Stats {
    /// The last sample; none before the first.
    pub fn last(&self) -> Option<Arc<Sample>> {
        self.last.read().clone()
    }

    /// Takes samples until `shutdown`.
    pub async fn run(self, sources: Sources, shutdown: CancellationToken) {
        let mut period = FIRST_PERIOD;
        loop {
            // A sample cut off is taken anew by the next agent.
            let Some(sample) = shutdown.run_until_cancelled(take(&sources)).await else { return };
            let previous = self.last();
            let sample = with_rates(sample, previous.as_deref());
            *self.last.write() = Some(Arc::new(sample));
            let pause = tokio::time::sleep(period);
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
            period = PERIOD;
        }
    }
}

/// Asks the runtime and the kernel.
pub(crate) async fn take(sources: &Sources) -> Sample {
    let (containers, sandboxes) =
        tokio::join!(sources.runtime.container_figures(), sources.runtime.sandbox_figures());
    let error = containers.as_ref().err().map(|error| error.message.clone());
    // A runtime that has no figures of sandboxes leaves out the network, no more.
    let (containers, sandboxes) = (containers.unwrap_or_default(), sandboxes.unwrap_or_default());
    let index = sources.index.all();
    let (root, fs) = (sources.cgroup_root.clone(), sources.cgroup_fs.clone());
    // The kernel's files are many, and some are slow to be made.
    let measured = tokio::task::spawn_blocking(move || {
        let pods: HashMap<&str, &Arc<Pod>> =
            index.iter().map(|pod| (crate::api::uid(pod), pod)).collect();
        measure(grouped(containers, sandboxes, &pods, &root), &Tree::new(&fs), Timestamp::now())
    });
    let sample = measured.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a sample broke off");
        Sample::default()
    });
    Sample { error, ..sample }
}

/// Reads the counters of pods and of the node.
fn measure(mut pods: Vec<PodUsage>, tree: &Tree, now: Timestamp) -> Sample {
    for pod in pods.iter_mut().filter(|pod| !pod.cgroup.is_empty()) {
        let counters = tree.read(&pod.cgroup);
        pod.usage = counters.map_or_else(|| sum_of(&pod.containers, now), |c| c.at(now));
        pod.processes = tree.processes(&pod.cgroup);
        for container in &mut pod.containers {
            container.throttling = tree.throttling(&container.cgroup);
        }
    }
    let node = tree.read_root().map(|counters| counters.at(now));
    let node = node.unwrap_or_else(|| Usage { at: now, ..Usage::default() });
    Sample { node, pods, error: None }
}

/// The runtime's figures by pod.
fn grouped(
    containers: Vec<ContainerFigures>,
    sandboxes: Vec<SandboxFigures>,
    pods: &HashMap<&str, &Arc<Pod>>,
    cgroup_root: &str,
) -> Vec<PodUsage> {
    let mut by_uid: HashMap<String, PodUsage> = HashMap::new();
    for sandbox in sandboxes.into_iter().filter(|sandbox| !sandbox.interfaces.is_empty()) {
        let pod = by_uid.entry(sandbox.pod_uid).or_default();
        pod.network = sandbox.interfaces;
    }
    for figures in containers {
        let known: Option<&Pod> = pods.get(figures.pod_uid.as_str()).map(AsRef::as_ref);
        let pod = by_uid.entry(figures.pod_uid.clone()).or_default();
        if pod.name.is_empty() {
            pod.namespace.clone_from(&figures.pod_namespace);
            pod.name.clone_from(&figures.pod_name);
            pod.uid.clone_from(&figures.pod_uid);
            pod.cgroup = known
                .map(|pod| pod_cgroup(cgroup_root, Qos::of(pod), &figures.pod_uid))
                .unwrap_or_default();
            pod.started_at =
                known.and_then(|pod| Some(pod.status.as_ref()?.start_time.as_ref()?.0));
        }
        let cgroup = if pod.cgroup.is_empty() {
            String::new()
        } else {
            format!("{}/{}", pod.cgroup, figures.id)
        };
        pod.containers.push(container_usage(figures, known, cgroup));
    }
    // A sandbox alone is a pod that starts or ends: it uses nothing worth showing.
    let mut all: Vec<_> = by_uid.into_values().filter(|pod| !pod.containers.is_empty()).collect();
    all.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    for pod in &mut all {
        pod.containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    }
    all
}

fn container_usage(figures: ContainerFigures, pod: Option<&Pod>, cgroup: String) -> ContainerUsage {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let lists = status.map(|status| {
        [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ]
    });
    let status = lists.into_iter().flatten().flatten().flatten().find(|status| {
        let id = status.container_id.as_deref().unwrap_or_default();
        id.rsplit("://").next() == Some(figures.id.as_str())
    });
    ContainerUsage {
        image: status.map(|status| status.image.clone()).unwrap_or_default(),
        started_at: status.and_then(|status| {
            Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
        }),
        id: figures.id,
        name: figures.name,
        cgroup,
        usage: figures.usage,
        throttling: None,
        disk_bytes: figures.disk_bytes,
        inodes: figures.inodes,
    }
}

/// What the containers of a pod use together, where the pod's own cgroup cannot be read.
fn sum_of(containers: &[ContainerUsage], now: Timestamp) -> Usage {
    let sum = |of: fn(&Usage) -> Option<u64>| containers.iter().map(|c| of(&c.usage)).sum();
    let memory = Memory {
        usage_bytes: sum(|usage| usage.memory.usage_bytes),
        working_set_bytes: sum(|usage| usage.memory.working_set_bytes),
        rss_bytes: sum(|usage| usage.memory.rss_bytes),
        page_faults: sum(|usage| usage.memory.page_faults),
        major_page_faults: sum(|usage| usage.memory.major_page_faults),
        limit_bytes: None,
    };
    Counters { cpu_ns: sum(|usage| usage.cpu_ns), memory }.at(now)
}

/// Reckons the rates of a sample from the one before it.
fn with_rates(mut sample: Sample, previous: Option<&Sample>) -> Sample {
    let before = |uid: &str| previous?.pods.iter().find(|pod| pod.uid == uid);
    sample.node.nano_cores = rate(&sample.node, previous.map(|sample| &sample.node), None);
    for pod in &mut sample.pods {
        let old = before(&pod.uid);
        pod.usage.nano_cores = rate(&pod.usage, old.map(|pod| &pod.usage), pod.started_at);
        for container in &mut pod.containers {
            let old = old.and_then(|pod| pod.containers.iter().find(|old| old.id == container.id));
            let started_at = container.started_at;
            container.usage.nano_cores =
                rate(&container.usage, old.map(|container| &container.usage), started_at);
        }
    }
    sample
}

/// Processor time per second between two readings; since its start where there is but one.
fn rate(now: &Usage, before: Option<&Usage>, started_at: Option<Timestamp>) -> Option<u64> {
    let cpu_ns = now.cpu_ns?;
    let (from_ns, from) = match before.and_then(|usage| Some((usage.cpu_ns?, usage.at))) {
        // The runtime has not looked again: what was reckoned then still holds.
        Some((_, at)) if at >= now.at => return before?.nano_cores,
        // A counter that went back began anew.
        Some((ns, at)) if ns <= cpu_ns => (ns, at),
        Some(_) => return None,
        None => {
            let started_at = started_at?;
            let ran = Duration::try_from(now.at.duration_since(started_at)).ok()?;
            (ran >= FRESH_MIN).then_some((0, started_at))?
        }
    };
    let elapsed = u128::try_from(now.at.duration_since(from).as_nanos()).ok()?;
    let grown = u128::from(cpu_ns - from_ns) * 1_000_000_000;
    u64::try_from(grown.checked_div(elapsed)?).ok()
}

/// Bytes of the memory that are left, where there is a bound: `total` is the machine's.
fn available_bytes(memory: &Memory, total: Option<u64>) -> Option<u64> {
    let limit = total.or(memory.limit_bytes)?;
    Some(limit.saturating_sub(memory.working_set_bytes?))
}

/// The machine's memory, in bytes.
fn machine_memory(paths: &Paths) -> u64 {
    u64::try_from(system::capacity(paths.data()).memory_bytes).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests;
