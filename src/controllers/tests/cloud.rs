//! A cloud that is a process of its own: what the controllers make of it when it works, and when it
//! fails, throttles, hangs and lies.

mod sky;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Service};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::json;

use super::cluster::Cluster;
use super::load_balancers::{address, balanced, service, until_told};
use crate::cloud::Choice;
use crate::cloud::node::plan::{self, UNINITIALIZED};
use crate::cloud::service::plan::has_finalizer;
use crate::controllers::node_lifecycle::health::condition;
use crate::leader_context::Settings;
use sky::Sky;

/// A cluster under that sky; its nodes fall silent after a while.
async fn under(sky: &Sky, nodes: &[&str], grace: Duration) -> Cluster {
    let settings = Settings {
        cloud: Choice::OutOfProcess(sky.address.parse().unwrap()),
        node_monitor_grace: grace,
        node_monitor_period: Duration::from_millis(50),
        ..Settings::default()
    };
    Cluster::new(nodes, settings).await
}

const FOR_GOOD: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(1);

async fn node(cluster: &Cluster, name: &str) -> Option<Node> {
    cluster.client.get::<Node>("", name).await.ok()
}

/// A node that waits for the cloud's word, as an agent registers it.
async fn add_new_node(cluster: &Cluster, name: &str) {
    cluster.add_node(name, "4").await;
    let taint = json!({ "key": UNINITIALIZED, "value": "true", "effect": "NoSchedule" });
    let patch = Patch::Merge(json!({ "spec": { "taints": [taint] } }));
    cluster.client.patch::<Node>("", name, Part::Main, &patch).await.unwrap();
}

/// The node once the cloud's word is in it.
async fn until_known(cluster: &Cluster, name: &str) -> Node {
    cluster
        .until("the cloud has told about the node", async || {
            let node = node(cluster, name).await?;
            let is_known = plan::provider_id(&node).is_some() && !plan::is_uninitialized(&node);
            is_known.then_some(node)
        })
        .await
}

