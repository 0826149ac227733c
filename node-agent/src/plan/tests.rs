//! Tables of what is planned, by what is wanted and what is seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::restarts::BackoffRule;
use crate::runtime::ContainerState::{Created, Exited, Running};

const RULE: BackoffRule = BackoffRule {
    initial: Duration::from_secs(10),
    max: Duration::from_secs(300),
    reset: Duration::from_secs(600),
};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn pod(spec: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        "spec": spec,
    }))
    .unwrap()
}

/// One container `c`, and whatever else the spec says.
fn simple(more: &Value) -> Pod {
    let mut spec = json!({ "containers": [{ "name": "c", "image": "i:1" }] });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod(&spec)
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: format!("s{attempt}"),
        pod_name: "p".into(),
        pod_namespace: "ns".into(),
        pod_uid: "u".into(),
        attempt,
        ready,
        created_at: now(),
        ips: Vec::new(),
    }
}

fn instance(name: &str, attempt: u32, state: ContainerState, exit_code: i32) -> Container {
    Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s0".into(),
        name: name.into(),
        pod_uid: "u".into(),
        attempt,
        state,
        created_at: now(),
        started_at: Some(now()),
        finished_at: (state == Exited).then(now),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        annotations: BTreeMap::new(),
    }
}

/// Name, attempt, state and exit code of an instance.
type Seen = (&'static str, u32, ContainerState, i32);

/// What is seen: a sandbox that is ready, and these containers.
fn seen(containers: &[Seen]) -> Observed {
    Observed {
        sandboxes: vec![sandbox(0, true)],
        containers: containers.iter().map(|(n, a, s, e)| instance(n, *a, *s, *e)).collect(),
    }
}

fn memory() -> Memory {
    Memory { volumes: Volumes::Ready, ..Memory::new(Backoffs::new(RULE)) }
}

fn planned(pod: &Pod, observed: &Observed, memory: &Memory) -> Plan {
    let busy = BTreeSet::new();
    plan(&Input { pod, gone: false, observed, memory, busy: &busy, now: now() })
}

/// The steps in words.
fn words(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::PrepareVolumes => "volumes".to_owned(),
            Step::RunSandbox { attempt } => format!("sandbox {attempt}"),
            Step::StartContainer { name, attempt, .. } => format!("start {name} {attempt}"),
            Step::StopContainer { id, grace, .. } => format!("stop {id} {}s", grace.as_secs()),
            Step::ResizeContainer { id, .. } => format!("resize {id}"),
            Step::RemoveContainer { id } => format!("remove {id}"),
            Step::StopSandbox { id } => format!("stop sandbox {id}"),
            Step::RemoveSandbox { id } => format!("remove sandbox {id}"),
            Step::TearDown => "tear down".to_owned(),
            Step::DeletePod => "delete".to_owned(),
        })
        .collect()
}

fn steps(pod: &Pod, observed: &Observed, memory: &Memory) -> Vec<String> {
    words(&planned(pod, observed, memory))
}

#[test]
fn a_pod_is_brought_up_step_by_step() {
    let pod = simple(&json!({}));
    let nothing = Observed::default();
    let unknown = Memory { volumes: Volumes::Unknown, ..memory() };
    assert_eq!(steps(&pod, &nothing, &unknown), ["volumes"]);
    assert_eq!(steps(&pod, &nothing, &memory()), ["sandbox 0"]);
    assert_eq!(steps(&pod, &seen(&[]), &memory()), ["start c 0"]);
    assert!(steps(&pod, &seen(&[("c", 0, Running, 0)]), &memory()).is_empty());
}

#[test]
fn a_sandbox_that_died_is_replaced_and_its_containers_with_it() {
    let pod = simple(&json!({}));
    let mut observed = seen(&[("c", 0, Exited, 137)]);
    observed.sandboxes[0].ready = false;
    assert_eq!(steps(&pod, &observed, &memory()), ["sandbox 1"]);
    observed.sandboxes.push(sandbox(1, true));
    // The old instance stays for its log, and with it its sandbox.
    assert_eq!(steps(&pod, &observed, &memory()), ["start c 1"]);
    let mut later = observed.clone();
    for attempt in [1, 2] {
        let next = Container { sandbox_id: "s1".into(), ..instance("c", attempt, Exited, 1) };
        later.containers.push(next);
    }
    later.containers[2].state = Running;
    assert_eq!(steps(&pod, &later, &memory()), ["remove c0", "remove sandbox s0"]);
}

