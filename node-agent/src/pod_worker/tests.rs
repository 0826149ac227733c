//! One pod's life over a runtime in memory and an API that can be down.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::testing::Lab;
use super::*;

fn one(more: &Value) -> Value {
    let mut container = json!({ "name": "c", "image": "i:1" });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "containers": [container] })
}

fn slow_backoff() -> Timers {
    Timers { backoff_initial: Duration::from_secs(60), ..Timers::default() }
}

fn is_ready(status: &PodStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test]
async fn a_pod_is_run_and_the_api_told() {
    let lab = Lab::new(&["i:1"]);
    let _worker = lab.start();
    lab.until("it is ready", || is_ready(&lab.status())).await;
    assert_eq!(lab.phase(), "Running");
    assert_eq!(lab.runtime.calls(), ["run sandbox", "create c", "start c"]);
}

#[tokio::test]
async fn a_deleted_pod_is_reported_before_it_is_removed_and_let_go_at_last() {
    let lab = Lab::new(&["i:1"]);
    let mut worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.delete(5);
    worker.finished().await;
    let calls = lab.runtime.calls();
    let after = calls.iter().position(|call| call == "stop c 5s").unwrap();
    assert_eq!(calls[after..], ["stop c 5s", "stop sandbox", "remove c", "remove sandbox"]);
    let ended = lab.status().container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(ended.terminated.unwrap().exit_code, 143);
    assert_eq!(lab.api.calls.lock().last(), Some(&"delete"));
    assert!(lab.context.checkpoint.load().is_empty());
}

#[tokio::test]
async fn a_pod_the_api_lost_is_removed_without_a_word_to_it() {
    let lab = Lab::new(&["i:1"]);
    let mut worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.desired.send_modify(|desired| desired.gone = true);
    worker.finished().await;
    assert!(lab.runtime.all().0.is_empty());
    assert!(!lab.api.deleted());
}

#[tokio::test]
async fn an_agent_started_again_adopts_what_runs() {
    let lab = Lab::new(&["i:1"]);
    lab.leave_behind().await;
    let before = lab.runtime.running("c").unwrap();
    lab.api.written.lock().clear();
    let _worker = lab.start();
    lab.until("it is told again", || is_ready(&lab.status())).await;
    assert_eq!(lab.runtime.running("c").unwrap(), before);
    assert_eq!(lab.status().container_statuses.unwrap()[0].restart_count, 0);
}

#[tokio::test]
async fn a_shutdown_leaves_the_pod_running() {
    let lab = Lab::new(&["i:1"]);
    let mut worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.shutdown.cancel();
    worker.finished().await;
    assert!(lab.runtime.running("c").is_some());
}

#[tokio::test]
async fn a_crashing_container_is_restarted_with_growing_waits() {
    let lab = Lab::new(&["i:1"]);
    lab.runtime.exit_at_once("c", 7);
    let _worker = lab.start();
    let count = || lab.status().container_statuses.map_or(0, |all| all[0].restart_count);
    lab.until("it was restarted three times", || count() >= 3).await;
    assert!(lab.waited("c").contains(&"CrashLoopBackOff".to_owned()), "{:?}", lab.waited("c"));
    let status = lab.status().container_statuses.unwrap().remove(0);
    let ends = [status.state.unwrap().terminated, status.last_state.unwrap().terminated];
    assert_eq!(ends.iter().flatten().next().unwrap().exit_code, 7);
    assert!(lab.runtime.all().1.len() <= 3, "old instances are removed");
}

#[tokio::test]
async fn with_the_api_down_containers_are_restarted_and_it_is_told_later() {
    let lab = Lab::new(&["i:1"]);
    let _worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    lab.api.set_down(true);
    lab.runtime.exit("c", 1);
    lab.until("it runs again", || lab.runtime.running("c").is_some_and(|c| c.attempt == 1)).await;
    lab.api.set_down(false);
    let count = || lab.status().container_statuses.map_or(0, |all| all[0].restart_count);
    lab.until("the API knows", || count() == 1).await;
}

