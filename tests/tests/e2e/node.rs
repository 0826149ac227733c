//! The node with a real containerd: what containers end with, what pulls say, how pods are deleted,
//! and that neither the agent's death nor containerd's stops anything.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kontiki_tests::kubectl::Kubectl;
use kontiki_tests::up::{self, Up};
use kontiki_tests::{image, requirements, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a machine that runs pods has.
const PROGRAMS: &[&str] = &["kubectl", "containerd", "runc", "nft", image::BUSYBOX];
/// A pod may take that long here: a debug build, two cores, other tests before it.
pub(super) const WITHIN: Duration = Duration::from_secs(90);
/// The image that is there.
const IMAGE: &str = "docker.io/library/busybox:kontiki-test";

/// One server, one agent, one containerd.
pub(super) struct Node {
    up: Up,
    pub(super) kubectl: Kubectl,
    _images: TempDir,
}

impl Node {
    /// None where the machine cannot run pods.
    pub(super) fn start() -> Option<Self> {
        if !requirements::met(PROGRAMS, true) {
            return None;
        }
        let images = TempDir::new().expect("a temporary folder must be had");
        image::write_busybox(images.path(), IMAGE);
        let folder = images.path().to_str().expect("temporary folders have plain names").to_owned();
        // No registry is asked: what is not there cannot be pulled.
        let mirror = "http://127.0.0.1:1";
        let up = Up::start(&[
            "--servers",
            "1",
            "--agents",
            "1",
            "--runtime",
            "containerd",
            "--images",
            &folder,
            "--registry-mirror",
            mirror,
        ]);
        let kubectl = up.kubectl();
        Some(Self { up, kubectl, _images: images })
    }

    pub(super) fn create(&self, name: &str, spec: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec,
        });
        self.kubectl.apply(&pod.to_string()).expect("the pod must be taken");
    }

    fn pod(&self, name: &str) -> Result<Value, String> {
        let text = self.kubectl.attempt(&["get", "pod", name, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// The status of the pod's first container once `wanted` holds for it.
    fn container(&self, pod: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("{pod}: {what}"), WITHIN, || {
            let pod = self.pod(pod)?;
            let status = pod["status"]["containerStatuses"][0].clone();
            if wanted(&status) { Ok(status) } else { Err(pod["status"].to_string()) }
        })
    }

    pub(super) fn running(&self, pod: &str) -> Value {
        self.container(pod, "running", |status| status["state"]["running"].is_object())
    }

    pub(super) fn ended(&self, pod: &str) -> Value {
        let ended = |status: &Value| status["state"]["terminated"].is_object();
        self.container(pod, "ended", ended)["state"]["terminated"].clone()
    }

    /// Waits until the pod's first container waits for that reason.
    pub(super) fn waiting(&self, pod: &str, reason: &str) -> Value {
        self.container(pod, reason, |status| status["state"]["waiting"]["reason"] == reason)
    }

    /// Where the agent keeps its files.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.up.cluster().agents.remove(0).data_dir
    }

    /// Reasons and messages of the events about an object.
    fn events(&self, pod: &str) -> String {
        self.kubectl.ok(&[
            "get",
            "events",
            "--field-selector",
            &format!("involvedObject.name={pod}"),
            "-o",
            r#"jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}"#,
        ])
    }

    fn containerd_pid(&self) -> Pid {
        let agent = self.up.cluster().agents.remove(0);
        let file = agent.data_dir.join("containerd/pid");
        let pid = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Pid::from_raw(pid.trim().parse().expect("a pid")).expect("a pid is not zero")
    }
}

/// One container that runs `script`, and whatever else the container says.
pub(super) fn shell(script: &str, more: &Value) -> Value {
    let mut container = json!({
        "name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
    });
    let fields = container.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    json!({
        "terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container],
    })
}

const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

#[test]
fn neither_a_killed_agent_nor_a_killed_containerd_stops_a_container() {
    let Some(node) = Node::start() else { return };
    node.create("steady", &shell(FOREVER, &json!({})));
    let before = node.running("steady");

    let agent = node.up.cluster().agents.remove(0);
    let containerd = node.containerd_pid();
    up::signal(&agent, Signal::KILL);
    wait::until("another agent", WITHIN, || {
        let now = node.up.cluster().agents.remove(0).pid;
        if now == agent.pid { Err(format!("still {now}")) } else { Ok(()) }
    });
    node.create("after-agent", &shell(FOREVER, &json!({})));
    node.running("after-agent");
    assert_eq!(node.running("steady"), before, "the container was not touched");
    assert_eq!(node.containerd_pid(), containerd, "containerd was adopted");

    kill_process(containerd, Signal::KILL).expect("containerd must run");
    wait::until("another containerd", WITHIN, || {
        let now = node.containerd_pid();
        if now == containerd { Err(format!("still {now:?}")) } else { Ok(()) }
    });
    node.create("after-containerd", &shell(FOREVER, &json!({})));
    node.running("after-containerd");
    assert_eq!(node.running("steady"), before, "the container was not touched");
    let log = node.kubectl.attempt(&["logs", "steady"]);
    assert!(log.is_ok(), "{log:?}");

    // What ends while nobody looks is seen afterwards.
    let agent = node.up.cluster().agents.remove(0);
    up::signal(&agent, Signal::KILL);
    node.kubectl.ok(&["delete", "pod", "steady", "--timeout=60s"]);
}

