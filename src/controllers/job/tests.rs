use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{NewPod, Plan, TRACKING, end, plan, settle};
use super::{make, owners};

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn job(spec: Value, status: Value) -> Job {
    let mut all = json!({
        "parallelism": 2, "backoffLimit": 6,
        "selector": { "matchLabels": { "job": "j" } },
        "template": {
            "metadata": { "labels": { "job": "j" } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "j", "namespace": "default", "uid": "u" },
        "spec": all, "status": status,
    }))
    .unwrap()
}

/// A pod: `NAME STATE [exit=N] [index=N] [failures=N] [ago=SECONDS] [counted]`; states are `running`, `ready`,
/// `succeeded`, `failed`, `deleted`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, state) = (words.next().unwrap(), words.next().unwrap());
    let phase = match state {
        "succeeded" => "Succeeded",
        "failed" => "Failed",
        _ => "Running",
    };
    let mut annotations = serde_json::Map::new();
    let (mut exit, mut ago, mut finalizers) = (1, 3600, json!([TRACKING]));
    for word in words {
        match word.split_once('=') {
            Some(("index", index)) => {
                annotations.insert(super::indexes::COMPLETION_INDEX.to_owned(), index.into());
            }
            Some(("failures", count)) => {
                annotations.insert(super::failure::INDEX_FAILURES.to_owned(), count.into());
            }
            Some(("exit", code)) => exit = code.parse().unwrap(),
            Some(("ago", seconds)) => ago = seconds.parse().unwrap(),
            _ => finalizers = json!([]),
        }
    }
    let ended = (NOW - SignedDuration::from_secs(ago)).to_string();
    let code = if phase == "Succeeded" { 0 } else { exit };
    let terminated = json!({ "terminated": { "exitCode": code, "finishedAt": ended } });
    let is_over = phase != "Running";
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": name, "finalizers": finalizers,
                "annotations": annotations,
                "deletionTimestamp": (state == "deleted").then(|| NOW.to_string()),
            },
            "spec": { "nodeName": "n", "containers": [] },
            "status": {
                "phase": phase,
                "conditions": [{ "type": "Ready", "status": if state == "ready" { "True" } else { "False" } }],
                "containerStatuses": [{
                    "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": if is_over { terminated } else { json!({}) },
                }],
            },
        }))
        .unwrap(),
    )
}

fn planned(job: &Job, pods: &[&str]) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    plan(job, &pods, NOW)
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| owners::name(&pod.metadata)).collect()
}

fn reason(plan: &Plan) -> Option<(&str, &str)> {
    let end = plan.end.as_ref()?;
    Some((&end.type_, end.reason.as_deref().unwrap()))
}

#[test]
fn as_many_pods_run_as_parallelism_and_what_is_left_allow() {
    let completions = |count: i32, parallel: i32| {
        job(json!({ "completions": count, "parallelism": parallel }), json!({}))
    };
    for (size, pods, created, deleted) in [
        (Some((5, 2)), &[][..], 2, 0),
        (Some((5, 2)), &["a running"], 1, 0),
        (Some((1, 2)), &[], 1, 0),
        (Some((2, 2)), &["a succeeded", "b running"], 0, 0),
        (Some((3, 2)), &["a succeeded", "b running"], 1, 0),
        (Some((5, 1)), &["a running", "b ready"], 0, 1),
        (Some((5, 0)), &["a running"], 0, 1),
        (None, &[], 2, 0),
        (None, &["a succeeded", "b running"], 0, 0),
        // The one that ended long ago holds up nobody, the one just now does.
        (Some((5, 2)), &["a failed", "b running"], 1, 0),
        (Some((5, 2)), &["a failed ago=3", "b running"], 0, 0),
        (Some((5, 2)), &["a deleted", "b running"], 0, 0),
    ] {
        let job = size.map_or_else(
            || job(json!({}), json!({})),
            |(count, parallel)| completions(count, parallel),
        );
        let plan = planned(&job, pods);
        assert_eq!((plan.create.len(), plan.delete.len()), (created, deleted), "{pods:?}");
        assert_eq!(reason(&plan), None, "{pods:?}");
    }
    let plan = planned(&completions(5, 1), &["a ready", "b running"]);
    assert_eq!(names(&plan.delete), ["b"], "the one that got least far");
    let plan = planned(&completions(5, 2), &["a failed ago=3", "b running"]);
    assert_eq!(plan.again_after, Some(Duration::from_secs(7)));
    let plan = planned(&completions(5, 2), &["a failed ago=10", "b failed ago=3"]);
    assert_eq!(plan.again_after, Some(Duration::from_secs(17)), "two failures, twice as long");
}