#[tokio::test]
async fn a_missing_image_is_told_in_two_words_and_pulled_when_it_appears() {
    let timers = Timers { backoff_initial: Duration::from_secs(3), ..Timers::default() };
    let lab = Lab::with_timers(&[], &one(&json!({})), timers);
    let _worker = lab.start();
    lab.until("the pull waits", || lab.waited("c").contains(&"ImagePullBackOff".to_owned())).await;
    assert_eq!(lab.waited("c"), ["ContainerCreating", "ErrImagePull", "ImagePullBackOff"]);
    let waiting = lab.status().container_statuses.unwrap()[0].state.clone().unwrap().waiting;
    assert_eq!(
        waiting.unwrap().message.unwrap(),
        "Back-off pulling image \"i:1\": ErrImagePull: not in the registry"
    );
    lab.runtime.publish("i:1");
    lab.until("it runs", || lab.phase() == "Running").await;
    assert_eq!(lab.runtime.pulls(), 2);
}

/// The victims of preemption stood for a minute, since news of their last status came before the
/// write of it had ended.
#[tokio::test]
async fn a_deleted_pod_goes_though_nothing_more_is_heard_of_it() {
    let lab = Lab::new(&["i:1"]);
    let mut worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.hear_nothing();
    worker.delete(1);
    worker.finished().await;
    assert!(lab.api.deleted());
}

