//! An evictor against a runtime in memory and cgroups that are files.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tempfile::TempDir;

use super::threshold::Flags;
use super::*;
use crate::events;
use crate::images::collect::ImageGcConfig;
use crate::paths::Paths;
use crate::pods::PodIndex;
use crate::runtime::fake::FakeRuntime;
use crate::system;

struct Lab {
    evictor: Evictor,
    runtime: Arc<FakeRuntime>,
    orders: mpsc::Receiver<Order>,
    dir: TempDir,
    _events: events::Sender,
}

impl Lab {
    fn new(hard: &str, pods: &[(&str, i32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
        let runtime = Arc::new(FakeRuntime::with_images(&["unused"]));
        let index = PodIndex::default();
        for (uid, priority) in pods {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": uid, "namespace": "ns", "uid": uid },
                "spec": { "priority": priority, "containers": [{ "name": "c" }] },
            }))
            .unwrap();
            index.insert(pod);
        }
        let (recorder, sender) = events::recorder("n1");
        let (orders, receiver) = mpsc::channel(4);
        let collector = Collector::new(
            runtime.clone(),
            ImageGcConfig::default(),
            dir.path().to_path_buf(),
            [].into(),
            "n1".to_owned(),
            recorder.clone(),
        );
        let evictor = Evictor {
            config: EvictionConfig {
                thresholds: threshold::parse(&Flags { hard, ..Flags::default() }).unwrap(),
                ..EvictionConfig::default()
            },
            node_name: "n1".to_owned(),
            sources: stats::Sources {
                index,
                runtime: runtime.clone(),
                paths: Paths::new(dir.path()),
                cgroup_root: "/".to_owned(),
                cgroup_fs: dir.path().to_path_buf(),
            },
            recorder,
            pressure: Pressure::default(),
            collector: Arc::new(collector),
            orders,
        };
        let lab = Self { evictor, runtime, orders: receiver, dir, _events: sender };
        lab.leave_of_memory(1 << 30);
        lab
    }

    /// So much of the machine's memory is left.
    fn leave_of_memory(&self, bytes: i64) {
        let all = system::capacity(self.dir.path()).memory_bytes;
        let used = (all - bytes).to_string();
        std::fs::write(self.dir.path().join("memory.current"), used).unwrap();
    }

    async fn looks(&mut self, times: usize) -> Vec<Order> {
        let (mut state, mut ordered, mut all) = (State::default(), HashSet::new(), Vec::new());
        for _ in 0..times {
            self.evictor.look(&mut state, &mut ordered).await;
            all.extend(self.orders.try_recv());
        }
        all
    }
}

fn uids(orders: &[Order]) -> Vec<&str> {
    orders.iter().map(|order| order.uid.as_str()).collect()
}

#[tokio::test]
async fn a_node_short_of_memory_ends_one_pod_at_a_time_by_priority() {
    let pods = [("important", 10), ("modest", 0), ("system", 2_000_000_000)];
    let mut lab = Lab::new("memory.available<100Mi", &pods);
    assert!(lab.looks(1).await.is_empty());
    assert!(lab.evictor.pressure.now().is_empty());
    lab.leave_of_memory(50 << 20);
    let orders = lab.looks(4).await;
    assert_eq!(uids(&orders), ["modest", "important"], "never one of the system");
    let message = &orders[0].eviction.message;
    let begin = "The node was low on resource: memory. Threshold quantity: 100Mi, available: ";
    assert!(message.starts_with(begin), "{message}");
    assert_eq!(orders[0].eviction.grace, GRACE);
    assert_eq!(lab.evictor.pressure.now(), [signal::Condition::Memory].into());
    assert_eq!(lab.runtime.image_names(), ["unused"], "images are no memory");
}

#[tokio::test]
async fn a_node_short_of_disk_removes_unused_images_before_it_ends_pods() {
    // More than there ever is: images alone cannot be enough.
    let mut lab = Lab::new("nodefs.available<99.9%", &[("a", 0)]);
    let orders = lab.looks(1).await;
    assert!(lab.runtime.image_names().is_empty());
    assert_eq!(uids(&orders), ["a"]);
    let message = &orders[0].eviction.message;
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. "), "{message}");
    assert_eq!(lab.evictor.pressure.now(), [signal::Condition::Disk].into());
}

#[tokio::test]
async fn a_pod_that_writes_more_than_it_may_is_ended_though_the_disk_has_room() {
    let mut lab = Lab::new("nodefs.available<1", &[("modest", 0)]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "greedy", "namespace": "ns", "uid": "greedy" },
        "spec": {
            "containers": [{ "name": "c" }],
            "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "64Ki" } }],
        },
    }))
    .unwrap();
    lab.evictor.sources.index.insert(pod);
    lab.runtime.leave_ended("greedy", "unused");
    let folder = lab.evictor.sources.paths.pod("greedy").join("volumes/v");
    std::fs::create_dir_all(&folder).unwrap();
    assert!(lab.looks(1).await.is_empty());
    std::fs::write(folder.join("file"), vec![1; 100_000]).unwrap();
    let orders = lab.looks(1).await;
    assert_eq!(uids(&orders), ["greedy"]);
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ";
    assert_eq!(orders[0].eviction.message, message);
    assert!(lab.evictor.pressure.now().is_empty());
}

#[tokio::test]
async fn containers_of_pods_that_have_ended_are_removed_to_win_back_disk() {
    let mut lab = Lab::new("nodefs.available<99.9%", &[]);
    let over: Pod = serde_json::from_value(json!({
        "metadata": { "name": "over", "namespace": "ns", "uid": "over" },
        "spec": { "containers": [{ "name": "c" }] },
        "status": { "phase": "Succeeded" },
    }))
    .unwrap();
    lab.evictor.sources.index.insert(over);
    lab.runtime.leave_ended("over", "unused");
    lab.runtime.leave_ended("lives", "unused");
    assert!(lab.looks(1).await.is_empty(), "nobody is left to end");
    let (_, left) = lab.runtime.all();
    let left: Vec<_> = left.iter().map(|container| container.pod_uid.as_str()).collect();
    assert_eq!(left, ["lives"]);
    assert_eq!(lab.runtime.image_names(), ["unused"], "one of them uses it still");
}