#[test]
fn a_pod_is_counted_once_through_all_steps() {
    let two = json!({ "completions": 2 });
    let fresh = job(two.clone(), json!({}));
    let first = planned(&fresh, &["a succeeded", "b failed", "c running"]);
    let uncounted = first.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!(uncounted.failed, Some(vec!["b".to_owned()]));
    assert_eq!(names(&first.release), ["a", "b"]);
    assert_eq!(first.status.succeeded, None, "not before the finalizer is off");

    // A crash after the status was written: nothing is noted twice.
    let written = serde_json::to_value(&first.status).unwrap();
    let noted = job(two, written);
    let second = planned(&noted, &["a succeeded", "b failed", "c running"]);
    assert_eq!(second.status.uncounted_terminated_pods, Some(uncounted));
    assert_eq!(names(&second.release), ["a", "b"]);

    // A crash after one finalizer was taken off: that one counts, the other waits.
    let third = planned(&noted, &["a succeeded counted", "b failed", "c running"]);
    assert_eq!(names(&third.release), ["b"]);
    let mut status = third.status;
    settle(&mut status, &BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    assert_eq!((status.succeeded, status.failed), (Some(1), None));
    settle(&mut status, &BTreeSet::new());
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
    settle(&mut status, &BTreeSet::new());
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)), "and never again");
}

#[test]
fn a_job_ends_for_one_reason() {
    let exit = |action: &str| {
        json!({ "completions": 3, "podFailurePolicy": { "rules": [{
            "action": action, "onExitCodes": { "operator": "In", "values": [42] },
        }] } })
    };
    let old = (NOW - SignedDuration::from_secs(61)).to_string();
    let begun = json!({ "startTime": old });
    for (spec, status, pods, expected) in [
        (
            json!({ "completions": 1 }),
            json!({}),
            &["a succeeded"][..],
            Some(("Complete", "CompletionsReached")),
        ),
        (json!({ "completions": 0 }), json!({}), &[], Some(("Complete", "CompletionsReached"))),
        (json!({ "completions": 2 }), json!({}), &["a succeeded"], None),
        (json!({}), json!({}), &["a succeeded"], Some(("Complete", "CompletionsReached"))),
        (json!({}), json!({}), &["a succeeded", "b running"], None),
        (
            json!({ "backoffLimit": 0 }),
            json!({}),
            &["a failed"],
            Some(("Failed", "BackoffLimitExceeded")),
        ),
        (json!({ "backoffLimit": 1 }), json!({}), &["a failed"], None),
        (
            json!({ "backoffLimit": 1 }),
            json!({ "failed": 1 }),
            &["a failed"],
            Some(("Failed", "BackoffLimitExceeded")),
        ),
        (
            json!({ "activeDeadlineSeconds": 60 }),
            begun.clone(),
            &["a running"],
            Some(("Failed", "DeadlineExceeded")),
        ),
        (json!({ "activeDeadlineSeconds": 60, "suspend": true }), begun.clone(), &[], None),
        (json!({ "activeDeadlineSeconds": 62 }), begun, &["a running"], None),
        (exit("FailJob"), json!({}), &["a failed exit=42"], Some(("Failed", "PodFailurePolicy"))),
        (exit("FailJob"), json!({}), &["a failed exit=1"], None),
    ] {
        let plan = planned(&job(spec.clone(), status), pods);
        assert_eq!(reason(&plan), expected, "{spec} {pods:?}");
        if let Some(("Failed", _)) = expected {
            assert!(plan.create.is_empty());
            let running = pods.iter().filter(|pod| pod.contains("running")).count();
            assert_eq!(plan.delete.len(), running, "what runs still is ended");
            let conditions = plan.status.conditions.unwrap();
            assert_eq!(conditions[0].type_, "FailureTarget");
        }
    }
    let plan = planned(&job(exit("FailJob"), json!({})), &["a failed exit=42"]);
    assert_eq!(
        plan.end.unwrap().message.unwrap(),
        "Container main for pod default/a failed with exit code 42 matching FailJob rule at index 0"
    );
    let ignored = planned(&job(exit("Ignore"), json!({})), &["a failed exit=42"]);
    let uncounted = ignored.status.uncounted_terminated_pods.unwrap();
    assert_eq!((uncounted.failed, names(&ignored.release)), (None, vec!["a"]));
}

#[test]
fn the_terminal_condition_waits_until_all_is_counted_and_gone() {
    let plan = planned(&job(json!({ "completions": 1 }), json!({})), &["a succeeded", "b deleted"]);
    let condition = plan.end.unwrap();
    let mut status = JobStatus { terminating: Some(1), ..JobStatus::default() };
    assert!(!end(&mut status, &condition, NOW));
    status.terminating = Some(0);
    status.uncounted_terminated_pods = plan.status.uncounted_terminated_pods;
    assert!(!end(&mut status, &condition, NOW));
    settle(&mut status, &BTreeSet::new());
    assert!(end(&mut status, &condition, NOW));
    assert!(status.completion_time.is_some());
}

