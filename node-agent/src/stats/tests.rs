use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).expect("a time")
}

fn usage(second: i64, cpu_ns: u64) -> Usage {
    let memory = Memory {
        usage_bytes: Some(2 << 20),
        working_set_bytes: Some(1 << 20),
        ..Memory::default()
    };
    Usage { at: at(second), cpu_ns: Some(cpu_ns), nano_cores: None, memory }
}

/// A node with one pod of one container, ten seconds after its start.
pub(crate) fn sample() -> Sample {
    let container = ContainerUsage {
        id: "c1".into(),
        name: "app".into(),
        image: "img".into(),
        cgroup: "/kubepods/podu/c1".into(),
        started_at: Some(at(0)),
        usage: usage(10, 4_000_000_000),
        disk_bytes: Some(4096),
        ..ContainerUsage::default()
    };
    let interface = Interface { name: "eth0".into(), rx_bytes: 10, ..Interface::default() };
    let pod = PodUsage {
        namespace: "ns".into(),
        name: "web".into(),
        uid: "u".into(),
        cgroup: "/kubepods/podu".into(),
        started_at: Some(at(0)),
        usage: usage(10, 5_000_000_000),
        processes: Some(3),
        network: vec![interface],
        containers: vec![container],
    };
    Sample { node: usage(10, 100_000_000_000), pods: vec![pod], error: None }
}

#[test]
fn rates_come_from_two_readings_and_the_time_between_them() {
    let mut later = sample();
    later.node = usage(20, 105_000_000_000);
    later.pods[0].usage = usage(20, 6_000_000_000);
    later.pods[0].containers[0].usage = usage(15, 6_500_000_000);
    let later = with_rates(later, Some(&sample()));
    assert_eq!(later.node.nano_cores, Some(500_000_000));
    assert_eq!(later.pods[0].usage.nano_cores, Some(100_000_000));
    // Each reading has its own time.
    assert_eq!(later.pods[0].containers[0].usage.nano_cores, Some(500_000_000));
}

#[test]
fn a_container_seen_first_has_the_rate_since_its_start_once_that_says_something() {
    let started = Some(at(0));
    assert_eq!(rate(&usage(10, 4_000_000_000), None, started), Some(400_000_000));
    assert_eq!(rate(&usage(9, 4_000_000_000), None, started), None);
    assert_eq!(rate(&usage(10, 4_000_000_000), None, None), None);
}

#[test]
fn a_counter_that_began_anew_has_no_rate_and_one_not_read_again_keeps_it() {
    let before = usage(10, 4_000_000_000);
    assert_eq!(rate(&usage(20, 1), Some(&before), Some(at(0))), None);
    let before = Usage { nano_cores: Some(7), ..before };
    assert_eq!(rate(&before.clone(), Some(&before), Some(at(0))), Some(7));
}

#[test]
fn another_instance_of_a_container_does_not_go_on_from_the_one_before() {
    let mut later = sample();
    later.pods[0].containers[0].id = "c2".into();
    later.pods[0].containers[0].started_at = Some(at(19));
    later.pods[0].containers[0].usage = usage(20, 500_000_000);
    let later = with_rates(later, Some(&sample()));
    assert_eq!(later.pods[0].containers[0].usage.nano_cores, None);
}

#[test]
fn figures_find_their_pods_and_what_the_status_says_of_containers() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "u" },
        "spec": { "containers": [{ "name": "app" }] },
        "status": {
            "qosClass": "BestEffort", "startTime": "2026-01-01T00:00:00Z",
            "containerStatuses": [{
                "name": "app", "containerID": "containerd://c1", "image": "img", "imageID": "",
                "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            }],
        },
    }))
    .unwrap();
    let pod = Arc::new(pod);
    let figures = |id: &str, uid: &str| ContainerFigures {
        id: id.into(),
        name: "app".into(),
        pod_uid: uid.into(),
        pod_name: "web".into(),
        pod_namespace: "ns".into(),
        usage: usage(10, 1),
        disk_bytes: None,
        inodes: None,
    };
    let sandboxes = vec![
        SandboxFigures { pod_uid: "u".into(), interfaces: vec![Interface::default()] },
        SandboxFigures { pod_uid: "empty".into(), interfaces: vec![Interface::default()] },
    ];
    let known = HashMap::from([("u", &pod)]);
    let found = grouped(vec![figures("c1", "u")], sandboxes, &known, "/");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].cgroup, "/kubepods/besteffort/podu");
    assert_eq!(found[0].network.len(), 1);
    let container = &found[0].containers[0];
    assert_eq!((container.image.as_str(), container.started_at), ("img", Some(at(0))));
    assert_eq!(container.cgroup, "/kubepods/besteffort/podu/c1");
}

#[test]
fn a_pod_whose_cgroup_cannot_be_read_uses_what_its_containers_do() {
    let containers = sample().pods.remove(0).containers;
    let both = [containers[0].clone(), containers[0].clone()];
    let sum = sum_of(&both, at(10));
    assert_eq!((sum.cpu_ns, sum.memory.working_set_bytes), (Some(8_000_000_000), Some(2 << 20)));
}

/// The machine's counter is a pipe: whoever reads it waits until it is written, by another task.
#[tokio::test]
async fn samples_are_taken_off_the_runtime() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
    let counter = dir.path().join("cpu.stat");
    mknodat(CWD, &counter, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let sources = Sources {
        index: PodIndex::default(),
        runtime: Arc::new(crate::runtime::fake::FakeRuntime::default()),
        paths: Paths::new(dir.path()),
        cgroup_root: "/".to_owned(),
        cgroup_fs: dir.path().to_path_buf(),
    };
    let write = async {
        tokio::task::yield_now().await;
        let write = move || std::fs::write(counter, "usage_usec 7\n");
        tokio::task::spawn_blocking(write).await.unwrap()
    };
    let (sample, written) = tokio::join!(take(&sources), write);
    written.unwrap();
    assert_eq!(sample.node.cpu_ns, Some(7000));
}