#[tokio::test]
async fn a_registry_is_shown_the_pods_secret_for_it() {
    let spec = json!({
        "containers": [{ "name": "c", "image": "example.com/i:1" }],
        "imagePullSecrets": [{ "name": "missing" }, { "name": "pull" }],
    });
    let lab = Lab::with(&[], &spec);
    let entry = json!({ "username": "ann", "password": "p" });
    let config = json!({ "auths": { "example.com": entry } }).to_string();
    let secret = json!({ "data": { ".dockerconfigjson": base64(&config) } });
    lab.api.secrets.lock().insert("pull".to_owned(), serde_json::from_value(secret).unwrap());
    lab.runtime.publish("example.com/i:1");
    let _worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    let shown = lab.runtime.shown();
    assert_eq!((shown[0].user.as_str(), shown[0].password.as_str()), ("ann", "p"));
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn each_pull_policy_asks_the_registry_as_often_as_it_must() {
    // Policy, the image is there, pulls.
    for (policy, present, pulls) in [
        ("Always", true, 1),
        ("Always", false, 1),
        ("IfNotPresent", true, 0),
        ("IfNotPresent", false, 1),
        ("Never", true, 0),
    ] {
        let images: &[&str] = if present { &["i:1"] } else { &[] };
        let lab = Lab::with(images, &one(&json!({ "imagePullPolicy": policy })));
        lab.runtime.publish("i:1");
        let _worker = lab.start();
        lab.until("it runs", || lab.phase() == "Running").await;
        assert_eq!(lab.runtime.pulls(), pulls, "{policy} {present}");
    }
}

#[tokio::test]
async fn an_image_from_an_archive_is_not_asked_of_a_registry_even_when_it_is_the_latest() {
    let lab = Lab::with(&["archived"], &one(&json!({ "image": "archived" })));
    let _worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    assert_eq!(lab.runtime.pulls(), 0);
}

#[tokio::test]
async fn what_keeps_a_container_from_starting_is_told_by_its_reason() {
    let env = json!({ "env": [{ "name": "A", "valueFrom":
        { "configMapKeyRef": { "name": "m", "key": "k" } } }] });
    let root = json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": 0 } });
    for (container, reason) in [
        (json!({ "imagePullPolicy": "Never", "image": "j:1" }), "ErrImageNeverPull"),
        (json!({ "image": "No Such" }), "InvalidImageName"),
        (env, "CreateContainerConfigError"),
        (root, "CreateContainerConfigError"),
    ] {
        let lab = Lab::with_timers(&["i:1"], &one(&container), slow_backoff());
        let _worker = lab.start();
        let told = || lab.waited("c").last().is_some_and(|last| last == reason);
        lab.until(reason, told).await;
        assert!(!lab.runtime.calls().contains(&"create c".to_owned()));
    }
}

#[tokio::test]
async fn a_config_map_that_appears_lets_the_container_start() {
    let env = json!({ "envFrom": [{ "configMapRef": { "name": "m" } }] });
    let lab = Lab::with(&["i:1"], &one(&env));
    let _worker = lab.start();
    let refused = || lab.waited("c").contains(&"CreateContainerConfigError".to_owned());
    lab.until("it is refused", refused).await;
    lab.api.config_maps.lock().insert("m".into(), ConfigMap::default());
    lab.until("it runs", || lab.phase() == "Running").await;
}

#[tokio::test]
async fn a_pod_that_ends_is_told_its_phase_and_keeps_its_containers() {
    for (code, phase) in [(0, "Succeeded"), (9, "Failed")] {
        let mut spec = one(&json!({}));
        spec["restartPolicy"] = json!("Never");
        let lab = Lab::with(&["i:1"], &spec);
        let _worker = lab.start();
        lab.until("it runs", || lab.phase() == "Running").await;
        lab.runtime.exit("c", code);
        lab.until(phase, || lab.phase() == phase).await;
        let asleep = || lab.runtime.all().0.iter().all(|sandbox| !sandbox.ready);
        lab.until("its sandbox is stopped", asleep).await;
        assert_eq!(lab.runtime.all().1.len(), 1, "its end can still be read");
    }
}

#[tokio::test]
async fn init_containers_end_before_the_others_begin() {
    let lab = Lab::with(
        &["i:1"],
        &json!({
            "initContainers": [{ "name": "a", "image": "i:1" }, { "name": "b", "image": "i:1" }],
            "containers": [{ "name": "c", "image": "i:1" }],
        }),
    );
    lab.runtime.exit_at_once("a", 0);
    lab.runtime.exit_at_once("b", 0);
    let _worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    let starts: Vec<_> =
        lab.runtime.calls().into_iter().filter(|call| call.starts_with("start")).collect();
    assert_eq!(starts, ["start a", "start b", "start c"]);
}

#[tokio::test]
async fn a_hook_runs_before_the_stop() {
    let hook = json!({ "lifecycle": { "preStop": { "exec": { "command": ["bye"] } } } });
    let lab = Lab::with(&["i:1"], &one(&hook));
    let mut worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.delete(30);
    worker.finished().await;
    let calls = lab.runtime.calls();
    let at = |wanted: &str| calls.iter().position(|call| call.starts_with(wanted)).unwrap();
    assert!(at("exec c bye") < at("stop c"), "{calls:?}");
}

#[tokio::test]
async fn a_container_whose_liveness_probe_fails_is_restarted() {
    let probe = json!({ "livenessProbe": {
        "exec": { "command": ["ok"] }, "periodSeconds": 1, "failureThreshold": 1,
    } });
    let lab = Lab::with(&["i:1"], &one(&probe));
    lab.runtime.exec_exits(1);
    let _worker = lab.start();
    lab.until("it was restarted", || lab.runtime.running("c").is_some_and(|c| c.attempt > 0)).await;
}

#[tokio::test]
async fn a_container_is_ready_when_its_probe_says_so() {
    let probe = json!({ "readinessProbe": {
        "exec": { "command": ["ok"] }, "periodSeconds": 1, "failureThreshold": 1,
    } });
    let lab = Lab::with(&["i:1"], &one(&probe));
    lab.runtime.exec_exits(1);
    let _worker = lab.start();
    let asked = || lab.runtime.calls().contains(&"exec c ok".to_owned());
    lab.until("it was asked", || lab.phase() == "Running" && asked()).await;
    assert!(!is_ready(&lab.status()));
    lab.runtime.exec_exits(0);
    lab.until("it is ready", || is_ready(&lab.status())).await;
}

/// However calls fail, a pod gets where it should and leaves nothing behind.
#[tokio::test]
async fn a_runtime_that_fails_now_and_then_only_costs_time() {
    for one_in in [2, 3, 5, 8] {
        let lab = Lab::new(&["i:1"]);
        lab.runtime.fail_every(Some(one_in));
        let mut worker = lab.start();
        lab.until("it runs", || lab.phase() == "Running").await;
        worker.delete(1);
        worker.finished().await;
        let (sandboxes, containers) = lab.runtime.all();
        assert!(sandboxes.is_empty() && containers.is_empty(), "one in {one_in}");
        assert!(lab.api.deleted());
    }
}

/// A pod that mounts a ConfigMap and its own labels, looked at again all the time.
fn with_files() -> Lab {
    let spec = json!({
        "containers": [{ "name": "c", "image": "i:1" }],
        "volumes": [
            { "name": "v", "configMap": { "name": "m" } },
            { "name": "d", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            ] } },
        ],
    });
    let timers = Timers { volume_refresh: Duration::from_millis(20), ..Timers::default() };
    let lab = Lab::with_timers(&["i:1"], &spec, timers);
    set_config_map(&lab, "old");
    lab
}