#[test]
fn restart_policies_decide_what_follows_an_end() {
    // Policy, exit code, steps, and how the pod ended.
    let table = [
        ("Always", 0, Some("start c 1"), None),
        ("Always", 1, Some("start c 1"), None),
        ("OnFailure", 1, Some("start c 1"), None),
        ("OnFailure", 0, Some("stop sandbox s0"), Some(Outcome::Succeeded)),
        ("Never", 0, Some("stop sandbox s0"), Some(Outcome::Succeeded)),
        ("Never", 1, Some("stop sandbox s0"), Some(Outcome::Failed)),
    ];
    for (policy, code, step, end) in table {
        let pod = simple(&json!({ "restartPolicy": policy }));
        let observed = seen(&[("c", 0, Exited, code)]);
        let found = steps(&pod, &observed, &memory());
        assert_eq!(found, step.into_iter().collect::<Vec<_>>(), "{policy} {code}");
        assert_eq!(outcome(&pod, &observed, &Resize::default()), end, "{policy} {code}");
    }
}

#[test]
fn init_containers_run_one_after_the_other_before_all_others() {
    let pod = pod(&json!({
        "initContainers": [{ "name": "a" }, { "name": "b" }],
        "containers": [{ "name": "c" }, { "name": "d" }],
    }));
    let table: [(&[Seen], &[&str]); 6] = [
        (&[], &["start a 0"]),
        (&[("a", 0, Running, 0)], &[]),
        (&[("a", 0, Exited, 1)], &["start a 1"]),
        (&[("a", 0, Exited, 0)], &["start b 0"]),
        (&[("a", 0, Exited, 0), ("b", 0, Exited, 0)], &["start c 0", "start d 0"]),
        (&[("a", 0, Exited, 0), ("b", 0, Exited, 0), ("c", 0, Running, 0)], &["start d 0"]),
    ];
    for (containers, want) in table {
        assert_eq!(steps(&pod, &seen(containers), &memory()), want, "{containers:?}");
    }
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let pod = pod(&json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "a" }],
        "containers": [{ "name": "c" }],
    }));
    let observed = seen(&[("a", 0, Exited, 3)]);
    assert_eq!(outcome(&pod, &observed, &Resize::default()), Some(Outcome::Failed));
    assert_eq!(steps(&pod, &observed, &memory()), ["stop sandbox s0"]);
}

fn with_sidecars() -> Pod {
    pod(&json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 20,
        "initContainers": [
            { "name": "s", "restartPolicy": "Always" },
            { "name": "i" },
            { "name": "t", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "c" }],
    }))
}

#[test]
fn what_follows_a_sidecar_waits_until_it_has_started() {
    let pod = with_sidecars();
    assert_eq!(steps(&pod, &seen(&[]), &memory()), ["start s 0"]);
    let observed = seen(&[("s", 0, Running, 0)]);
    let mut known = memory();
    assert!(steps(&pod, &observed, &known).is_empty());
    known.probes.insert("s0".into(), ProbeState { started: true, ..ProbeState::default() });
    assert_eq!(steps(&pod, &observed, &known), ["start i 0"]);
}

#[test]
fn sidecars_outlive_the_others_and_end_in_reverse_order() {
    let mut pod = with_sidecars();
    let all =
        [("s", 0, Running, 0), ("i", 0, Exited, 0), ("t", 0, Running, 0), ("c", 0, Running, 0)];
    let mut observed = seen(&all);
    pod.metadata.deletion_timestamp = Some(Time(now() + Duration::from_secs(7)));
    pod.metadata.deletion_grace_period_seconds = Some(20);
    assert_eq!(steps(&pod, &observed, &memory()), ["stop c0 20s"]);
    observed.containers[3].state = Exited;
    assert_eq!(steps(&pod, &observed, &memory()), ["stop t0 7s"], "in what is left of the grace");
    observed.containers[2].state = Exited;
    assert_eq!(steps(&pod, &observed, &memory()), ["stop s0 7s"]);
    // The grace that is left shrinks while a sidecar ends: that is no reason to stop it again.
    let busy = BTreeSet::from(["stop s0 9".to_owned()]);
    let memory = memory();
    let input = Input {
        pod: &pod,
        gone: false,
        observed: &observed,
        memory: &memory,
        busy: &busy,
        now: now(),
    };
    assert!(plan(&input).steps.is_empty());
}

