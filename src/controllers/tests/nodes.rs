//! Nodes that fall silent, come back, are full, cordoned or deleted, and what becomes of their pods.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::{Value, json};

use super::cluster::{Cluster, deployment, pod};
use crate::controllers::node_lifecycle::health::{Readiness, condition};
use crate::controllers::node_lifecycle::taints;
use crate::controllers::{owners, pods};
use crate::leader_context::Settings;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A cluster that is quick to call a node dead, and to forget one.
async fn impatient(names: &[&str]) -> Cluster {
    let settings = Settings {
        node_monitor_grace: Duration::from_secs(2),
        node_monitor_period: Duration::from_millis(50),
        node_eviction_interval: Duration::from_millis(50),
        pod_gc_period: Duration::from_millis(50),
        node_quarantine: Duration::ZERO,
        ..Settings::default()
    };
    Cluster::new(names, settings).await
}

/// Keeps these nodes alive until `look` finds what it looks for.
async fn beating<T>(
    cluster: &Cluster,
    names: &[&str],
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    cluster
        .until(what, async || {
            cluster.beat(names).await;
            look().await
        })
        .await
}

async fn node(cluster: &Cluster, name: &str) -> Node {
    cluster.client.get::<Node>("", name).await.unwrap()
}

fn has_taint(node: &Node, key: &str, effect: &str) -> bool {
    taints::taints(node).iter().any(|taint| taint.key == key && taint.effect == effect)
}

async fn reasons(cluster: &Cluster) -> BTreeSet<String> {
    let events = cluster.list::<Event>("default").await;
    events.into_iter().filter_map(|event| event.reason).collect()
}

async fn patch_node(cluster: &Cluster, name: &str, part: Part, patch: Value) {
    cluster.client.patch::<Node>("", name, part, &Patch::Strategic(patch)).await.unwrap();
}