#[test]
fn containers_end_with_their_codes_reasons_and_restarts() {
    let Some(node) = Node::start() else { return };
    let limits = json!({ "resources": { "limits": { "memory": "32Mi" } } });
    node.create("greedy", &shell("tail /dev/zero", &limits));
    node.create("well", &shell("exit 0", &json!({})));
    node.create("badly", &shell("echo my last words > /dev/termination-log; exit 42", &json!({})));
    let fallback = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    node.create("by-log", &shell("echo from the log; exit 3", &fallback));
    let mut crashing = shell("exit 5", &json!({}));
    crashing["restartPolicy"] = json!("Always");
    node.create("crashing", &crashing);

    let end = node.ended("greedy");
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("OOMKilled")));
    let end = node.ended("well");
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(0), &json!("Completed")));
    assert_eq!(node.pod("well").expect("it is there")["status"]["phase"], "Succeeded");
    let end = node.ended("badly");
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(42), &json!("Error")));
    assert_eq!(end["message"], "my last words\n");
    assert_eq!(node.pod("badly").expect("it is there")["status"]["phase"], "Failed");
    assert_eq!(node.ended("by-log")["message"], "from the log");

    let status = node.container("crashing", "CrashLoopBackOff", |status| {
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 5);
    assert!(status["restartCount"].as_i64() >= Some(1), "{status}");
    assert!(node.kubectl.ok(&["get", "pod", "crashing"]).contains("CrashLoopBackOff"));
    let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("back-off 10s restarting failed container=c"), "{message}");
    wait::until("the event", WITHIN, || {
        let events = node.events("crashing");
        if events.contains("BackOff: Back-off restarting failed container c") {
            return Ok(());
        }
        Err(events)
    });
}

#[test]
fn images_are_pulled_as_the_policy_says_and_failures_are_told() {
    let Some(node) = Node::start() else { return };
    let of = |policy: &str, image: &str| json!({ "imagePullPolicy": policy, "image": image });
    node.create("present", &shell(FOREVER, &of("IfNotPresent", IMAGE)));
    node.create("never", &shell(FOREVER, &of("Never", "docker.io/library/none:1")));
    node.create("missing", &shell(FOREVER, &of("IfNotPresent", "docker.io/library/none:1")));
    node.create("always", &shell(FOREVER, &of("Always", IMAGE)));
    node.create("nonsense", &shell(FOREVER, &of("IfNotPresent", "UPPER:case:twice")));

    node.running("present");
    let waits = |pod: &str, reason: &str| {
        node.container(pod, reason, |status| status["state"]["waiting"]["reason"] == reason)
            ["state"]["waiting"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        waits("never", "ErrImageNeverPull"),
        "Container image \"docker.io/library/none:1\" is not present with pull policy of Never"
    );
    let message = waits("missing", "ImagePullBackOff");
    assert!(
        message.starts_with("Back-off pulling image \"docker.io/library/none:1\""),
        "{message}"
    );
    // The image is there, but this policy wants to be sure.
    waits("always", "ImagePullBackOff");
    waits("nonsense", "InvalidImageName");
    wait::until("the events", WITHIN, || {
        let events = node.events("missing");
        let all = ["Pulling: ", "Failed: Failed to pull image", "Failed: Error: ErrImagePull"];
        if all.iter().all(|wanted| events.contains(wanted)) { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_deleted_pod_has_its_hook_and_its_grace() {
    let Some(node) = Node::start() else { return };
    let told = TempDir::new().expect("a temporary folder must be had");
    let shared = json!({
        "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", "echo hook >> /told/log"] } } },
        "volumeMounts": [{ "name": "told", "mountPath": "/told" }],
    });
    let polite = "trap 'echo term >> /told/log; sleep 2; echo end >> /told/log; exit 0' TERM;
        while true; do sleep 0.1; done";
    let volumes = json!([{ "name": "told", "hostPath": { "path": told.path() } }]);
    let mut spec = shell(polite, &shared);
    spec["terminationGracePeriodSeconds"] = json!(30);
    spec["volumes"] = volumes.clone();
    node.create("polite", &spec);
    node.running("polite");
    node.kubectl.ok(&["delete", "pod", "polite", "--timeout=60s"]);
    let log = fs::read_to_string(told.path().join("log")).expect("it must have written");
    assert_eq!(log, "hook\nterm\nend\n");

    // One that does not listen is killed when its grace is over, and its hook with it.
    let stubborn = json!({
        "lifecycle": { "preStop": { "exec": { "command": ["sleep", "3600"] } } },
    });
    let mut spec = shell("trap '' TERM; while true; do sleep 0.1; done", &stubborn);
    spec["terminationGracePeriodSeconds"] = json!(2);
    node.create("stubborn", &spec);
    node.running("stubborn");
    node.kubectl.ok(&["delete", "pod", "stubborn", "--timeout=60s"]);
}