#[test]
fn sidecars_of_a_pod_that_ended_are_stopped_too() {
    let pod = with_sidecars();
    let observed = seen(&[("s", 0, Running, 0), ("t", 0, Running, 0), ("c", 0, Exited, 0)]);
    assert_eq!(outcome(&pod, &observed, &Resize::default()), Some(Outcome::Succeeded));
    assert_eq!(steps(&pod, &observed, &memory()), ["stop t0 20s"]);
}

#[test]
fn a_deleted_pod_is_stopped_reported_removed_and_let_go_in_this_order() {
    let mut pod = simple(&json!({ "terminationGracePeriodSeconds": 5 }));
    pod.metadata.deletion_timestamp = Some(Time(now()));
    let mut observed = seen(&[("c", 0, Running, 0)]);
    let mut known = memory();
    assert_eq!(steps(&pod, &observed, &known), ["stop c0 5s"]);
    observed.containers[0].state = Exited;
    assert_eq!(steps(&pod, &observed, &known), ["stop sandbox s0"]);
    observed.sandboxes[0].ready = false;
    assert!(steps(&pod, &observed, &known).is_empty(), "the end is not yet reported");
    known.final_status_written = true;
    assert_eq!(steps(&pod, &observed, &known), ["remove c0"]);
    observed.containers.clear();
    assert_eq!(steps(&pod, &observed, &known), ["remove sandbox s0"]);
    observed.sandboxes.clear();
    assert_eq!(steps(&pod, &observed, &known), ["tear down"]);
    known.torn_down = true;
    assert_eq!(steps(&pod, &observed, &known), ["delete"]);
    known.deleted = true;
    assert!(planned(&pod, &observed, &known).finished);
}

#[test]
fn a_pod_the_api_does_not_have_needs_no_report() {
    let pod = simple(&json!({}));
    let observed = Observed { sandboxes: vec![sandbox(0, false)], ..seen(&[("c", 0, Exited, 0)]) };
    let (memory, busy) = (memory(), BTreeSet::new());
    let input = Input {
        pod: &pod,
        gone: true,
        observed: &observed,
        memory: &memory,
        busy: &busy,
        now: now(),
    };
    assert_eq!(words(&plan(&input)), ["remove c0"]);
}

#[test]
fn nothing_is_removed_while_a_start_is_under_way() {
    let mut pod = simple(&json!({}));
    pod.metadata.deletion_timestamp = Some(Time(now()));
    let memory = Memory { final_status_written: true, ..memory() };
    let observed = seen(&[("c", 0, Created, 0)]);
    for key in ["start c", "sandbox"] {
        let busy = BTreeSet::from([key.to_owned()]);
        let input = Input {
            pod: &pod,
            gone: false,
            observed: &observed,
            memory: &memory,
            busy: &busy,
            now: now(),
        };
        assert_eq!(plan(&input), Plan::default(), "{key}");
    }
}

#[test]
fn a_container_made_by_an_agent_that_went_away_is_made_again() {
    let pod = simple(&json!({}));
    let observed = seen(&[("c", 2, Created, 0)]);
    assert_eq!(steps(&pod, &observed, &memory()), ["remove c2"]);
}

#[test]
fn restarts_are_counted_on_where_the_runtime_forgot_the_container() {
    let mut pod = simple(&json!({}));
    pod.status = serde_json::from_value(json!({ "containerStatuses": [{
        "name": "c", "restartCount": 4, "containerID": "containerd://x",
        "image": "", "imageID": "", "ready": false,
    }] }))
    .unwrap();
    assert_eq!(steps(&pod, &seen(&[]), &memory()), ["start c 5"]);
}

#[test]
fn a_container_that_crashes_waits_longer_each_time() {
    let pod = simple(&json!({}));
    let observed = seen(&[("c", 1, Exited, 1)]);
    let mut known = memory();
    known.restarts.note("c", now(), now());
    let plan = planned(&pod, &observed, &known);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.wake_at, Some(now() + Duration::from_secs(10)));
    assert_eq!(plan.waiting["c"].reason, "CrashLoopBackOff");
    assert_eq!(plan.waiting["c"].message, "back-off 10s restarting failed container=c pod=p_ns(u)");
}

