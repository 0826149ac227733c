//! The further workloads: StatefulSet, DaemonSet, Job, CronJob, ReplicationController and what they
//! keep.

use super::*;

fn job(extra: &Value) -> Value {
    let mut spec = json!({"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": "web", "namespace": "default", "uid": "u-1", "creationTimestamp": THEN},
        "spec": spec})
}

#[test]
fn a_stateful_set_gets_its_defaults_and_keeps_its_claims() {
    let set = workload(&json!({"serviceName": "web", "volumeClaimTemplates": [
        {"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}}}]}));
    let got = created(&stateful_set::KIND, set.clone());
    let spec = &got.value()["spec"];
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!(spec["volumeClaimTemplates"][0]["kind"], "PersistentVolumeClaim");
    assert_eq!(
        spec["volumeClaimTemplates"][0]["spec"],
        json!({"resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"})
    );
    assert_eq!(problems(&stateful_set::KIND, set.clone()), Vec::<String>::new());
    let mut moved = set.clone();
    moved["spec"]["serviceName"] = json!("other");
    assert_eq!(
        change_problems(&stateful_set::KIND, set.clone(), moved),
        ["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', \
          'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
          'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"]
    );
    let mut scaled = set.clone();
    scaled["spec"]["replicas"] = json!(3);
    assert_eq!(change_problems(&stateful_set::KIND, set.clone(), scaled), Vec::<String>::new());
    assert_eq!(line(&stateful_set::KIND, set, NOW), "web | 0/0 | 60s | c | i:1");
}

#[test]
fn the_templates_of_a_daemon_set_are_numbered() {
    let number = |set: &crate::object::Object| {
        set.annotation("deprecated.daemonset.template.generation").map(str::to_owned)
    };
    let first = created(&daemon_set::KIND, workload(&json!({})));
    assert_eq!(number(&first).as_deref(), Some("1"));
    let same = updated(&daemon_set::KIND, &first, workload(&json!({"minReadySeconds": 5})));
    assert_eq!(number(&same).as_deref(), Some("1"));
    let mut other = workload(&json!({}));
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "other:2".into();
    let other = updated(&daemon_set::KIND, &first, other);
    assert_eq!(number(&other).as_deref(), Some("2"));
}

#[test]
fn a_daemon_set_rolls_one_by_one() {
    let got = created(&daemon_set::KIND, workload(&json!({})));
    assert_eq!(
        got.value()["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
    let rolls = |surge: i64, unavailable: i64| {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        problems(
            &daemon_set::KIND,
            workload(&json!({"updateStrategy": {"rollingUpdate": rolling}})),
        )
    };
    assert_eq!(
        rolls(0, 0),
        ["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when \
          maxSurge is 0"]
    );
    assert_eq!(
        rolls(1, 1),
        ["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when \
          maxUnavailable is non-zero"]
    );
    assert_eq!(
        line(&daemon_set::KIND, workload(&json!({})), NOW),
        "web | 0 | 0 | 0 | 0 | 0 | <none> | 60s | c | i:1 | app=web"
    );
}

#[test]
fn a_job_finds_its_pods_by_its_uid() {
    let got = created(&job::KIND, job(&json!({})));
    let spec = &got.value()["spec"];
    assert_eq!(spec["selector"], json!({"matchLabels": {job::CONTROLLER_UID: "u-1"}}));
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        json!({
            "controller-uid": "u-1",
            "job-name": "web",
            job::CONTROLLER_UID: "u-1",
            job::JOB_NAME: "web",
        })
    );
    for (field, expected) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(spec[field], expected, "{field}");
    }
    assert_eq!(problems(&job::KIND, job(&json!({}))), Vec::<String>::new());
}

#[test]
fn what_a_job_may_not_say_is_refused_in_kubernetes_words() {
    let always = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
    for (extra, expected) in [
        (
            always,
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
             \"Never\"",
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 2}),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            json!({"backoffLimit": -1}),
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        assert_eq!(problems(&job::KIND, job(&extra)), [expected], "{extra}");
    }
    assert_eq!(
        change_problems(
            &job::KIND,
            job(&json!({"manualSelector": true, "completions": 1})),
            job(&json!({"manualSelector": true, "completions": 2}))
        ),
        ["spec.completions: Invalid value: 2: field is immutable"]
    );
}

#[test]
fn a_row_says_how_far_a_job_is() {
    let mut value = job(&json!({"completions": 3}));
    value["status"] = json!({"succeeded": 3, "startTime": THEN, "completionTime": "2026-01-01T00:00:40Z",
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(line(&job::KIND, value, NOW), "web | Complete | 3/3 | 40s | 60s | c | i:1 | <none>");
    assert!(
        line(&job::KIND, job(&json!({"parallelism": 2})), NOW)
            .starts_with("web | Running | 0/1 of 2 |")
    );
}

#[test]
fn a_cron_job_has_a_schedule_in_a_zone_that_exists() {
    let cron = |schedule: &str, zone: &str| {
        with(&json!({"spec": {"schedule": schedule, "timeZone": zone,
            "jobTemplate": {"spec": job(&json!({}))["spec"]}}}))
    };
    assert_eq!(problems(&cron_job::KIND, cron("*/5 * * * *", "Etc/UTC")), Vec::<String>::new());
    assert_eq!(
        problems(&cron_job::KIND, cron("often", "Mars/Olympus")),
        [
            "spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]",
            "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        ]
    );
    let got = created(&cron_job::KIND, cron("@daily", "Etc/UTC"));
    assert_eq!(got.str_at("/spec/concurrencyPolicy"), "Allow");
    assert_eq!(got.i64_at("/spec/successfulJobsHistoryLimit"), Some(3));
    assert_eq!(
        line(&cron_job::KIND, got.value().clone(), NOW),
        "web | @daily | Etc/UTC | False | 0 | <none> | 60s | c | i:1 | <none>"
    );
}

#[test]
fn a_replication_controller_selects_what_its_template_says() {
    let value = with(&json!({"spec": {"template": template(&json!({"app": "web"}))}}));
    let got = created(&replication_controller::KIND, value.clone());
    assert_eq!(got.value()["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(problems(&replication_controller::KIND, value), Vec::<String>::new());
    let other = with(
        &json!({"spec": {"selector": {"app": "x"}, "template": template(&json!({"app": "web"}))}}),
    );
    assert_eq!(
        problems(&replication_controller::KIND, other),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match \
          template `labels`"
        ]
    );
}

#[test]
fn a_revision_keeps_its_data() {
    let revision = |data: Value| with(&json!({"revision": 1, "data": data}));
    assert_eq!(
        problems(&controller_revision::KIND, with(&json!({"revision": -1}))),
        [
            "data: Required value: data is mandatory",
            "revision: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
    assert_eq!(
        change_problems(
            &controller_revision::KIND,
            revision(json!({"a": 1})),
            revision(json!({"a": 2}))
        ),
        ["data: Invalid value: {\"a\":2}: field is immutable"]
    );
}
