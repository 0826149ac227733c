use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::{Plan, job_name, plan};
use super::{SCHEDULED_AT, new_job, owners};

fn at(time: &str) -> Timestamp {
    format!("2026-01-01T{time}Z").parse().unwrap()
}

fn cron(spec: Value, status: Value) -> CronJob {
    let mut all = json!({
        "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {},
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": "c", "namespace": "default", "uid": "u",
            "creationTimestamp": "2026-01-01T00:05:00Z",
        },
        "spec": all, "status": status,
    }))
    .unwrap()
}

/// A Job that began at this time, and how it ended.
fn job(begun: &str, end: Option<&str>) -> Arc<Job> {
    let name = job_name(&cron(json!({}), json!({})), at(begun));
    let conditions = end.map(|end| json!([{ "type": end, "status": "True" }]));
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "default", "uid": name },
            "status": {
                "startTime": at(begun).to_string(), "conditions": conditions.unwrap_or(json!([])),
                "completionTime": (end == Some("Complete")).then(|| at(begun).to_string()),
            },
        }))
        .unwrap(),
    )
}

fn active(jobs: &[&Arc<Job>], last: &str) -> Value {
    let active: Vec<_> = jobs
        .iter()
        .map(|job| json!({ "name": job.metadata.name, "uid": job.metadata.uid }))
        .collect();
    json!({ "active": active, "lastScheduleTime": at(last).to_string() })
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.news.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn a_job_begins_when_its_moment_has_come_and_not_twice() {
    let fresh = cron(json!({}), json!({}));
    let early = plan(&fresh, &[], at("00:09:00"));
    assert_eq!(early.create, None);
    assert_eq!(early.again_after, Some(Duration::from_millis(60_100)));
    let due = plan(&fresh, &[], at("00:10:00"));
    assert_eq!(due.create, Some(at("00:10:00")));
    assert_eq!(due.again_after, Some(Duration::from_millis(600_100)));
    let first = job("00:10:00", None);
    let noted = cron(json!({}), active(&[&first], "00:10:00"));
    assert_eq!(plan(&noted, &[Arc::clone(&first)], at("00:10:01")).create, None);
    assert_eq!(
        plan(&noted, &[first], at("00:41:00")).create,
        Some(at("00:40:00")),
        "only the last"
    );
}

#[test]
fn what_runs_still_decides_by_the_policy() {
    let running = job("00:10:00", None);
    for (policy, creates, replaces, told) in [
        ("Allow", true, 0, &[][..]),
        ("Forbid", false, 0, &["JobAlreadyActive"]),
        ("Replace", true, 1, &[]),
    ] {
        let cron = cron(json!({ "concurrencyPolicy": policy }), active(&[&running], "00:10:00"));
        let plan = plan(&cron, &[Arc::clone(&running)], at("00:20:00"));
        assert_eq!((plan.create.is_some(), plan.replace.len()), (creates, replaces), "{policy}");
        assert_eq!(reasons(&plan), told, "{policy}");
        let left = plan.status.active.unwrap_or_default().len();
        assert_eq!(left, 1 - replaces, "{policy}");
    }
}

#[test]
fn what_is_late_or_wrong_is_told() {
    for (spec, now, created, told) in [
        (json!({ "startingDeadlineSeconds": 30 }), "00:10:20", true, &[][..]),
        // So late that it is not even due any more.
        (json!({ "startingDeadlineSeconds": 30 }), "00:10:40", false, &[]),
        (json!({ "suspend": true }), "00:10:00", false, &[]),
        (json!({ "timeZone": "Nowhere/Land" }), "00:10:00", false, &["UnknownTimeZone"]),
        (json!({ "schedule": "often" }), "00:10:00", false, &["UnparseableSchedule"]),
        (json!({ "schedule": "* * * * *" }), "02:00:00", true, &["TooManyMissedTimes"]),
    ] {
        let plan = plan(&cron(spec.clone(), json!({})), &[], at(now));
        assert_eq!((plan.create.is_some(), reasons(&plan).as_slice()), (created, told), "{spec}");
    }
}

#[test]
fn the_list_of_active_jobs_follows_what_is_there() {
    let (ended, gone) = (job("00:10:00", Some("Complete")), job("00:20:00", None));
    let stranger = job("00:30:00", None);
    let known = cron(json!({}), active(&[&ended, &gone], "00:30:00"));
    let plan = plan(&known, &[ended, stranger], at("00:31:00"));
    assert_eq!(reasons(&plan), ["SawCompletedJob", "UnexpectedJob", "MissingJob"]);
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.last_successful_time.unwrap().0, at("00:10:00"));
    assert_eq!(plan.create, None);
}

#[test]
fn a_job_whose_leader_ended_before_it_was_noted_is_taken_up() {
    let cron = cron(json!({}), json!({}));
    let mut lost = new_job(&cron, at("00:10:00"));
    lost.metadata.uid = Some("lost".to_owned());
    let plan = plan(&cron, &[Arc::new(lost)], at("00:10:05"));
    assert_eq!((plan.create, plan.status.active.unwrap().len()), (None, 1));
    assert_eq!(plan.status.last_schedule_time.unwrap().0, at("00:10:00"));
}

#[test]
fn the_oldest_jobs_beyond_the_limits_are_forgotten() {
    let jobs = [
        job("00:20:00", Some("Complete")),
        job("00:10:00", Some("Complete")),
        job("00:30:00", Some("Failed")),
        job("00:40:00", None),
    ];
    let status = json!({ "lastScheduleTime": at("00:40:00").to_string() });
    let plan = plan(&cron(json!({}), status), &jobs, at("00:41:00"));
    let names: Vec<_> = plan.forget.iter().map(|job| owners::name(&job.metadata)).collect();
    assert_eq!(names, [owners::name(&jobs[1].metadata)]);
}

#[test]
fn a_job_says_for_which_moment_it_is() {
    let zoned = cron(json!({ "timeZone": "Europe/Berlin" }), json!({}));
    let meta = new_job(&zoned, at("00:10:00")).metadata;
    assert_eq!(meta.name.as_deref(), Some("c-29453770"));
    assert_eq!(meta.annotations.unwrap()[SCHEDULED_AT], "2026-01-01T01:10:00+01:00");
    let plain = new_job(&cron(json!({}), json!({})), at("00:10:00")).metadata;
    assert_eq!(plain.annotations.unwrap()[SCHEDULED_AT], "2026-01-01T00:10:00Z");
}
