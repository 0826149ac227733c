//! Tables of what the API is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::plan::{Memory, ProbeState, Volumes, plan};
use crate::restarts::{BackoffRule, Backoffs};
use crate::runtime::{Container, ContainerState, Sandbox, annotations};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn memory() -> Memory {
    let rule = BackoffRule {
        initial: Duration::from_secs(10),
        max: Duration::from_secs(300),
        reset: Duration::from_secs(600),
    };
    Memory { volumes: Volumes::Ready, ..Memory::new(Backoffs::new(rule)) }
}

fn pod(spec: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 3 },
        "spec": spec,
    }))
    .unwrap()
}

fn one() -> Pod {
    pod(&json!({ "containers": [{ "name": "c", "image": "i:1" }] }))
}

fn container(name: &str, state: ContainerState, exit_code: i32) -> Container {
    Container {
        id: format!("id-{name}"),
        sandbox_id: "s".into(),
        name: name.into(),
        pod_uid: "u".into(),
        attempt: 0,
        state,
        created_at: now(),
        started_at: Some(now()),
        finished_at: (state == ContainerState::Exited).then(now),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i:1".into(),
        image_id: "sha256:x".into(),
        annotations: BTreeMap::new(),
    }
}

fn seen(containers: Vec<Container>) -> Observed {
    let sandbox = Sandbox {
        id: "s".into(),
        pod_name: "p".into(),
        pod_namespace: "ns".into(),
        pod_uid: "u".into(),
        attempt: 0,
        ready: true,
        created_at: now(),
        ips: vec!["10.1.0.5".parse().unwrap()],
    };
    Observed { sandboxes: vec![sandbox], containers }
}

fn told(pod: &Pod, observed: &Observed, memory: &Memory) -> Value {
    let busy = BTreeSet::new();
    let input = Input { pod, gone: false, observed, memory, busy: &busy, now: now() };
    json!(pod_status(&input, &plan(&input), "192.0.2.1".parse().unwrap()))
}

/// `type: status reason message`, of the conditions.
fn conditions(status: &Value) -> BTreeMap<String, String> {
    let all = status["conditions"].as_array().unwrap();
    all.iter()
        .map(|c| {
            let word = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
            let text = format!("{} {} {}", word("status"), word("reason"), word("message"));
            (word("type"), text.trim().to_owned())
        })
        .collect()
}

fn ready(id: &str) -> Memory {
    let mut memory = memory();
    memory
        .probes
        .insert(id.into(), ProbeState { started: true, ready: true, ..ProbeState::default() });
    memory
}

#[test]
fn a_running_pod_is_told_with_addresses_and_conditions() {
    let status =
        told(&one(), &seen(vec![container("c", ContainerState::Running, 0)]), &ready("id-c"));
    assert_eq!(status["phase"], "Running");
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("10.1.0.5"), &json!("192.0.2.1")));
    assert_eq!(status["qosClass"], "BestEffort");
    let told = conditions(&status);
    for kind in
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    {
        assert_eq!(told[kind], "True", "{kind}");
    }
    let container = &status["containerStatuses"][0];
    assert_eq!(container["containerID"], "containerd://id-c");
    assert_eq!(container["ready"], true);
    assert_eq!(container["state"]["running"]["startedAt"], "1970-01-12T13:46:40Z");
    assert_eq!(status["conditions"][0]["observedGeneration"], 3);
}

#[test]
fn before_its_containers_run_a_pod_says_what_they_wait_for() {
    let status = told(&one(), &Observed::default(), &memory());
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let told = conditions(&status);
    assert_eq!(told["PodReadyToStartContainers"], "False");
    assert_eq!(told["Ready"], "False ContainersNotReady containers with unready status: [c]");
    let with_init = pod(&json!({
        "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }],
    }));
    let status =
        self::told(&with_init, &seen(vec![container("i", ContainerState::Running, 0)]), &memory());
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        conditions(&status)["Initialized"],
        "False ContainersNotInitialized containers with incomplete status: [i]"
    );
}

