//! StatefulSets over a store in memory.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kontiki_api::registry::options::DeleteOptions;
use serde_json::{Value, json};

use super::cluster::{Cluster, local_path_class};
use crate::controllers::{owners, pods};

fn set(spec: Value) -> StatefulSet {
    let mut all = json!({
        "replicas": 3, "serviceName": "db",
        "selector": { "matchLabels": { "app": "db" } },
        "template": {
            "metadata": { "labels": { "app": "db" } },
            "spec": { "containers": [{ "name": "main", "image": "db:1" }] },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "db", "namespace": "default" }, "spec": all,
    }))
    .unwrap()
}

async fn until_complete(cluster: &Cluster) -> StatefulSet {
    cluster
        .until("the set is as it shall be", async || {
            let set = cluster.client.get::<StatefulSet>("default", "db").await.ok()?;
            let status = set.status.clone()?;
            let wanted = set.spec.as_ref()?.replicas;
            let is_complete = status.observed_generation == set.metadata.generation
                && Some(status.replicas) == wanted
                && status.updated_replicas.or(Some(0)) == wanted
                && status.available_replicas == wanted
                && status.current_revision == status.update_revision;
            is_complete.then_some(set)
        })
        .await
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.list::<Pod>("default").await;
    pods.iter()
        .filter(|pod| pods::is_active(pod))
        .map(|pod| owners::name(&pod.metadata).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_made_updated_scaled_and_carried_over_to_the_next_leader() {
    let mut cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&set(json!({}))).await;
    until_complete(&cluster).await;
    assert_eq!(names(&cluster).await, ["db-0", "db-1", "db-2"]);
    assert_eq!(cluster.created.lock().len(), 3, "none was created twice");

    let image = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "db:2" }]);
    cluster.json_patch::<StatefulSet>("db", image).await;
    cluster.stop_leading().await;
    cluster.lead();
    until_complete(&cluster).await;
    assert_eq!(cluster.images().await, ["db:2"; 3]);
    assert_eq!(cluster.created.lock().len(), 6);
    assert_eq!(cluster.list::<ControllerRevision>("default").await.len(), 2);

    cluster.patch::<StatefulSet>("db", json!({ "spec": { "replicas": 1 } })).await;
    until_complete(&cluster).await;
    assert_eq!(names(&cluster).await, ["db-0"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_come_before_their_pods_and_go_as_the_policy_says() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&local_path_class()).await;
    let spec = json!({
        "replicas": 2, "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete", "whenDeleted": "Retain" },
        "volumeClaimTemplates": [{
            "metadata": { "name": "data" },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } },
            },
        }],
    });
    cluster.create(&set(spec)).await;
    let claims = async || -> Vec<String> {
        let claims = cluster.list::<PersistentVolumeClaim>("default").await;
        claims.iter().map(|claim| owners::name(&claim.metadata).to_owned()).collect()
    };
    until_complete(&cluster).await;
    assert_eq!(claims().await, ["data-db-0", "data-db-1"]);
    cluster.patch::<StatefulSet>("db", json!({ "spec": { "replicas": 1 } })).await;
    cluster
        .until("the claim goes with its pod", async || {
            (claims().await == ["data-db-0"]).then_some(())
        })
        .await;
    let options = DeleteOptions::default();
    cluster.client.delete::<StatefulSet>("default", "db", &options).await.unwrap();
    cluster
        .until("the pods go with the set", async || names(&cluster).await.is_empty().then_some(()))
        .await;
    assert_eq!(claims().await, ["data-db-0"], "the claim stays");
    cluster.stop().await;
}
