//! `/stats/summary`: a sample as the kubelet's JSON document of that name.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::host::{self, Disk};
use super::{ContainerUsage, Interface, PodUsage, Sample, Usage, available_bytes, machine_memory};
use crate::paths::Paths;
use crate::system;

/// How much of it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// Processors and memory: what autoscaling needs.
    CpuAndMemory,
}

impl Extent {
    /// As the query of a request says.
    pub fn of_query(query: &str) -> Self {
        let is_short = query.split('&').any(|pair| pair == "only_cpu_and_memory=true");
        if is_short { Self::CpuAndMemory } else { Self::Whole }
    }
}

/// The document.
pub fn document(node: &str, sample: &Sample, paths: &Paths, extent: Extent) -> Value {
    let total = machine_memory(paths);
    let mut shown = usage(&sample.node, Some(total));
    shown.insert("nodeName".into(), node.into());
    shown.insert("systemContainers".into(), json!([]));
    set_time(&mut shown, "startTime", host::boot_time());
    if extent == Extent::Whole {
        let at = sample.node.at;
        set_some(&mut shown, "network", network(at, &host::interfaces()));
        let disk = host::disk(paths.data()).map(|disk| disk_json(at, disk));
        if let Some(disk) = &disk {
            shown.insert("runtime".into(), json!({ "imageFs": disk, "containerFs": disk }));
        }
        set_some(&mut shown, "fs", disk);
        let (processes, most) = system::free(paths.data()).pids;
        let rlimit = json!({ "time": time(at), "curproc": processes, "maxpid": most });
        shown.insert("rlimit".into(), rlimit);
    }
    let pods: Vec<Value> = sample.pods.iter().map(|one| pod(one, extent)).collect();
    json!({ "node": shown, "pods": pods })
}

fn pod(pod: &PodUsage, extent: Extent) -> Value {
    let mut shown = usage(&pod.usage, None);
    let reference = json!({ "name": pod.name, "namespace": pod.namespace, "uid": pod.uid });
    shown.insert("podRef".into(), reference);
    set_time(&mut shown, "startTime", pod.started_at);
    let containers: Vec<Value> = pod.containers.iter().map(|one| container(one, extent)).collect();
    shown.insert("containers".into(), containers.into());
    if extent == Extent::Whole {
        set_some(&mut shown, "network", network(pod.usage.at, &pod.network));
        let used: u64 = pod.containers.iter().filter_map(|one| one.disk_bytes).sum();
        let disk = json!({ "time": time(pod.usage.at), "usedBytes": used });
        shown.insert("ephemeral-storage".into(), disk);
    }
    shown.into()
}

fn container(container: &ContainerUsage, extent: Extent) -> Value {
    let mut shown = usage(&container.usage, None);
    shown.insert("name".into(), container.name.clone().into());
    set_time(&mut shown, "startTime", container.started_at);
    if extent == Extent::Whole {
        let mut disk = Map::from_iter([("time".into(), time(container.usage.at))]);
        set_some(&mut disk, "usedBytes", container.disk_bytes);
        set_some(&mut disk, "inodesUsed", container.inodes);
        shown.insert("rootfs".into(), disk.into());
    }
    shown.into()
}

/// The parts `cpu` and `memory`; `total` bounds what has no bound of its own.
fn usage(usage: &Usage, total: Option<u64>) -> Map<String, Value> {
    let mut cpu = Map::from_iter([("time".into(), time(usage.at))]);
    set_some(&mut cpu, "usageNanoCores", usage.nano_cores);
    set_some(&mut cpu, "usageCoreNanoSeconds", usage.cpu_ns);
    let mut memory = Map::from_iter([("time".into(), time(usage.at))]);
    set_some(&mut memory, "availableBytes", available_bytes(&usage.memory, total));
    set_some(&mut memory, "usageBytes", usage.memory.usage_bytes);
    set_some(&mut memory, "workingSetBytes", usage.memory.working_set_bytes);
    set_some(&mut memory, "rssBytes", usage.memory.rss_bytes);
    set_some(&mut memory, "pageFaults", usage.memory.page_faults);
    set_some(&mut memory, "majorPageFaults", usage.memory.major_page_faults);
    Map::from_iter([("cpu".into(), cpu.into()), ("memory".into(), memory.into())])
}

/// The first interface stands for all, and in the list of all.
fn network(at: Timestamp, all: &[Interface]) -> Option<Value> {
    let shown = |interface: &Interface| {
        json!({
            "name": interface.name,
            "rxBytes": interface.rx_bytes,
            "rxErrors": interface.rx_errors,
            "txBytes": interface.tx_bytes,
            "txErrors": interface.tx_errors,
        })
    };
    let mut network = shown(all.first()?);
    network["time"] = time(at);
    network["interfaces"] = all.iter().map(shown).collect();
    Some(network)
}

fn disk_json(at: Timestamp, disk: Disk) -> Value {
    json!({
        "time": time(at),
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.used_bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

fn set_some(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}

fn set_time(map: &mut Map<String, Value>, key: &str, at: Option<Timestamp>) {
    set_some(map, key, at.map(time));
}

/// Times are in whole seconds, as everywhere in Kubernetes.
fn time(at: Timestamp) -> Value {
    format!("{at:.0}").into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn the_short_form_has_processors_and_memory_alone() {
        let paths = Paths::new(std::path::Path::new("/"));
        let short = document("n1", &sample(), &paths, Extent::CpuAndMemory);
        assert_eq!(short["node"]["nodeName"], "n1");
        assert_eq!(short["node"].get("fs"), None);
        let pod = &short["pods"][0];
        assert_eq!(pod["podRef"]["name"], "web");
        assert_eq!(pod.get("network"), None);
        let container = &pod["containers"][0];
        assert_eq!(container["cpu"]["usageCoreNanoSeconds"], 4_000_000_000_u64);
        assert_eq!(container["cpu"]["time"], "2026-01-01T00:00:10Z");
        assert_eq!(container["memory"]["workingSetBytes"], 1 << 20);
        assert_eq!(container.get("rootfs"), None);
        let whole = document("n1", &sample(), &paths, Extent::of_query(""));
        assert_eq!(whole["pods"][0]["containers"][0]["rootfs"]["usedBytes"], 4096);
        assert_eq!(whole["pods"][0]["network"]["rxBytes"], 10);
        assert!(whole["node"]["fs"]["capacityBytes"].as_u64() > Some(0));
    }
}
