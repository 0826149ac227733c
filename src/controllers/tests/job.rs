//! Jobs over a store in memory; the pods end as the test says.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::controllers::{owners, pods};

fn job(name: &str, spec: Value) -> Job {
    let mut all = json!({
        "template": { "spec": {
            "restartPolicy": "Never", "containers": [{ "name": "main", "image": "work:1" }],
        } },
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": name, "namespace": "default" }, "spec": all,
    }))
    .unwrap()
}

async fn end_pod(cluster: &Cluster, name: &str, phase: &str) {
    let patch = Patch::Merge(json!({ "status": { "phase": phase } }));
    cluster.client.patch::<Pod>("default", name, Part::Status, &patch).await.unwrap();
}

/// Waits until `count` pods run, and gives their names.
async fn running(cluster: &Cluster, count: usize) -> Vec<String> {
    cluster
        .until("the pods run", async || {
            let pods = cluster.list::<Pod>("default").await;
            let running = pods.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod));
            let names: Vec<_> = running.map(|pod| owners::name(&pod.metadata).to_owned()).collect();
            (names.len() == count).then_some(names)
        })
        .await
}

async fn until_ended(cluster: &Cluster, name: &str, kind: &str) -> Job {
    cluster
        .until("the job has ended", async || {
            let job = cluster.client.get::<Job>("default", name).await.ok()?;
            super::super::job::plan::ended(&job)
                .is_some_and(|condition| condition.type_ == kind)
                .then_some(job)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_to_completion_under_two_leaders_and_counts_each_pod_once() {
    let mut cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&job("work", json!({ "completions": 3, "parallelism": 2 }))).await;
    let first = running(&cluster, 2).await;
    end_pod(&cluster, &first[0], "Succeeded").await;
    cluster
        .until("one is counted", async || {
            let status = cluster.client.get::<Job>("default", "work").await.ok()?.status?;
            (status.succeeded == Some(1)).then_some(())
        })
        .await;
    let second = running(&cluster, 2).await;
    cluster.stop_leading().await;
    for name in &second {
        end_pod(&cluster, name, "Succeeded").await;
    }
    cluster.lead();
    let done = until_ended(&cluster, "work", "Complete").await;
    let status = done.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    let kinds: Vec<String> =
        status.conditions.unwrap().into_iter().map(|condition| condition.type_).collect();
    assert_eq!(kinds, ["SuccessCriteriaMet", "Complete"]);
    let all = cluster.list::<Pod>("default").await;
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|pod| pod.metadata.finalizers.is_none()));
    cluster
        .until("the event tells", async || {
            let events = cluster.list::<Event>("default").await;
            events.iter().any(|event| event.reason.as_deref() == Some("Completed")).then_some(())
        })
        .await;
    cluster
        .client
        .delete::<Job>(
            "default",
            "work",
            &DeleteOptions::default().propagate(Propagation::Background),
        )
        .await
        .unwrap();
    cluster
        .until("the pods go with the job", async || {
            cluster.list::<Pod>("default").await.is_empty().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_too_often_ends_its_other_pods_and_goes_after_its_time() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    let spec = json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0 });
    cluster.create(&job("bad", spec)).await;
    let names = running(&cluster, 2).await;
    end_pod(&cluster, &names[0], "Failed").await;
    let failed = until_ended(&cluster, "bad", "Failed").await;
    let status = failed.status.unwrap();
    assert_eq!(status.failed, Some(2), "the one that was ended counts too");
    let last = status.conditions.unwrap().pop().unwrap();
    assert_eq!(last.reason.as_deref(), Some("BackoffLimitExceeded"));
    cluster.patch::<Job>("bad", json!({ "spec": { "ttlSecondsAfterFinished": 0 } })).await;
    cluster
        .until("it is gone", async || {
            cluster.client.get::<Job>("default", "bad").await.is_err().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_gives_each_pod_its_index() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed" });
    cluster.create(&job("parts", spec)).await;
    let names = running(&cluster, 3).await;
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("parts-{index}-")), "{name}");
        end_pod(&cluster, name, "Succeeded").await;
    }
    let done = until_ended(&cluster, "parts", "Complete").await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0-2"));
    cluster.stop().await;
}

/// Conformance: "should adopt matching orphans and release non-matching pods".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_adopts_its_orphans_and_lets_go_what_it_no_longer_selects() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&job("work", json!({ "parallelism": 1 }))).await;
    let name = running(&cluster, 1).await.remove(0);
    let get = async || cluster.client.get::<Pod>("default", &name).await.ok();
    let free = json!({ "metadata": { "ownerReferences": null } });
    cluster.patch::<Pod>(&name, free).await;
    cluster
        .until("it is adopted again, and tracked", async || {
            let pod = get().await?;
            let is_own = owners::controller_of(&pod.metadata).is_some();
            (is_own && pod.metadata.finalizers.is_some()).then_some(())
        })
        .await;
    cluster.patch::<Pod>(&name, json!({ "metadata": { "labels": null } })).await;
    cluster
        .until("it is free, and held by nothing", async || {
            let pod = get().await?;
            let is_own = owners::controller_of(&pod.metadata).is_some();
            (!is_own && pod.metadata.finalizers.is_none()).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_loses_its_pods_and_begins_again() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&job("work", json!({ "parallelism": 2, "completions": 2 }))).await;
    running(&cluster, 2).await;
    cluster.patch::<Job>("work", json!({ "spec": { "suspend": true } })).await;
    cluster
        .until("it rests", async || {
            let status = cluster.client.get::<Job>("default", "work").await.ok()?.status?;
            let rests = super::super::job::plan::holding(&status, "Suspended").is_some();
            (rests && cluster.list::<Pod>("default").await.is_empty()).then_some(())
        })
        .await;
    cluster.patch::<Job>("work", json!({ "spec": { "suspend": false } })).await;
    running(&cluster, 2).await;
    cluster.stop().await;
}
