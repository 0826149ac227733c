//! ReplicationControllers over a store in memory.

use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kontiki_api::registry::options::{Part, Patch};
use serde_json::json;

use super::cluster::Cluster;
use crate::controllers::{owners, pods};

/// Conformance: "should adopt matching pods on creation", "should release no longer matching pods".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_adopts_scales_and_lets_go() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    let mut orphan = super::cluster::pod("orphan");
    orphan.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    let orphan = cluster.create(&orphan).await;
    // A controller that has not seen it makes another.
    cluster
        .until("the informers have it", async || {
            let uid = orphan.metadata.uid.as_ref()?;
            cluster.created.lock().contains(uid).then_some(())
        })
        .await;
    let web: ReplicationController = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 1,
            "selector": { "app": "web" },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "web:1" }] },
            },
        },
    }))
    .unwrap();
    let web = cluster.create(&web).await;
    let is_own = |pod: &Pod| owners::is_controlled_by(&pod.metadata, owners::uid(&web.metadata));
    cluster
        .until("the orphan is adopted", async || {
            let pod = cluster.client.get::<Pod>("default", "orphan").await.ok()?;
            is_own(&pod).then_some(())
        })
        .await;
    assert_eq!(cluster.pod_uids().await, [orphan.metadata.uid.unwrap()].into());

    cluster.patch::<ReplicationController>("web", json!({ "spec": { "replicas": 3 } })).await;
    cluster
        .until("three are ready, as the status says", async || {
            let status =
                cluster.client.get::<ReplicationController>("default", "web").await.ok()?.status?;
            (status.ready_replicas == Some(3) && status.available_replicas == Some(3)).then_some(())
        })
        .await;

    let renamed = Patch::Merge(json!({ "metadata": { "labels": { "app": "other" } } }));
    cluster.client.patch::<Pod>("default", "orphan", Part::Main, &renamed).await.unwrap();
    cluster
        .until("it is let go and replaced", async || {
            let pods = cluster.list::<Pod>("default").await;
            let free = pods.iter().find(|pod| owners::name(&pod.metadata) == "orphan")?;
            let own = pods.iter().filter(|pod| is_own(pod) && pods::is_ready(pod)).count();
            (owners::controller_of(&free.metadata).is_none() && own == 3).then_some(())
        })
        .await;
    cluster.stop().await;
}