fn set_config_map(lab: &Lab, text: &str) {
    let data = [("k".to_owned(), text.to_owned())].into();
    let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    lab.api.config_maps.lock().insert("m".to_owned(), map);
}

fn file(lab: &Lab, path: &str) -> String {
    let volumes = lab.context.paths.pod("u").join("volumes");
    std::fs::read_to_string(volumes.join(path)).unwrap_or_default()
}

#[tokio::test]
async fn mounted_files_follow_what_they_come_from() {
    let lab = with_files();
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    let container = lab.runtime.running("c").unwrap();
    assert_eq!(file(&lab, "v/k"), "old");
    set_config_map(&lab, "new");
    lab.until("the file follows", || file(&lab, "v/k") == "new").await;
    worker.desired.send_modify(|desired| {
        let mut pod = desired.pod.as_ref().clone();
        pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        desired.pod = Arc::new(pod);
    });
    lab.until("the labels follow", || file(&lab, "d/labels") == "a=\"b\"").await;
    assert_eq!(lab.runtime.running("c").unwrap(), container, "the container was not touched");
}

#[tokio::test]
async fn mounted_files_stay_when_what_they_come_from_is_deleted() {
    let lab = with_files();
    let _worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    lab.api.config_maps.lock().clear();
    let asked = || lab.api.calls.lock().iter().filter(|call| **call == "config map").count();
    let before = asked();
    lab.until("it was looked for", || asked() > before + 1).await;
    assert_eq!(file(&lab, "v/k"), "old");
    assert!(lab.runtime.running("c").is_some());
}

fn sized(cpu: &str, memory: &str, policy: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory });
    one(&json!({
        "resources": { "requests": amounts, "limits": amounts },
        "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": policy }],
    }))
}

impl super::testing::Running {
    fn resize(&self, spec: &Value) {
        let spec = serde_json::from_value(spec.clone()).unwrap();
        self.desired.send_modify(|desired| Arc::make_mut(&mut desired.pod).spec = Some(spec));
    }
}

/// What is said of the container's CPU: promised, given; and of resizing.
fn cpu_told(status: &PodStatus) -> (String, String, Vec<String>) {
    let container = status.container_statuses.clone().unwrap_or_default().remove(0);
    let cpu = |list: Option<BTreeMap<String, _>>| {
        let amount: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            list.and_then(|mut list| list.remove("cpu"));
        amount.map(|amount| amount.0).unwrap_or_default()
    };
    let conditions = status.conditions.clone().unwrap_or_default().into_iter();
    let resizing = conditions.filter(|condition| condition.type_.starts_with("PodResize"));
    (
        cpu(container.allocated_resources),
        cpu(container.resources.and_then(|given| given.requests)),
        resizing.map(|c| format!("{} {}", c.type_, c.reason.unwrap_or_default())).collect(),
    )
}

fn told(promised: &str, given: &str, resizing: &[&str]) -> (String, String, Vec<String>) {
    let resizing = resizing.iter().map(|text| (*text).to_owned()).collect();
    (promised.to_owned(), given.to_owned(), resizing)
}