#[test]
fn a_failed_pull_is_shown_as_it_is_and_then_as_waiting() {
    let pod = simple(&json!({}));
    let failure = |ago: u64| Failure {
        reason: "ErrImagePull".into(),
        message: "no such image".into(),
        at: now() - Duration::from_secs(ago),
        retry_at: now() + Duration::from_secs(5),
    };
    for (ago, reason, message) in [
        (0, "ErrImagePull", "no such image"),
        (3, "ImagePullBackOff", "Back-off pulling image \"i:1\": ErrImagePull: no such image"),
    ] {
        let mut known = memory();
        known.starts.insert("c".into(), failure(ago));
        let plan = planned(&pod, &seen(&[]), &known);
        assert!(plan.steps.is_empty());
        assert_eq!(
            (plan.waiting["c"].reason.as_str(), plan.waiting["c"].message.as_str()),
            (reason, message)
        );
    }
}

#[test]
fn an_unhealthy_container_is_stopped_with_the_grace_of_its_probe() {
    let container = |probe: &Value| {
        pod(&json!({
            "terminationGracePeriodSeconds": 60,
            "containers": [{ "name": "c", "livenessProbe": probe }],
        }))
    };
    let mut known = memory();
    let unhealthy = Some("failed liveness probe".to_owned());
    known.probes.insert("c0".into(), ProbeState { unhealthy, ..ProbeState::default() });
    let observed = seen(&[("c", 0, Running, 0)]);
    assert_eq!(steps(&container(&json!({})), &observed, &known), ["stop c0 60s"]);
    let own = container(&json!({ "terminationGracePeriodSeconds": 3 }));
    let plan = planned(&own, &observed, &known);
    assert_eq!(words(&plan), ["stop c0 3s"]);
    let Step::StopContainer { why, .. } = &plan.steps[0] else { panic!("{plan:?}") };
    assert_eq!(why, "Container c failed liveness probe, will be restarted");
}

#[test]
fn a_pod_active_past_its_deadline_is_stopped_and_one_before_it_wakes_for_it() {
    let mut pod = simple(&json!({ "activeDeadlineSeconds": 30 }));
    let started = |ago| {
        let at = Time(now() - Duration::from_secs(ago));
        Some(k8s_openapi::api::core::v1::PodStatus { start_time: Some(at), ..Default::default() })
    };
    let observed = seen(&[("c", 0, Running, 0)]);
    pod.status = started(10);
    let early = planned(&pod, &observed, &memory());
    assert!(early.steps.is_empty());
    assert_eq!(early.wake_at, Some(now() + Duration::from_secs(20)));
    pod.status = started(30);
    assert_eq!(steps(&pod, &observed, &memory()), ["stop c0 30s"]);
}

#[test]
fn a_pod_reported_as_ended_never_runs_again() {
    let mut pod = simple(&json!({}));
    pod.status = serde_json::from_value(json!({ "phase": "Failed" })).unwrap();
    assert!(steps(&pod, &Observed::default(), &memory()).is_empty());
}

#[test]
fn files_from_the_api_are_written_anew_in_their_time() {
    let pod = simple(&json!({}));
    let observed = seen(&[("c", 0, Running, 0)]);
    let mut known = memory();
    known.refresh_at = Some(now() + Duration::from_secs(7));
    let early = planned(&pod, &observed, &known);
    assert!(early.steps.is_empty());
    assert_eq!(early.wake_at, known.refresh_at);
    known.refresh_at = Some(now());
    assert_eq!(planned(&pod, &observed, &known).steps, [Step::PrepareVolumes]);
}

#[test]
fn an_ephemeral_container_is_started_once_beside_whatever_the_pod_is_at() {
    let mut pod = pod(&json!({
        "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }],
        "ephemeralContainers": [{ "name": "e" }],
    }));
    let waiting = seen(&[("i", 0, Running, 0)]);
    assert_eq!(steps(&pod, &waiting, &memory()), ["start e 0"]);
    for state in [Running, Exited] {
        let there = seen(&[("i", 0, Running, 0), ("e", 0, state, 1)]);
        assert!(steps(&pod, &there, &memory()).is_empty(), "{state:?}");
    }
    let told = json!({ "ephemeralContainerStatuses": [{
        "name": "e", "containerID": "containerd://x", "image": "i", "imageID": "i",
        "ready": false, "restartCount": 0,
    }] });
    pod.status = serde_json::from_value(told).unwrap();
    assert!(steps(&pod, &waiting, &memory()).is_empty(), "one that was forgotten stays so");
}

#[test]
fn an_ephemeral_container_does_not_keep_a_pod_from_its_end() {
    let ended = pod(&json!({
        "restartPolicy": "Never", "containers": [{ "name": "c" }],
        "ephemeralContainers": [{ "name": "e" }],
    }));
    let observed = seen(&[("c", 0, Exited, 0), ("e", 0, Running, 0)]);
    assert_eq!(steps(&ended, &observed, &memory()), ["stop e0 30s"]);
}

