//! CronJobs over a store in memory.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kontiki_api::registry::options::{Part, Patch};
use serde_json::json;

use super::cluster::Cluster;
use crate::controllers::owners;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_begins_one_job_for_its_moment_under_two_leaders() {
    let mut cluster = Cluster::with_nodes(&["n1"]).await;
    let cron: CronJob = serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "tick", "namespace": "default" },
        "spec": {
            // Once a year, so that no second moment comes while the test runs.
            "schedule": "@yearly", "concurrencyPolicy": "Forbid",
            "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "main", "image": "work:1" }],
            } } } },
        },
    }))
    .unwrap();
    cluster.create(&cron).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(cluster.list::<Job>("default").await.is_empty(), "its moment has not come");
    // As if it had been there for a year.
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 366);
    let status = Patch::Merge(json!({ "status": { "lastScheduleTime": Time(long_ago) } }));
    cluster.client.patch::<CronJob>("default", "tick", Part::Status, &status).await.unwrap();
    let known = cluster
        .until("its job is there and noted", async || {
            let cron = cluster.client.get::<CronJob>("default", "tick").await.ok()?;
            let active = cron.status?.active?;
            (active.len() == 1).then_some(active)
        })
        .await;
    let jobs = cluster.list::<Job>("default").await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].metadata.uid, known[0].uid);
    let annotations = jobs[0].metadata.annotations.as_ref().unwrap();
    let moment: Timestamp =
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"].parse().unwrap();
    assert_eq!(owners::name(&jobs[0].metadata), format!("tick-{}", moment.as_second() / 60));
    cluster.stop_leading().await;
    cluster.lead();
    cluster
        .until("its pod runs under the next leader", async || {
            let job = cluster.list::<Job>("default").await.pop()?;
            (job.status?.ready == Some(1)).then_some(())
        })
        .await;
    assert_eq!(cluster.list::<Job>("default").await.len(), 1, "no second job for that moment");
    cluster.stop().await;
}
