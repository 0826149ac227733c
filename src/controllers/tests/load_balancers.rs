//! Services of the type LoadBalancer on machines of one's own: addresses of a pool, and the nodes that
//! answer for them.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Service};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::cloud::Choice;
use crate::cloud::bare_metal::answered_by;
use crate::cloud::pool::addresses_of;
use crate::cloud::service::plan::{EXCLUDED, FINALIZER, has_finalizer};
use crate::leader_context::Settings;

/// A cluster with that pool whose nodes never fall silent.
async fn with_pool(pool: &str, nodes: &[&str]) -> Cluster {
    let settings = Settings {
        cloud: Choice::BareMetal(pool.parse().unwrap()),
        node_monitor_grace: Duration::from_secs(3600),
        ..Settings::default()
    };
    Cluster::new(nodes, settings).await
}

pub(super) fn balanced(name: &str, more: Value) -> Service {
    let mut spec = json!({
        "type": "LoadBalancer", "selector": { "app": name },
        "ports": [{ "port": 80, "targetPort": 8080 }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    }))
    .unwrap()
}

pub(super) async fn service(cluster: &Cluster, name: &str) -> Option<Service> {
    cluster.client.get::<Service>("default", name).await.ok()
}

pub(super) fn address(service: &Service) -> Option<String> {
    addresses_of(service).next().map(|address| address.to_string())
}

/// The address of a Service and the node that answers for it, once both are there.
async fn settled(cluster: &Cluster, name: &str) -> (String, String) {
    cluster
        .until("an address and its node", async || {
            let service = service(cluster, name).await?;
            Some((address(&service)?, answered_by(&service)?.to_owned()))
        })
        .await
}

