//! The scheduler and the controllers together, over a store in memory and the API in process, with
//! nodes whose pods run as soon as they are bound.

mod api_services;
mod autoscale;
mod certificates;
mod cloud;
mod cluster;
mod cold;
mod cron_job;
mod custom;
mod daemon_set;
mod disruption;
mod fencing;
mod garbage;
mod job;
mod load_balancers;
mod namespaces;
mod nodes;
mod preemption;
mod quota;
mod replication_controller;
mod stateful_set;
mod storage;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use serde_json::json;

use cluster::{Cluster, deployment, service};

use super::{owners, pods};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_running_pods_on_the_nodes() {
    let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
    cluster.create(&deployment("web", 4, "web:1")).await;
    let running = cluster
        .until("four pods run", async || {
            let pods = cluster.list::<Pod>("default").await;
            (pods.iter().filter(|pod| pods::is_ready(pod)).count() == 4).then_some(pods)
        })
        .await;
    let used: BTreeSet<&str> = running.iter().filter_map(pods::node_name).collect();
    assert_eq!(used, BTreeSet::from(["n1", "n2"]), "the pods are spread");
    cluster.until_complete("web").await;
    let ranges: BTreeSet<String> = cluster
        .until("both nodes have addresses", async || {
            let nodes = cluster.list::<Node>("").await;
            let ranges: BTreeSet<String> =
                nodes.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.clone()).collect();
            (ranges.len() == 2).then_some(ranges)
        })
        .await;
    assert_eq!(ranges, BTreeSet::from(["10.244.0.0/24".to_owned(), "10.244.1.0/24".to_owned()]));
    cluster
        .until("a service account is there", async || {
            cluster.client.get::<ServiceAccount>("default", "default").await.ok()
        })
        .await;
    cluster
        .until("the events tell", async || {
            let events = cluster.list::<Event>("default").await;
            let reasons: BTreeSet<String> =
                events.into_iter().filter_map(|event| event.reason).collect();
            ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"]
                .iter()
                .all(|reason| reasons.contains(*reason))
                .then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_scales_and_rolls_and_rolls_back() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;

    cluster.patch::<Deployment>("web", json!({ "spec": { "replicas": 5 } })).await;
    cluster.until_complete("web").await;
    assert_eq!(cluster.images().await, ["web:1"; 5]);

    let image = |image: &str| json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image }]);
    cluster.json_patch::<Deployment>("web", image("web:2")).await;
    cluster.until_complete("web").await;
    assert_eq!(cluster.images().await, ["web:2"; 5]);

    cluster.json_patch::<Deployment>("web", image("web:1")).await;
    let web = cluster.until_complete("web").await;
    assert_eq!(cluster.images().await, ["web:1"; 5]);
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(sets.len(), 2, "the old set is used again: {sets:?}");
    let annotations = web.metadata.annotations.unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_wanted_pods_are_created_even_when_they_are_many() {
    let cluster = Cluster::with_nodes(&["n1", "n2", "n3"]).await;
    cluster.create(&deployment("web", 150, "web:1")).await;
    cluster.until_complete("web").await;
    let created = cluster.created.lock().len();
    assert_eq!(created, 150, "none more was created and deleted again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;
    let victim = cluster.list::<Pod>("default").await.remove(0);
    let name = owners::name(&victim.metadata).to_owned();
    cluster.client.delete::<Pod>("default", &name, &DeleteOptions::default()).await.unwrap();
    cluster
        .until("another pod stands in", async || {
            let pods = cluster.list::<Pod>("default").await;
            let whole =
                pods.iter().filter(|pod| pods::is_ready(pod) && pods::is_active(pod)).count() == 2;
            let gone = pods.iter().all(|pod| owners::name(&pod.metadata) != name);
            (whole && gone).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_knows_its_ready_pods() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&service("web")).await;
    cluster.create(&deployment("web", 3, "web:1")).await;
    let slice = cluster
        .until("a slice has three ready endpoints", async || {
            let slices = cluster.list::<EndpointSlice>("default").await;
            slices.into_iter().find(|slice| {
                let ready = slice.endpoints.iter().filter(|endpoint| {
                    endpoint
                        .conditions
                        .as_ref()
                        .is_some_and(|conditions| conditions.ready == Some(true))
                });
                ready.count() == 3
            })
        })
        .await;
    assert!(owners::name(&slice.metadata).starts_with("web-"));
    cluster
        .until("so do the endpoints", async || {
            let endpoints = cluster.client.get::<Endpoints>("default", "web").await.ok()?;
            let addresses = endpoints.subsets?.pop()?.addresses?;
            (addresses.len() == 3).then_some(())
        })
        .await;
    cluster.client.delete::<Service>("default", "web", &DeleteOptions::default()).await.unwrap();
    cluster
        .until("the endpoints go with their service", async || {
            cluster.client.get::<Endpoints>("default", "web").await.is_err().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    let mut large = cluster::pod("large");
    large.spec.as_mut().unwrap().containers[0].resources =
        serde_json::from_value(json!({ "requests": { "cpu": "6" } })).unwrap();
    cluster.create(&large).await;
    let message = cluster
        .until("the pod says why", async || {
            let pod = cluster.client.get::<Pod>("default", "large").await.ok()?;
            pods::condition(&pod, "PodScheduled")?.message.clone()
        })
        .await;
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    cluster.add_node("n2", "8").await;
    cluster
        .until("the pod is placed", async || {
            let pod = cluster.client.get::<Pod>("default", "large").await.ok()?;
            (pods::node_name(&pod) == Some("n2")).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_term_goes_on_where_the_last_one_stopped() {
    let mut cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;
    cluster.stop_leading().await;
    let patch = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    cluster.client.patch::<Deployment>("default", "web", Part::Main, &patch).await.unwrap();
    cluster.lead();
    cluster.until_complete("web").await;
    assert_eq!(cluster.images().await.len(), 4);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_deployment_takes_its_sets_and_pods_along() {
    for propagation in [Propagation::Background, Propagation::Foreground] {
        let cluster = Cluster::with_nodes(&["n1"]).await;
        cluster.create(&deployment("web", 2, "web:1")).await;
        cluster.until_complete("web").await;
        let options = DeleteOptions::default().propagate(propagation);
        cluster.client.delete::<Deployment>("default", "web", &options).await.unwrap();
        cluster
            .until("all is gone", async || {
                let left = cluster.list::<Deployment>("default").await.len()
                    + cluster.list::<ReplicaSet>("default").await.len()
                    + cluster.list::<Pod>("default").await.len();
                (left == 0).then_some(())
            })
            .await;
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaning_leaves_the_dependents_which_a_new_owner_adopts() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;
    let before: BTreeSet<String> = cluster.pod_uids().await;
    let options = DeleteOptions::default().propagate(Propagation::Orphan);
    cluster.client.delete::<Deployment>("default", "web", &options).await.unwrap();
    cluster
        .until("the set is an orphan", async || {
            let gone = cluster.client.get::<Deployment>("default", "web").await.is_err();
            let sets = cluster.list::<ReplicaSet>("default").await;
            let free = sets.len() == 1 && owners::controller_of(&sets[0].metadata).is_none();
            (gone && free).then_some(())
        })
        .await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;
    assert_eq!(cluster.pod_uids().await, before, "the same pods serve on");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_is_emptied_and_goes() {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.add_namespace("shop").await;
    let mut web = deployment("web", 2, "web:1");
    web.metadata.namespace = Some("shop".to_owned());
    cluster.create(&web).await;
    let map =
        json!({ "metadata": { "name": "settings", "namespace": "shop" }, "data": { "a": "b" } });
    cluster
        .create(&serde_json::from_value::<ConfigMap>(with_type("v1", "ConfigMap", map)).unwrap())
        .await;
    cluster
        .until("the pods run", async || {
            let pods = cluster.list::<Pod>("shop").await;
            (pods.iter().filter(|pod| pods::is_ready(pod)).count() == 2).then_some(())
        })
        .await;
    cluster.client.delete::<Namespace>("", "shop", &DeleteOptions::default()).await.unwrap();
    cluster
        .until("the namespace is gone", async || {
            cluster.client.get::<Namespace>("", "shop").await.is_err().then_some(())
        })
        .await;
    assert!(cluster.list::<Pod>("shop").await.is_empty());
    assert!(cluster.list::<ConfigMap>("shop").await.is_empty());
    cluster.stop().await;
}

fn with_type(api_version: &str, kind: &str, mut object: serde_json::Value) -> serde_json::Value {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object
}
