//! Where pods stand in the cgroup tree, and the numbers their bounds become. Names and formulas
//! are the kubelet's, so that tools that know them work here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;
use crate::runtime::Resources;

/// Where the kernel shows its cgroups.
const CGROUP_FS: &str = "/sys/fs/cgroup";
/// CPU time is dealt out in periods of this length.
const CPU_PERIOD_US: i64 = 100_000;
/// Least weight the kernel takes.
const CPU_SHARES_MIN: i64 = 2;
/// Most weight the kernel takes.
const CPU_SHARES_MAX: i64 = 262_144;
/// Shorter quotas are refused by the kernel.
const CPU_QUOTA_US_MIN: i64 = 1000;

/// Quality of service of a pod, from its requests and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// No container asks for anything.
    BestEffort,
}

impl Qos {
    /// The class the control plane wrote down, or else the one computed here.
    pub fn of(pod: &Pod) -> Self {
        let written = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
        match written {
            Some("Guaranteed") => Self::Guaranteed,
            Some("Burstable") => Self::Burstable,
            Some("BestEffort") => Self::BestEffort,
            _ => Self::computed(pod),
        }
    }

    fn computed(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::BestEffort };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let (mut any, mut all) = (false, true);
        for container in containers {
            for resource in ["cpu", "memory"] {
                let limit = resource_of(container, Bound::Limit, resource);
                let request = resource_of(container, Bound::Request, resource).or(limit);
                any |= limit.is_some() || request.is_some();
                all &= limit.is_some()
                    && request.and_then(quantity::milli) == limit.and_then(quantity::milli);
            }
        }
        match (any, all) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The cgroup of a pod: guaranteed pods stand above the two shared classes.
pub fn pod_cgroup(root: &str, qos: Qos, uid: &str) -> String {
    let class = match qos {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    format!("{}/kubepods{class}/pod{uid}", root.trim_end_matches('/'))
}

/// Bounds of a container; `node_memory` is the node's, in bytes.
pub fn resources(container: &Container, qos: Qos, node_memory: i64) -> Resources {
    let cpu_limit = resource_of(container, Bound::Limit, "cpu").and_then(quantity::milli);
    let cpu_request =
        resource_of(container, Bound::Request, "cpu").and_then(quantity::milli).or(cpu_limit);
    let memory_limit = resource_of(container, Bound::Limit, "memory").and_then(quantity::whole);
    let memory_request =
        resource_of(container, Bound::Request, "memory").and_then(quantity::whole).or(memory_limit);
    Resources {
        cpu_shares: cpu_shares(cpu_request.unwrap_or(0)),
        cpu_quota_us: cpu_limit
            .map_or(0, |milli| (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_US_MIN)),
        cpu_period_us: CPU_PERIOD_US,
        memory_limit_bytes: memory_limit.unwrap_or(0),
        oom_score_adj: oom_score_adj(qos, memory_request.unwrap_or(0), node_memory),
    }
}

fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// The less of the node's memory a burstable container asked for, the sooner it goes.
fn oom_score_adj(qos: Qos, memory_request: i64, node_memory: i64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable if node_memory <= 0 => 999,
        Qos::Burstable => (1000 - memory_request.saturating_mul(1000) / node_memory).clamp(3, 999),
    }
}

/// Which of a container's two sets of quantities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// What it is sure to get.
    Request,
    /// What it may not pass.
    Limit,
}

/// One quantity of a container.
pub fn resource_of<'a>(container: &'a Container, bound: Bound, name: &str) -> Option<&'a Quantity> {
    let resources = container.resources.as_ref()?;
    let map: Option<&BTreeMap<String, Quantity>> = match bound {
        Bound::Request => resources.requests.as_ref(),
        Bound::Limit => resources.limits.as_ref(),
    };
    map?.get(name)
}