/// A container `c` with so much CPU, and what becomes of it when that changes.
fn resizable(cpu: &str, policy: &str, restart: &str) -> Pod {
    pod(&json!({ "restartPolicy": restart, "containers": [{
        "name": "c", "image": "i:1", "resources": { "requests": { "cpu": cpu } },
        "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": policy }],
    }]}))
}

/// The container was given a quarter of a processor.
fn given() -> Memory {
    let resources = json!({ "requests": { "cpu": "250m" } });
    let given = [("c".to_owned(), serde_json::from_value(resources).unwrap())].into();
    Memory { resize: Resize { given, ..Resize::default() }, ..memory() }
}

#[test]
fn a_running_container_gets_what_was_promised_in_place_or_by_a_restart() {
    let observed = seen(&[("c", 0, Running, 0)]);
    for (cpu, policy, expected) in [
        ("250m", "NotRequired", vec![]),
        ("0.25", "RestartContainer", vec![]),
        ("500m", "NotRequired", vec!["resize c0"]),
        ("500m", "RestartContainer", vec!["stop c0 30s"]),
    ] {
        let pod = resizable(cpu, policy, "Always");
        assert_eq!(steps(&pod, &observed, &given()), expected, "{cpu} {policy}");
    }
}

#[test]
fn a_container_that_was_stopped_to_be_resized_starts_whatever_its_policy() {
    let observed = seen(&[("c", 0, Exited, 0)]);
    let resized = resizable("500m", "RestartContainer", "OnFailure");
    let mut memory = given();
    memory.restarts.note("c", now(), now());
    assert_eq!(steps(&resized, &observed, &memory), ["start c 1"]);
    let settled = resizable("250m", "RestartContainer", "OnFailure");
    assert_eq!(steps(&settled, &observed, &memory), ["stop sandbox s0"], "it has ended");
}

#[test]
fn a_resize_that_failed_waits_before_it_is_tried_again() {
    let observed = seen(&[("c", 0, Running, 0)]);
    let retry_at = now() + Duration::from_secs(10);
    let failure = Failure { reason: "Error".into(), message: String::new(), at: now(), retry_at };
    let mut memory = given();
    memory.resize.failure = Some(failure);
    let planned = planned(&resizable("500m", "NotRequired", "Always"), &observed, &memory);
    assert_eq!((words(&planned), planned.wake_at), (vec![], Some(retry_at)));
}

#[test]
fn a_container_is_restarted_by_its_rules_its_policy_and_its_pods_in_this_order() {
    let rules = |operator: &str| {
        json!({ "restartPolicy": "Never", "restartPolicyRules": [
            { "action": "Restart", "exitCodes": { "operator": operator, "values": [42] } },
        ] })
    };
    for (own, pods, code, again) in [
        (json!({}), "Never", 1, false),
        (json!({ "restartPolicy": "OnFailure" }), "Never", 1, true),
        (json!({ "restartPolicy": "OnFailure" }), "Always", 0, false),
        (json!({ "restartPolicy": "Never" }), "Always", 1, false),
        (rules("In"), "Always", 42, true),
        (rules("In"), "Always", 1, false),
        (rules("NotIn"), "Always", 42, false),
        (rules("NotIn"), "Always", 1, true),
    ] {
        let mut container = json!({ "name": "c", "image": "i:1" });
        container.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let pod = pod(&json!({ "restartPolicy": pods, "containers": [container] }));
        let planned = steps(&pod, &seen(&[("c", 0, Exited, code)]), &memory());
        let expected = if again { "start c 1" } else { "stop sandbox s0" };
        assert_eq!(planned, [expected], "{own} {pods} {code}");
    }
}

#[test]
fn an_init_container_goes_by_its_own_policy_too() {
    let with = |own: Value, pods: &str| {
        let mut init = json!({ "name": "i", "image": "i:1" });
        init.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let main = json!({ "name": "c", "image": "i:1" });
        let spec = json!({ "restartPolicy": pods, "initContainers": [init], "containers": [main] });
        steps(&pod(&spec), &seen(&[("i", 0, Exited, 1)]), &memory())
    };
    assert_eq!(with(json!({ "restartPolicy": "Never" }), "Always"), ["stop sandbox s0"]);
    assert_eq!(with(json!({ "restartPolicy": "OnFailure" }), "Never"), ["start i 1"]);
    assert_eq!(with(json!({}), "Always"), ["start i 1"]);
}
