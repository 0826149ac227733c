//! The four acts of the README with real clients and a real containerd: a Deployment is applied, its
//! pods run and answer, the leader dies, and the work goes on.

#[path = "e2e/balancer.rs"]
mod balancer;
#[path = "e2e/network.rs"]
mod network;
#[path = "e2e/node.rs"]
mod node;
#[path = "e2e/storage.rs"]
mod storage;
#[path = "e2e/streams.rs"]
mod streams;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kontiki_tests::kubectl::Kubectl;
use kontiki_tests::up::{self, Up};
use kontiki_tests::{image, requirements, wait};
use rustix::process::Signal;
use tempfile::TempDir;

/// What a machine that runs pods has.
const PROGRAMS: &[&str] = &["kubectl", "containerd", "runc", "nft", image::BUSYBOX];
/// A pod may take that long here: a debug build, two cores, other tests before it.
const PODS_WITHIN: Duration = Duration::from_secs(60);

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: docker.io/library/busybox:kontiki-test
        imagePullPolicy: Never
        command: ["sh", "-c", "echo listening; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
        ports: [{containerPort: 80}]
"#;

fn start() -> (Up, TempDir) {
    let images = TempDir::new().expect("a temporary folder must be had");
    image::write_busybox(images.path(), "docker.io/library/busybox:kontiki-test");
    let folder = images.path().to_str().expect("temporary folders have plain names").to_owned();
    let arguments = ["--servers", "3", "--agents", "1", "--runtime", "containerd", "--images"];
    (Up::start(&[&arguments[..], &[folder.as_str()]].concat()), images)
}

#[test]
fn a_deployment_runs_answers_and_outlives_the_leader() {
    if !requirements::met(PROGRAMS, true) {
        return;
    }
    let interfaces_before = interfaces();
    let (mut up, _images) = start();
    let kubectl = up.kubectl();

    kubectl.apply(DEPLOYMENT).expect("the manifest must be taken");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let addresses = running_addresses(&kubectl, 2);
    for address in &addresses {
        assert!(fetch(address).contains("web-"), "{address} must answer with its host name");
    }
    every_kubectl_reads_it(&up);

    let leader = up.leader();
    up::signal(&leader, Signal::KILL);
    wait::until("scaling right after the kill", Duration::from_secs(10), || {
        kubectl.attempt(&["scale", "deployment/web", "--replicas=3"])
    });
    let scaled = running_addresses(&kubectl, 3);
    assert!(addresses.iter().all(|address| scaled.contains(address)), "the pods kept running");

    kubectl.ok(&["delete", "deployment", "web", "--timeout=30s"]);
    wait::until("the pods to be gone", PODS_WITHIN, || {
        let left = kubectl.attempt(&["get", "pods", "-o", "name"])?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let data_dir = up.data_dir.clone();
    up.interrupt();
    nothing_is_left(&data_dir.to_string_lossy(), &interfaces_before);
}

#[test]
fn down_leaves_nothing_behind_after_up_was_killed_with_pods_running() {
    if !requirements::met(PROGRAMS, true) {
        return;
    }
    let interfaces_before = interfaces();
    let (mut up, _images) = start();
    let kubectl = up.kubectl();
    kubectl.apply(DEPLOYMENT).expect("the manifest must be taken");
    running_addresses(&kubectl, 2);

    up.kill();
    let down = up.kontiki(&["down"]);
    let complaint = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(down.status.success(), "{complaint}");
    nothing_is_left(&up.data_dir.to_string_lossy(), &interfaces_before);
}

/// kubectl of every version on the machine reads and describes.
fn every_kubectl_reads_it(up: &Up) {
    for kubectl in Kubectl::all(&up.data_dir.join("kubeconfig")) {
        let pods = kubectl.ok(&["get", "pods", "-o", "wide"]);
        assert!(pods.contains("Running"), "{pods}");
        let described = kubectl.ok(&["describe", "deployment", "web"]);
        assert!(described.contains("2 available"), "{described}");
        let yaml = kubectl.ok(&["get", "deployment", "web", "-o", "yaml"]);
        assert!(yaml.contains("readyReplicas: 2"), "{yaml}");
        let log = kubectl.ok(&["logs", "deployment/web"]);
        assert!(log.contains("listening"), "{log}");
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=20s"]);
        let watched = kubectl.command(&["get", "pods", "-w", "--request-timeout=2s"]).output();
        let watched =
            String::from_utf8_lossy(&watched.expect("kubectl must run").stdout).into_owned();
        assert!(watched.contains("web-"), "{watched}");
    }
}

/// The addresses of the running pods, once there are `count` and all are ready.
fn running_addresses(kubectl: &Kubectl, count: usize) -> Vec<String> {
    wait::until(&format!("{count} ready pods"), PODS_WITHIN, || {
        let rows = kubectl.attempt(&[
            "get",
            "pods",
            "-l",
            "app=web",
            "-o",
            r#"jsonpath={range .items[*]}{.status.phase} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#,
        ])?;
        let ready: Vec<String> = rows
            .lines()
            .filter(|row| row.starts_with("Running") && row.ends_with("True"))
            .filter_map(|row| row.split(' ').nth(1).map(str::to_owned))
            .collect();
        if ready.len() == count { Ok(ready) } else { Err(rows) }
    })
}

fn fetch(address: &str) -> String {
    wait::until(&format!("an answer of {address}"), Duration::from_secs(10), || {
        let attempt = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((address, 80))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        attempt().map_err(|error| error.to_string())
    })
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .expect("sysfs must be mounted")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// No process, mount, interface or cgroup of the cluster remains.
fn nothing_is_left(data_dir: &str, interfaces_before: &[String]) {
    assert_eq!(interfaces(), interfaces_before, "interfaces are left behind");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("procfs must be mounted");
    assert!(!mounts.contains(data_dir), "mounts are left behind: {mounts}");
    for process in fs::read_dir("/proc").expect("procfs must be mounted").flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(!command.contains(data_dir), "a process is left behind: {command}");
    }
}