/// Removes a pod's cgroup from every hierarchy; only empty ones go, so a live one is safe.
pub fn remove_pod(root: &str, uid: &str) {
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        let cgroup = pod_cgroup(root, qos, uid);
        for hierarchy in hierarchies(Path::new(CGROUP_FS)) {
            remove_empty(&hierarchy.join(cgroup.trim_start_matches('/')));
        }
    }
}

/// Removes what is empty of the tree that pods stood in, and of the agent's own root.
pub fn remove_tree(root: &str) {
    let root = root.trim_matches('/');
    for hierarchy in hierarchies(Path::new(CGROUP_FS)) {
        let kubepods = hierarchy.join(root).join("kubepods");
        // With a root of our own everything below is ours; in a shared one, other agents' pods
        // may just be starting in cgroups that are still empty.
        if root.is_empty() {
            for class in ["burstable", "besteffort", ""] {
                let _ = std::fs::remove_dir(kubepods.join(class));
            }
        } else {
            remove_empty(&hierarchy.join(root));
        }
    }
}

/// The mounted hierarchies: one with cgroup v2, one per controller with v1.
fn hierarchies(cgroup_fs: &Path) -> Vec<PathBuf> {
    if cgroup_fs.join("cgroup.controllers").is_file() {
        return vec![cgroup_fs.to_path_buf()];
    }
    let Ok(entries) = std::fs::read_dir(cgroup_fs) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|p| p.is_dir())
        .collect()
}

/// Removes a cgroup after those below it. The kernel refuses while one holds a process.
fn remove_empty(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: &serde_json::Value) -> Container {
        serde_json::from_value(serde_json::json!({ "name": "c", "resources": resources })).unwrap()
    }

    fn pod(resources: &[serde_json::Value]) -> Pod {
        let containers: Vec<_> = resources.iter().map(container).collect();
        serde_json::from_value(serde_json::json!({ "spec": { "containers": containers } })).unwrap()
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        use serde_json::json;
        let full = json!({ "limits": { "cpu": "1", "memory": "64Mi" } });
        assert_eq!(Qos::of(&pod(&[json!({})])), Qos::BestEffort);
        assert_eq!(Qos::of(&pod(std::slice::from_ref(&full))), Qos::Guaranteed);
        assert_eq!(Qos::of(&pod(&[full, json!({})])), Qos::Burstable);
        let unequal =
            json!({ "limits": { "cpu": "1", "memory": "64Mi" }, "requests": { "cpu": "500m" } });
        assert_eq!(Qos::of(&pod(&[unequal])), Qos::Burstable);
    }

    #[test]
    fn pods_stand_below_their_class() {
        assert_eq!(pod_cgroup("/", Qos::Guaranteed, "u"), "/kubepods/podu");
        assert_eq!(pod_cgroup("/k1", Qos::Burstable, "u"), "/k1/kubepods/burstable/podu");
        assert_eq!(pod_cgroup("/k1/", Qos::BestEffort, "u"), "/k1/kubepods/besteffort/podu");
    }

    #[test]
    fn bounds_become_shares_quota_and_bytes() {
        let container = container(&serde_json::json!({
            "requests": { "cpu": "250m", "memory": "32Mi" },
            "limits": { "cpu": "500m", "memory": "64Mi" },
        }));
        let bounds = resources(&container, Qos::Burstable, 1 << 30);
        assert_eq!(bounds.cpu_shares, 256);
        assert_eq!(bounds.cpu_quota_us, 50_000);
        assert_eq!(bounds.memory_limit_bytes, 64 << 20);
        assert_eq!(bounds.oom_score_adj, 969);
    }

    #[test]
    fn a_container_without_bounds_has_the_least_weight_and_no_quota() {
        let bounds = resources(&container(&serde_json::json!({})), Qos::BestEffort, 1 << 30);
        assert_eq!((bounds.cpu_shares, bounds.cpu_quota_us), (2, 0));
        assert_eq!((bounds.memory_limit_bytes, bounds.oom_score_adj), (0, 1000));
    }
}
