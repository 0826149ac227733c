//! DaemonSets over a store in memory.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::controllers::{owners, pods};

fn agent(image: &str, spec: Value) -> DaemonSet {
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "agent", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } },
            "template": {
                "metadata": { "labels": { "app": "agent" } },
                "spec": { "containers": [{ "name": "main", "image": image }] },
            },
        },
    });
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

/// The nodes of the active pods.
async fn nodes(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.list::<Pod>("default").await;
    let active = pods.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod));
    let mut nodes: Vec<String> =
        active.filter_map(|pod| pods::node_name(pod).map(str::to_owned)).collect();
    nodes.sort_unstable();
    nodes
}

async fn until_on(cluster: &Cluster, wanted: &[&str]) {
    cluster
        .until("each node runs its pod, and the status says so", async || {
            let set = cluster.client.get::<DaemonSet>("default", "agent").await.ok()?;
            let status = set.status?;
            let count = i32::try_from(wanted.len()).unwrap();
            let told = status.observed_generation == set.metadata.generation
                && status.desired_number_scheduled == count
                && status.number_available.unwrap_or(0) == count
                && status.updated_number_scheduled.unwrap_or(0) == count;
            (told && nodes(cluster).await == wanted).then_some(())
        })
        .await;
}

async fn set_image(cluster: &Cluster, image: &str) {
    let path = "/spec/template/spec/containers/0/image";
    let patch = json!([{ "op": "replace", "path": path, "value": image }]);
    cluster.json_patch::<DaemonSet>("agent", patch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_runs_on_every_node_also_on_new_and_cordoned_ones() {
    let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
    cluster.create(&agent("agent:1", json!({}))).await;
    until_on(&cluster, &["n1", "n2"]).await;
    cluster.add_node("n3", "4").await;
    until_on(&cluster, &["n1", "n2", "n3"]).await;
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    cluster.client.patch::<Node>("", "n3", Part::Main, &cordon).await.unwrap();
    let victim = cluster.list::<Pod>("default").await.into_iter().find_map(|pod| {
        (pods::node_name(&pod) == Some("n3")).then(|| owners::name(&pod.metadata).to_owned())
    });
    let victim = victim.unwrap();
    cluster.client.delete::<Pod>("default", &victim, &DeleteOptions::default()).await.unwrap();
    cluster
        .until("another pod stands in on the cordoned node", async || {
            cluster.client.get::<Pod>("default", &victim).await.is_err().then_some(())
        })
        .await;
    until_on(&cluster, &["n1", "n2", "n3"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_follows_the_labels_of_the_nodes() {
    let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
    let mut set = agent("agent:1", json!({}));
    let color = [("color".to_owned(), "blue".to_owned())].into();
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector = Some(color);
    cluster.create(&set).await;
    until_on(&cluster, &[]).await;
    let paint = |color: &str| Patch::Merge(json!({ "metadata": { "labels": { "color": color } } }));
    cluster.client.patch::<Node>("", "n2", Part::Main, &paint("blue")).await.unwrap();
    until_on(&cluster, &["n2"]).await;
    cluster.client.patch::<Node>("", "n2", Part::Main, &paint("green")).await.unwrap();
    until_on(&cluster, &[]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_updated_and_rolled_back_by_its_history() {
    for strategy in [
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } }),
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } }),
    ] {
        let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
        cluster.create(&agent("agent:1", json!({ "updateStrategy": strategy }))).await;
        until_on(&cluster, &["n1", "n2"]).await;
        set_image(&cluster, "agent:2").await;
        until_on(&cluster, &["n1", "n2"]).await;
        assert_eq!(cluster.images().await, ["agent:2"; 2]);
        set_image(&cluster, "agent:1").await;
        until_on(&cluster, &["n1", "n2"]).await;
        assert_eq!(cluster.images().await, ["agent:1"; 2]);
        let numbers: BTreeSet<i64> = cluster
            .list::<ControllerRevision>("default")
            .await
            .iter()
            .map(|revision| revision.revision)
            .collect();
        assert_eq!(numbers, BTreeSet::from([2, 3]), "the first is the third now");
        let set = cluster.client.get::<DaemonSet>("default", "agent").await.unwrap();
        let annotations = set.metadata.annotations.unwrap();
        assert_eq!(annotations["deprecated.daemonset.template.generation"], "3");
        cluster.stop().await;
    }
}

/// Conformance: "should rollback without unnecessary restarts".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_leaves_the_pods_that_were_not_updated_yet() {
    let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
    cluster.create(&agent("agent:1", json!({ "updateStrategy": { "type": "OnDelete" } }))).await;
    until_on(&cluster, &["n1", "n2"]).await;
    let before = cluster.pod_uids().await;
    set_image(&cluster, "agent:2").await;
    cluster
        .until("the status counts no pod as updated", async || {
            let set = cluster.client.get::<DaemonSet>("default", "agent").await.ok()?;
            let status = set.status?;
            (status.observed_generation == set.metadata.generation
                && status.updated_number_scheduled.unwrap_or(0) == 0)
                .then_some(())
        })
        .await;
    set_image(&cluster, "agent:1").await;
    until_on(&cluster, &["n1", "n2"]).await;
    assert_eq!(cluster.pod_uids().await, before);
    cluster.stop().await;
}

/// Conformance: "should retry creating failed daemon pods".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_daemon_pod_is_replaced() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&agent("agent:1", json!({}))).await;
    until_on(&cluster, &["n1"]).await;
    let victim = cluster.list::<Pod>("default").await.remove(0);
    let failed = Patch::Merge(json!({ "status": { "phase": "Failed" } }));
    let name = owners::name(&victim.metadata);
    cluster.client.patch::<Pod>("default", name, Part::Status, &failed).await.unwrap();
    cluster
        .until("another pod runs", async || {
            let uids = cluster.pod_uids().await;
            (!uids.contains(owners::uid(&victim.metadata)) && nodes(&cluster).await == ["n1"])
                .then_some(())
        })
        .await;
    cluster
        .until("an event says why", async || {
            let events = cluster.list::<Event>("default").await;
            events
                .iter()
                .any(|event| event.reason.as_deref() == Some("FailedDaemonPod"))
                .then_some(())
        })
        .await;
    cluster.stop().await;
}