#[tokio::test]
async fn a_pod_is_resized_in_place() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "NotRequired"));
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    assert_eq!(cpu_told(&lab.status()), told("500m", "500m", &[]));
    worker.resize(&sized("1", "64Mi", "NotRequired"));
    lab.until("it has more", || cpu_told(&lab.status()) == told("1", "1", &[])).await;
    assert_eq!(lab.runtime.calls().last().unwrap(), "update c 1024");
    assert_eq!(lab.status().container_statuses.unwrap()[0].restart_count, 0);
}

#[tokio::test]
async fn a_container_that_wants_a_restart_to_be_resized_gets_one() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "RestartContainer"));
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.resize(&sized("1", "64Mi", "RestartContainer"));
    lab.until("it has more", || {
        lab.phase() == "Running" && cpu_told(&lab.status()) == told("1", "1", &[])
    })
    .await;
    lab.until("it was started anew", || {
        lab.status().container_statuses.unwrap()[0].restart_count == 1
    })
    .await;
    let calls = lab.runtime.calls();
    assert!(!calls.iter().any(|call| call.starts_with("update")), "{calls:?}");
}

#[tokio::test]
async fn a_resize_that_the_node_cannot_take_on_waits_and_changes_nothing() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "NotRequired"));
    let other: Pod = serde_json::from_value(json!({
        "metadata": { "uid": "other" }, "spec": sized("1", "64Mi", "NotRequired"),
    }))
    .unwrap();
    lab.context.allocations.admit(&other).await;
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.resize(&sized("1500m", "64Mi", "NotRequired"));
    let deferred = told("500m", "500m", &["PodResizePending Deferred"]);
    lab.until("it waits", || cpu_told(&lab.status()) == deferred).await;
    lab.context.allocations.forget("other").await;
    lab.until("there is room", || cpu_told(&lab.status()) == told("1500m", "1500m", &[])).await;
    worker.resize(&sized("64", "64Mi", "NotRequired"));
    let infeasible = told("1500m", "1500m", &["PodResizePending Infeasible"]);
    lab.until("it is refused", || cpu_told(&lab.status()) == infeasible).await;
}

#[tokio::test]
async fn memory_in_use_is_not_taken_away() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "NotRequired"));
    lab.runtime.uses_memory(48 << 20);
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.resize(&sized("500m", "32Mi", "NotRequired"));
    let failed = told("500m", "500m", &["PodResizeInProgress Error"]);
    lab.until("it is told", || cpu_told(&lab.status()) == failed).await;
    let calls = lab.runtime.calls();
    assert!(!calls.iter().any(|call| call.starts_with("update")), "{calls:?}");
}

#[tokio::test]
async fn an_agent_that_starts_anew_restarts_no_container_for_a_resize_it_has_done() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "RestartContainer"));
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    worker.resize(&sized("1", "64Mi", "RestartContainer"));
    lab.until("it was started anew", || {
        lab.runtime.calls().iter().filter(|c| *c == "start c").count() == 2
    })
    .await;
    lab.until("an agent that starts anew would know", || {
        let reopened = Allocations::open(&lab.context.paths, testing::ROOM).unwrap();
        reopened.given("u")["c"].requests.as_ref().unwrap()["cpu"].0 == "1"
    })
    .await;
    worker.shutdown.cancel();
}

#[tokio::test]
async fn what_a_container_is_given_is_noted_once_it_has_started() {
    let lab = Lab::with(&["i:1"], &sized("500m", "64Mi", "RestartContainer"));
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    // A restart that cannot succeed yet, for want of an image.
    let mut resized = sized("1", "64Mi", "RestartContainer");
    resized["containers"][0]["image"] = json!("i:2");
    worker.resize(&resized);
    lab.until("it was tried", || lab.runtime.pulls() > 0).await;
    let on_disk = || {
        let node = Allocations::open(&lab.context.paths, testing::ROOM).unwrap();
        node.given("u")["c"].requests.as_ref().unwrap()["cpu"].0.clone()
    };
    assert_eq!(
        on_disk(),
        "500m",
        "an agent that starts now must know that it is yet to be restarted"
    );
    lab.runtime.publish("i:2");
    lab.until("it was started anew", || lab.runtime.running("c").is_some()).await;
    lab.until("it is noted", || on_disk() == "1").await;
}