#[test]
fn each_index_gets_one_pod_until_it_has_succeeded() {
    let indexed = |spec: Value, status: Value| {
        let mut all = json!({ "completions": 4, "completionMode": "Indexed" });
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        job(all, status)
    };
    let created =
        |plan: &Plan| -> Vec<i32> { plan.create.iter().map(|pod| pod.index.unwrap()).collect() };
    let plain = indexed(json!({}), json!({}));
    assert_eq!(created(&planned(&plain, &[])), [0, 1]);
    assert_eq!(created(&planned(&plain, &["a running index=0"])), [1]);
    let plan = planned(&plain, &["a succeeded index=0", "b running index=1"]);
    assert_eq!(created(&plan), [2]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!((plan.status.succeeded, names(&plan.release)), (Some(1), vec!["a"]));
    let plan = planned(&plain, &["a running index=1", "b ready index=1", "c running"]);
    assert_eq!(names(&plan.delete), ["c", "a"], "one that has none, and one too many");
    let known = indexed(json!({}), json!({ "completedIndexes": "0-2", "succeeded": 3 }));
    let plan = planned(&known, &["a succeeded index=3"]);
    assert_eq!(reason(&plan), Some(("Complete", "CompletionsReached")));
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0-3"));

    let policy = json!({ "successPolicy": { "rules": [{ "succeededIndexes": "1" }] } });
    let plan = planned(&indexed(policy, json!({})), &["a succeeded index=1", "b running index=0"]);
    assert_eq!(reason(&plan), Some(("Complete", "SuccessPolicy")));
    assert_eq!(names(&plan.delete), ["b"]);
    assert_eq!(plan.end.unwrap().message.unwrap(), "Matched rules at index 0");

    let limit = json!({ "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX });
    let limited = indexed(limit.clone(), json!({}));
    let first = planned(&limited, &["a failed index=0 failures=0", "b running index=1"]);
    assert_eq!(first.create, [NewPod { index: Some(0), failures: Some((1, 0)) }]);
    assert!(first.release.is_empty(), "its count of failures would be lost");
    let waits = planned(&limited, &["a failed index=0 failures=0 ago=4", "b running index=1"]);
    assert_eq!(waits.again_after, Some(Duration::from_secs(6)));
    let second = planned(&limited, &["a failed index=0 failures=1", "b running index=1"]);
    assert_eq!(second.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!((created(&second), names(&second.release)), (vec![2], vec!["a"]));
    let rest = indexed(limit.clone(), json!({ "failedIndexes": "0", "completedIndexes": "1-3" }));
    assert_eq!(reason(&planned(&rest, &[])), Some(("Failed", "FailedIndexes")));
    let mut strict = limit;
    strict["maxFailedIndexes"] = 0.into();
    let plan = planned(&indexed(strict, json!({})), &["a failed index=0 failures=1"]);
    assert_eq!(reason(&plan), Some(("Failed", "MaxFailedIndexesExceeded")));
}

#[test]
fn a_job_rests_and_goes_on() {
    let resting = job(json!({ "suspend": true, "completions": 3 }), json!({}));
    let plan = planned(&resting, &["a running"]);
    assert_eq!((names(&plan.delete), plan.rests), (vec!["a"], Some(true)));
    assert!(plan.status.start_time.is_none() && plan.create.is_empty());
    let woken = job(json!({ "completions": 3 }), serde_json::to_value(&plan.status).unwrap());
    let plan = planned(&woken, &[]);
    assert_eq!((plan.create.len(), plan.rests), (2, Some(false)));
    assert!(plan.status.start_time.is_some());
    assert_eq!(planned(&job(json!({}), json!({})), &[]).rests, None);
}

#[test]
fn a_replacement_may_have_to_wait_for_the_end() {
    let patient = job(json!({ "completions": 2, "podReplacementPolicy": "Failed" }), json!({}));
    let plan = planned(&patient, &["a deleted", "b running"]);
    assert!(plan.create.is_empty() && plan.release.is_empty());
    assert_eq!(plan.status.terminating, Some(1));
}

#[test]
fn a_pod_of_an_index_knows_it() {
    let indexed = job(json!({ "completions": 4, "completionMode": "Indexed" }), json!({}));
    let pod = make::pod(&indexed, NewPod { index: Some(3), failures: Some((2, 1)) });
    let meta = pod.metadata;
    assert_eq!(meta.generate_name.as_deref(), Some("j-3-"));
    assert_eq!(meta.labels.unwrap()[super::indexes::COMPLETION_INDEX], "3");
    let annotations = meta.annotations.unwrap();
    assert_eq!(annotations[super::failure::INDEX_FAILURES], "2");
    assert_eq!(annotations[super::failure::INDEX_IGNORED], "1");
    assert_eq!(meta.finalizers.unwrap(), [TRACKING]);
    let spec = pod.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("j-3"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
}