/// A pod on a node that leaves it after so many seconds.
fn leaving(name: &str, node: &str, seconds: i64) -> Pod {
    let mut pod = pod(name);
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some(node.to_owned());
    spec.tolerations = serde_json::from_value(json!([{
        "key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": seconds,
    }]))
    .unwrap();
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_becomes_unknown_and_its_pods_move_when_their_tolerations_end() {
    let cluster = impatient(&["live", "dead"]).await;
    cluster.create(&leaving("soon", "dead", 1)).await;
    cluster.create(&leaving("late", "dead", 3600)).await;
    beating(&cluster, &["live", "dead"], "both pods run", async || {
        let pods = cluster.list::<Pod>("default").await;
        (pods.iter().filter(|pod| pods::is_ready(pod)).count() == 2).then_some(())
    })
    .await;

    let dead = beating(&cluster, &["live"], "the silent node is tainted", async || {
        let dead = node(&cluster, "dead").await;
        has_taint(&dead, UNREACHABLE, "NoExecute").then_some(dead)
    })
    .await;
    let ready = condition(&dead, "Ready").unwrap();
    assert_eq!(ready.status, "Unknown");
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
    assert!(has_taint(&dead, UNREACHABLE, "NoSchedule"));

    beating(&cluster, &["live"], "one pod goes, the other is no longer ready", async || {
        let pods = cluster.list::<Pod>("default").await;
        let late = pods.iter().find(|pod| owners::name(&pod.metadata) == "late")?;
        let is_soon_gone = pods.len() == 1;
        (is_soon_gone && !pods::is_ready(late) && !pods::is_terminating(late)).then_some(())
    })
    .await;
    beating(&cluster, &["live"], "the events tell", async || {
        let reasons = reasons(&cluster).await;
        let told = ["RegisteredNode", "NodeNotReady", "TaintManagerEviction"];
        told.iter().all(|reason| reasons.contains(*reason)).then_some(())
    })
    .await;
    assert_eq!(Readiness::of(&node(&cluster, "live").await), Readiness::Ready);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_loses_its_taints_and_keeps_the_pods_that_waited() {
    let cluster = impatient(&["live", "back"]).await;
    cluster.create(&leaving("patient", "back", 3600)).await;
    beating(&cluster, &["live"], "the node is tainted", async || {
        let back = node(&cluster, "back").await;
        has_taint(&back, UNREACHABLE, "NoExecute").then_some(())
    })
    .await;
    let report = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-02-01T00:00:00Z",
    }] } });
    patch_node(&cluster, "back", Part::Status, report).await;
    beating(&cluster, &["live", "back"], "no taint is left", async || {
        taints::taints(&node(&cluster, "back").await).is_empty().then_some(())
    })
    .await;
    beating(&cluster, &["live", "back"], "the eviction is called off", async || {
        let events = cluster.list::<Event>("default").await;
        let called_off = "Cancelling deletion of Pod default/patient";
        let is_it = |event: &Event| event.message.as_deref() == Some(called_off);
        events.iter().any(is_it).then_some(())
    })
    .await;
    let patient = cluster.client.get::<Pod>("default", "patient").await.unwrap();
    assert!(!pods::is_terminating(&patient));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_nodes_fall_silent_nobody_is_driven_off() {
    let cluster = impatient(&["a", "b"]).await;
    cluster.create(&leaving("one", "a", 1)).await;
    beating(&cluster, &["a", "b"], "the pod runs", async || {
        let pod = cluster.client.get::<Pod>("default", "one").await.ok()?;
        pods::is_ready(&pod).then_some(())
    })
    .await;
    // All at once, or the first to be found silent would be one among live ones.
    cluster
        .until("both are unknown and kept", async || {
            let (a, b) = (node(&cluster, "a").await, node(&cluster, "b").await);
            let is_silent = |node: &Node| {
                Readiness::of(node) == Readiness::Unknown
                    && has_taint(node, UNREACHABLE, "NoSchedule")
                    && !has_taint(node, UNREACHABLE, "NoExecute")
            };
            (is_silent(&a) && is_silent(&b)).then_some(())
        })
        .await;
    cluster
        .until("the pod is not ready", async || {
            let pod = cluster.client.get::<Pod>("default", "one").await.ok()?;
            (!pods::is_ready(&pod)).then_some(())
        })
        .await;
    assert!(cluster.client.get::<Pod>("default", "one").await.is_ok());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_node_keeps_new_pods_away() {
    let cluster = Cluster::with_nodes(&["n"]).await;
    let pressed = |status: &str| json!({ "status": { "conditions": [{ "type": "MemoryPressure", "status": status }] } });
    let has = async |key: &str, wanted: bool| {
        let node = node(&cluster, "n").await;
        (has_taint(&node, &format!("node.kubernetes.io/{key}"), "NoSchedule") == wanted)
            .then_some(())
    };
    patch_node(&cluster, "n", Part::Status, pressed("True")).await;
    patch_node(&cluster, "n", Part::Main, json!({ "spec": { "unschedulable": true } })).await;
    cluster.until("it is under pressure", async || has("memory-pressure", true).await).await;
    cluster.until("it is cordoned", async || has("unschedulable", true).await).await;
    patch_node(&cluster, "n", Part::Status, pressed("False")).await;
    patch_node(&cluster, "n", Part::Main, json!({ "spec": { "unschedulable": null } })).await;
    cluster.until("the pressure is gone", async || has("memory-pressure", false).await).await;
    cluster.until("it is open again", async || has("unschedulable", false).await).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_deleted_node_are_deleted_and_replaced() {
    let cluster = impatient(&["stays", "goes"]).await;
    cluster.create(&deployment("web", 4, "web:1")).await;
    let on_both = async || {
        let pods = cluster.list::<Pod>("default").await;
        let used: BTreeSet<&str> = pods.iter().filter_map(pods::node_name).collect();
        (used.len() == 2 && pods.iter().all(pods::is_ready)).then_some(())
    };
    beating(&cluster, &["stays", "goes"], "the pods are spread", on_both).await;
    cluster.client.delete::<Node>("", "goes", &DeleteOptions::default()).await.unwrap();
    beating(&cluster, &["stays"], "all pods run on the other node", async || {
        let pods = cluster.list::<Pod>("default").await;
        let here =
            pods.iter().filter(|pod| pods::is_ready(pod) && pods::node_name(pod) == Some("stays"));
        (here.count() == 4 && pods.len() == 4).then_some(())
    })
    .await;
    let removed = async || reasons(&cluster).await.contains("RemovingNode").then_some(());
    beating(&cluster, &["stays"], "the end of the node is told", removed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_a_finalizer_that_never_found_a_node_is_ended_when_deleted() {
    let cluster = Cluster::with_nodes(&[]).await;
    let mut held = pod("held");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    cluster.create(&held).await;
    cluster.client.delete::<Pod>("default", "held", &DeleteOptions::default()).await.unwrap();
    cluster
        .until("it has failed", async || {
            let pod = cluster.client.get::<Pod>("default", "held").await.ok()?;
            (pods::phase(&pod) == "Failed").then_some(())
        })
        .await;
    cluster.stop().await;
}