#[test]
fn ends_have_their_reasons_codes_and_last_words() {
    // Exit code, the runtime's reason, what is told.
    for (code, reason, want) in
        [(0, "", "Completed"), (3, "", "Error"), (137, "OOMKilled", "OOMKilled")]
    {
        let pod = pod(&json!({ "restartPolicy": "Never", "containers": [{ "name": "c" }] }));
        let mut ended = container("c", ContainerState::Exited, code);
        ended.reason = reason.into();
        let words = annotations::TERMINATION_MESSAGE_TEXT.to_owned();
        ended.annotations.insert(words, "é".repeat(3000));
        let status = told(&pod, &seen(vec![ended]), &memory());
        let state = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&state["exitCode"], &state["reason"]), (&json!(code), &json!(want)));
        assert_eq!(state["message"].as_str().unwrap().len(), 4096, "cut at a whole character");
        assert_eq!(status["phase"], if code == 0 { "Succeeded" } else { "Failed" });
        let ready = if code == 0 { "False PodCompleted" } else { "False PodFailed" };
        assert_eq!(conditions(&status)["Ready"], ready);
    }
}

#[test]
fn a_crashed_container_waits_and_its_end_is_the_last_state() {
    let mut memory = memory();
    memory.restarts.note("c", now(), now());
    let status = told(&one(), &seen(vec![container("c", ContainerState::Exited, 7)]), &memory);
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(status["phase"], "Running");
}

#[test]
fn readiness_gates_of_others_are_waited_for() {
    let mut pod = pod(&json!({
        "containers": [{ "name": "c" }], "readinessGates": [{ "conditionType": "x/gate" }],
    }));
    let observed = seen(vec![container("c", ContainerState::Running, 0)]);
    let told_ready = |pod: &Pod| conditions(&told(pod, &observed, &ready("id-c")))["Ready"].clone();
    assert!(told_ready(&pod).contains("does not exist"), "{}", told_ready(&pod));
    for (value, want) in [("False", "False"), ("True", "True")] {
        let gate = json!({ "conditions": [{ "type": "x/gate", "status": value }] });
        pod.status = serde_json::from_value(gate).unwrap();
        assert!(told_ready(&pod).starts_with(want), "{}", told_ready(&pod));
        assert_eq!(conditions(&told(&pod, &observed, &ready("id-c")))["x/gate"], value, "it stays");
    }
}

#[test]
fn a_time_of_transition_stays_until_the_status_changes() {
    let mut pod = one();
    pod.status = serde_json::from_value(json!({ "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z" },
        { "type": "Initialized", "status": "False", "lastTransitionTime": "1970-01-01T00:00:00Z" },
    ] }))
    .unwrap();
    let status =
        told(&pod, &seen(vec![container("c", ContainerState::Running, 0)]), &ready("id-c"));
    let at = |kind: &str| {
        let all = status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == kind).unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!(at("Ready"), "1970-01-01T00:00:00Z");
    assert_eq!(at("Initialized"), "1970-01-12T13:46:40Z");
}

#[test]
fn a_pod_past_its_deadline_has_failed_for_that_reason() {
    let mut pod = pod(&json!({ "activeDeadlineSeconds": 5, "containers": [{ "name": "c" }] }));
    pod.status = serde_json::from_value(json!({ "startTime": "1970-01-12T13:46:30Z" })).unwrap();
    let status =
        told(&pod, &seen(vec![container("c", ContainerState::Running, 0)]), &ready("id-c"));
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("DeadlineExceeded"))
    );
    // Told once, it stays so.
    pod.status = serde_json::from_value(status).unwrap();
    let again = told(&pod, &seen(vec![container("c", ContainerState::Exited, 137)]), &memory());
    assert_eq!((&again["phase"], &again["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
}

#[test]
fn a_pod_that_is_not_let_in_has_failed_without_being_started() {
    let mut pod = pod(&json!({
        "containers": [{ "name": "c" }],
        "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] },
    }));
    pod.metadata.generation = Some(2);
    let status = told(&pod, &Observed::default(), &memory());
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("SysctlForbidden"))
    );
    assert_eq!(status["observedGeneration"], 2);
}

#[test]
fn a_stopped_pod_of_which_a_container_is_lost_says_so() {
    let mut pod = one();
    pod.metadata.deletion_timestamp = Some(Time(now()));
    let status = told(&pod, &Observed::default(), &memory());
    let state = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&state["exitCode"], &state["reason"]),
        (&json!(137), &json!("ContainerStatusUnknown"))
    );
    assert_eq!(status["phase"], "Failed");
}