async fn until_addressed(cluster: &Cluster, name: &str) -> String {
    cluster
        .until("the service has an address", async || address(&service(cluster, name).await?))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_gets_identity_place_kind_and_addresses_from_the_cloud() {
    let folder = tempfile::tempdir().unwrap();
    let sky = Sky::at_socket(folder.path());
    sky.add_instance("n1", 1);
    let cluster = under(&sky, &[], FOR_GOOD).await;
    add_new_node(&cluster, "n1").await;
    let known = until_known(&cluster, "n1").await;
    assert_eq!(plan::provider_id(&known), Some("sky://1"));
    assert_eq!(plan::addresses(&known)[0].address, "192.0.2.1");
    let labels = known.metadata.labels.unwrap();
    assert_eq!(labels["topology.kubernetes.io/zone"], "sky-1a");
    assert_eq!(labels["topology.kubernetes.io/region"], "sky-1");
    assert_eq!(labels["node.kubernetes.io/instance-type"], "cumulus");
    assert_eq!(labels["kubernetes.io/hostname"], "n1", "other labels stay");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_is_made_and_removed_although_the_cloud_fails_throttles_and_hangs() {
    let sky = Sky::at_port().await;
    sky.faults(|faults| faults.unavailable = 1);
    let cluster = under(&sky, &["n1", "n2"], FOR_GOOD).await;
    cluster.until("the cloud was asked", async || (sky.calls("describe") > 1).then_some(())).await;
    sky.faults(|faults| (faults.unavailable, faults.throttled, faults.silent) = (2, 2, 1));
    let began = Instant::now();
    cluster.create(&balanced("web", json!({}))).await;
    let given = until_addressed(&cluster, "web").await;
    assert!(given.starts_with("198.51.100."), "{given}");
    assert!(began.elapsed() >= Duration::from_millis(300), "it waits as long as it was told to");
    let calls = sky.calls("ensure_load_balancer") + sky.calls("list_routes");
    assert!(calls <= 20, "{calls} calls: it is not asked without end");
    assert_eq!(sky.state.lock().led_to, ["n1", "n2"]);
    assert!(has_finalizer(&service(&cluster, "web").await.unwrap()));

    sky.faults(|faults| faults.unavailable = 2);
    cluster.client.delete::<Service>("default", "web", &DeleteOptions::default()).await.unwrap();
    cluster
        .until("the service is gone", async || {
            service(&cluster, "web").await.is_none().then_some(())
        })
        .await;
    assert!(sky.state.lock().balancers.is_empty(), "and its balancer before it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_the_cloud_gives_twice_is_refused_until_it_gives_another() {
    let sky = Sky::at_port().await;
    sky.faults(|faults| faults.same_address = true);
    let cluster = under(&sky, &["n1"], FOR_GOOD).await;
    cluster.create(&balanced("first", json!({}))).await;
    let first = until_addressed(&cluster, "first").await;
    cluster.create(&balanced("second", json!({}))).await;
    let said = until_told(&cluster, "second", "SyncLoadBalancerFailed").await;
    assert!(said.contains("198.51.100.200 is the address of default/first already"), "{said}");
    assert_eq!(address(&service(&cluster, "second").await.unwrap()), None);
    sky.faults(|faults| faults.same_address = false);
    assert_ne!(until_addressed(&cluster, "second").await, first);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_stays_until_its_balancer_is_gone_indeed() {
    let sky = Sky::at_port().await;
    let cluster = under(&sky, &["n1"], FOR_GOOD).await;
    cluster.create(&balanced("web", json!({}))).await;
    until_addressed(&cluster, "web").await;
    sky.faults(|faults| faults.keeps = true);
    cluster.client.delete::<Service>("default", "web", &DeleteOptions::default()).await.unwrap();
    let said = until_told(&cluster, "web", "SyncLoadBalancerFailed").await;
    assert!(said.contains("it is deleted and still there"), "{said}");
    assert!(has_finalizer(&service(&cluster, "web").await.unwrap()));
    sky.faults(|faults| faults.keeps = false);
    cluster
        .until("both are gone", async || service(&cluster, "web").await.is_none().then_some(()))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lives_stays_although_the_cloud_denies_it_and_a_silent_one_goes() {
    let sky = Sky::at_port().await;
    let names = ["denied", "silent"];
    let cluster = under(&sky, &[], SOON).await;
    for (number, name) in (1..).zip(names) {
        sky.add_instance(name, number);
        add_new_node(&cluster, name).await;
    }
    let known = async || {
        cluster.beat(&names).await;
        for name in names {
            plan::provider_id(&node(&cluster, name).await?)?;
        }
        Some(())
    };
    cluster.until("both are known", known).await;
    sky.faults(|faults| faults.denied = names.map(str::to_owned).into());
    cluster
        .until("the silent one is deleted", async || {
            cluster.beat(&["denied"]).await;
            node(&cluster, "silent").await.is_none().then_some(())
        })
        .await;
    assert!(node(&cluster, "denied").await.is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_whose_machine_is_switched_off_stays_and_says_so() {
    let sky = Sky::at_port().await;
    let cluster = under(&sky, &[], SOON).await;
    sky.add_instance("off", 1);
    add_new_node(&cluster, "off").await;
    until_known(&cluster, "off").await;
    sky.state.lock().instances.get_mut("off").unwrap().shut_down = true;
    let has_taint = async || {
        let node = node(&cluster, "off").await?;
        plan::taints(&node).iter().any(|taint| taint.key == plan::SHUTDOWN).then_some(())
    };
    cluster.until("it says that it is switched off", has_taint).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_reached_by_routes_and_a_cloud_that_loses_them_is_found_out() {
    let sky = Sky::at_port().await;
    sky.add_route("foreign", "192.0.2.0/24");
    sky.add_route("stray", "10.244.77.0/24");
    let cluster = under(&sky, &["n1"], FOR_GOOD).await;
    let says = async |node_name: &str, status: &str| {
        let node = node(&cluster, node_name).await?;
        (condition(&node, "NetworkUnavailable")?.status == status).then_some(())
    };
    cluster.until("the node's pods are reached", async || says("n1", "False").await).await;
    let names: Vec<String> = sky.state.lock().routes.keys().cloned().collect();
    assert_eq!(
        names,
        ["foreign", "to-n1"],
        "what leads astray is removed, what is another's is not"
    );
    sky.faults(|faults| faults.loses_routes = true);
    cluster.add_node("n2", "4").await;
    cluster.until("a lost route is found out", async || says("n2", "True").await).await;
    sky.faults(|faults| faults.loses_routes = false);
    cluster.until("and mended", async || says("n2", "False").await).await;
    cluster.stop().await;
}