#[tokio::test]
async fn a_container_that_is_never_restarted_is_for_a_resize_and_the_pod_goes_on() {
    let mut spec = sized("500m", "64Mi", "RestartContainer");
    spec["restartPolicy"] = json!("Never");
    let lab = Lab::with(&["i:1"], &spec);
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    let mut resized = sized("1", "64Mi", "RestartContainer");
    resized["restartPolicy"] = json!("Never");
    worker.resize(&resized);
    lab.until("it has more", || cpu_told(&lab.status()) == told("1", "1", &[])).await;
    let written = lab.api.written.lock();
    let phases: Vec<_> = written.iter().filter_map(|status| status.phase.clone()).collect();
    drop(written);
    assert!(!phases.iter().any(|phase| phase == "Failed" || phase == "Succeeded"), "{phases:?}");
}

#[tokio::test]
async fn an_evicted_pod_is_told_to_have_failed_and_nothing_of_it_is_kept() {
    let lab = Lab::new(&["i:1"]);
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    let message = "The node was low on resource: memory. ";
    let eviction = Eviction { message: message.to_owned(), grace: Duration::from_secs(1) };
    worker.desired.send_modify(|desired| desired.eviction = Some(eviction));
    lab.until("it has failed", || lab.phase() == "Failed").await;
    let gone = || lab.runtime.all().0.is_empty() && !lab.context.paths.pod("u").exists();
    lab.until("nothing is left", gone).await;
    let status = lab.status();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some(message));
    let ended = status.container_statuses.clone().unwrap()[0].state.clone().unwrap().terminated;
    assert_eq!(ended.unwrap().exit_code, 143);
    let all = status.conditions.clone().unwrap();
    let found = all.iter().find(|one| one.type_ == "DisruptionTarget").unwrap();
    assert_eq!(found.reason.as_deref(), Some("TerminationByKubelet"));
    assert_eq!((found.status.as_str(), found.message.as_deref()), ("True", Some(message)));
    assert!(lab.runtime.calls().contains(&"stop c 1s".to_owned()), "{:?}", lab.runtime.calls());
    // While containers end it has not failed yet.
    let written = lab.api.written.lock().clone();
    let running = |status: &PodStatus| {
        status
            .container_statuses
            .iter()
            .flatten()
            .any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()))
    };
    let failed = |status: &&PodStatus| status.phase.as_deref() == Some("Failed");
    assert!(!written.iter().filter(failed).any(running));
}

#[tokio::test]
async fn an_agent_that_starts_anew_lets_an_evicted_pod_be_and_its_end_stands() {
    let mut lab = Lab::new(&["i:1"]);
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": "m" });
    lab.pod.status = Some(serde_json::from_value(status).unwrap());
    let mut worker = lab.start();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(lab.api.written.lock().is_empty(), "{:?}", lab.status());
    assert!(lab.runtime.calls().is_empty(), "{:?}", lab.runtime.calls());
    worker.delete(30);
    worker.finished().await;
    assert!(lab.api.deleted());
}

#[tokio::test]
async fn a_node_short_of_disk_takes_no_pod_in_and_lets_those_be_that_run() {
    use crate::evict::signal::Condition;

    let lab = Lab::new(&["i:1"]);
    lab.context.pressure.set([Condition::Disk].into());
    let worker = lab.start();
    lab.until("it is refused", || lab.phase() == "Failed").await;
    let status = lab.status();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = "Pod was rejected: The node had condition: [DiskPressure]. ";
    assert_eq!(status.message.as_deref(), Some(message));
    assert_eq!(status.container_statuses, None);
    assert!(lab.runtime.all().0.is_empty() && lab.runtime.all().1.is_empty());
    drop(worker);

    let lab = Lab::new(&["i:1"]);
    let worker = lab.start();
    lab.until("it runs", || lab.phase() == "Running").await;
    lab.context.pressure.set([Condition::Disk].into());
    lab.runtime.exit("c", 1);
    lab.until("it runs again", || lab.runtime.running("c").is_some_and(|c| c.attempt == 1)).await;
    drop(worker);
    // Neither does another agent refuse what ran before it.
    let _worker = lab.start();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lab.phase(), "Running");
}