pub(super) async fn until_told(cluster: &Cluster, name: &str, reason: &str) -> String {
    cluster
        .until(reason, async || {
            let events = cluster.list::<Event>("default").await;
            let is_it = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.involved_object.name.as_deref() == Some(name)
            };
            events.into_iter().find(is_it)?.message
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_an_address_of_the_pool_and_a_node_that_answers_for_it() {
    let cluster = with_pool("192.0.2.8/29", &["n1", "n2"]).await;
    cluster.create(&balanced("web", json!({}))).await;
    let (address, node) = settled(&cluster, "web").await;
    assert_eq!(address, "192.0.2.9");
    assert!(["n1", "n2"].contains(&&*node), "{node}");
    let service = service(&cluster, "web").await.unwrap();
    assert!(has_finalizer(&service));
    let status = serde_json::to_value(service.status).unwrap();
    assert_eq!(status["loadBalancer"]["ingress"], json!([{ "ip": address, "ipMode": "VIP" }]));
    for reason in ["EnsuringLoadBalancer", "EnsuredLoadBalancer", "NodeAssigned"] {
        until_told(&cluster, "web", reason).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_leaves_a_service_waiting_until_another_lets_go() {
    let cluster = with_pool("192.0.2.1", &["n1"]).await;
    cluster.create(&balanced("first", json!({}))).await;
    settled(&cluster, "first").await;
    cluster.create(&balanced("second", json!({}))).await;
    let said = until_told(&cluster, "second", "SyncLoadBalancerFailed").await;
    let expected = "Error syncing load balancer: failed to ensure load balancer: no address of the \
                    pool 192.0.2.1-192.0.2.1 is free";
    assert_eq!(said, expected);
    cluster.client.delete::<Service>("default", "first", &DeleteOptions::default()).await.unwrap();
    assert_eq!(settled(&cluster, "second").await.0, "192.0.2.1");
    assert!(service(&cluster, "first").await.is_none(), "its finalizer is gone, and so is it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_moves_when_its_node_falls_silent_or_is_excluded() {
    let settings = Settings {
        cloud: Choice::BareMetal("192.0.2.1".parse().unwrap()),
        node_monitor_grace: Duration::from_secs(2),
        node_monitor_period: Duration::from_millis(50),
        ..Settings::default()
    };
    let cluster = Cluster::new(&["a", "b"], settings).await;
    cluster.create(&balanced("web", json!({}))).await;
    let (_, first) = settled(&cluster, "web").await;
    let other = if first == "a" { "b" } else { "a" };
    cluster
        .until("the other node answers", async || {
            cluster.beat(&[other]).await;
            let service = service(&cluster, "web").await?;
            (answered_by(&service) == Some(other)).then_some(())
        })
        .await;
    let ready = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-02-01T00:00:00Z",
    }] } });
    let ready = Patch::Strategic(ready);
    cluster.client.patch::<Node>("", &first, Part::Status, &ready).await.unwrap();
    let label = Patch::Merge(json!({ "metadata": { "labels": { EXCLUDED: "" } } }));
    cluster.client.patch::<Node>("", other, Part::Main, &label).await.unwrap();
    cluster
        .until("the first node answers again", async || {
            cluster.beat(&["a", "b"]).await;
            let service = service(&cluster, "web").await?;
            assert_eq!(address(&service).as_deref(), Some("192.0.2.1"), "the address stays");
            (answered_by(&service) == Some(first.as_str())).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_another_type_lets_go_and_one_with_a_class_is_left_alone() {
    let cluster = with_pool("192.0.2.1-192.0.2.9", &["n1"]).await;
    let class = json!({ "loadBalancerClass": "example.com/theirs" });
    cluster.create(&balanced("theirs", class)).await;
    cluster.create(&balanced("asks", json!({ "loadBalancerIP": "192.0.2.7" }))).await;
    assert_eq!(settled(&cluster, "asks").await.0, "192.0.2.7");
    cluster.patch::<Service>("asks", json!({ "spec": { "type": "ClusterIP" } })).await;
    cluster
        .until("nothing of it is left", async || {
            let service = service(&cluster, "asks").await?;
            let is_bare = address(&service).is_none() && answered_by(&service).is_none();
            (is_bare && !has_finalizer(&service)).then_some(())
        })
        .await;
    let theirs = service(&cluster, "theirs").await.unwrap();
    assert!(address(&theirs).is_none() && theirs.metadata.finalizers.is_none(), "{FINALIZER}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_local_policy_only_a_node_with_a_ready_endpoint_answers() {
    let cluster = with_pool("192.0.2.1", &["n1", "n2", "n3"]).await;
    let slice = |node: &str| {
        serde_json::from_value::<k8s_openapi::api::discovery::v1::EndpointSlice>(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1", "namespace": "default",
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [{ "addresses": ["10.0.0.1"], "nodeName": node }],
        }))
        .unwrap()
    };
    cluster.create(&slice("n2")).await;
    let local = json!({ "externalTrafficPolicy": "Local", "selector": null });
    cluster.create(&balanced("web", local)).await;
    assert_eq!(settled(&cluster, "web").await.1, "n2");
    let there = cluster.client.get("default", "web-1").await.unwrap();
    let mut moved: k8s_openapi::api::discovery::v1::EndpointSlice = there;
    moved.endpoints = slice("n3").endpoints;
    cluster.client.update(&moved).await.unwrap();
    cluster
        .until("the address follows the endpoint", async || {
            let service = service(&cluster, "web").await?;
            (answered_by(&service) == Some("n3")).then_some(())
        })
        .await;
    moved = cluster.client.get("default", "web-1").await.unwrap();
    moved.endpoints.clear();
    cluster.client.update(&moved).await.unwrap();
    cluster
        .until("nobody answers where nobody serves", async || {
            let service = service(&cluster, "web").await?;
            (answered_by(&service).is_none() && address(&service).is_some()).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice_across_changes_of_the_leader() {
    let mut cluster = with_pool("192.0.2.1-192.0.2.20", &["n1"]).await;
    let mut names = Vec::new();
    for leader in 1..4 {
        for number in 0..6 {
            names.push(format!("web-{leader}-{number}"));
            cluster.create(&balanced(names.last().unwrap(), json!({}))).await;
        }
        cluster.stop_leading().await;
        cluster.lead();
    }
    let mut given = BTreeSet::new();
    for name in &names {
        assert!(given.insert(settled(&cluster, name).await.0), "{name}: given twice");
    }
    assert_eq!(given.len(), 18);
    cluster.stop().await;
}
