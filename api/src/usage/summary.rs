//! What a node's `/stats/summary` says of processors and memory.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;

/// What something used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// When that was.
    pub(crate) at: Timestamp,
    /// Processor time per second, in nanoseconds.
    pub(crate) cpu_nano: i64,
    /// Memory that cannot be given back at once.
    pub(crate) memory_bytes: i64,
}

/// What a node and its pods use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// The node; none where it does not know yet.
    pub(crate) node: Option<Point>,
    /// The containers of each pod by its UID. Pods of which something is missing are missing
    /// wholly: half a pod looks like an idle one.
    pub(crate) pods: HashMap<String, Vec<(String, Point)>>,
}

#[derive(Deserialize)]
struct Summary {
    node: Measured,
    #[serde(default)]
    pods: Vec<Pod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Deserialize)]
struct Measured {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_nano_cores: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl Measured {
    fn point(&self) -> Option<Point> {
        let cpu = self.cpu.as_ref()?;
        Some(Point {
            at: cpu.time,
            cpu_nano: i64::try_from(cpu.usage_nano_cores?).ok()?,
            memory_bytes: i64::try_from(self.memory.as_ref()?.working_set_bytes?).ok()?,
        })
    }
}

impl Figures {
    /// Reads a summary.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let summary: Summary = serde_json::from_slice(text)?;
        let containers = |pod: Pod| {
            let points =
                pod.containers.into_iter().map(|one| Some((one.name, one.measured.point()?)));
            let points: Option<Vec<_>> = points.collect();
            Some((pod.pod_ref.uid, points.filter(|points| !points.is_empty())?))
        };
        let pods = summary.pods.into_iter().filter_map(containers).collect();
        Ok(Self { node: summary.node.point(), pods })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_of_which_a_container_has_no_rate_yet_is_left_out() {
        let container = |name: &str, nano: Option<u64>| {
            let mut cpu = json!({ "time": "2026-01-01T00:00:00Z" });
            if let Some(nano) = nano {
                cpu["usageNanoCores"] = nano.into();
            }
            json!({ "name": name, "cpu": cpu, "memory": { "workingSetBytes": 4096 } })
        };
        let pod = |uid: &str, containers: Vec<serde_json::Value>| json!({ "podRef": { "uid": uid, "name": uid }, "containers": containers });
        let summary = json!({
            "node": { "nodeName": "n", "cpu": { "time": "2026-01-01T00:00:00Z" } },
            "pods": [
                pod("a", vec![container("x", Some(7))]),
                pod("b", vec![container("x", Some(7)), container("y", None)]),
                pod("c", vec![]),
            ],
        });
        let found = Figures::parse(summary.to_string().as_bytes()).expect("a summary");
        assert_eq!(found.node, None);
        assert_eq!(found.pods.keys().collect::<Vec<_>>(), ["a"]);
        let (name, point) = &found.pods["a"][0];
        assert_eq!((name.as_str(), point.cpu_nano, point.memory_bytes), ("x", 7, 4096));
    }
}
