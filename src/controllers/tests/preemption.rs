//! An important pod gets its room though the nodes are full.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::json;

use super::cluster::{Cluster, pod};
use crate::controllers::pods;

fn wanting(name: &str, cpu: &str, class: Option<&str>) -> Pod {
    let mut pod = pod(name);
    let spec = pod.spec.as_mut().unwrap();
    spec.priority_class_name = class.map(str::to_owned);
    let requests = json!({ "requests": { "cpu": cpu } });
    spec.containers[0].resources = Some(serde_json::from_value(requests).unwrap());
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_important_pod_drives_off_a_lesser_one_and_takes_its_room() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    for (name, value, policy) in [("high", 1000, "PreemptLowerPriority"), ("meek", 1000, "Never")] {
        let class: PriorityClass = serde_json::from_value(json!({
            "metadata": { "name": name }, "value": value, "preemptionPolicy": policy,
        }))
        .unwrap();
        cluster.create(&class).await;
    }
    let running = async |name: &str| {
        let pod = cluster.client.get::<Pod>("default", name).await.ok()?;
        pods::is_ready(&pod).then_some(pod)
    };
    for name in ["low-1", "low-2"] {
        let mut low = wanting(name, "2", None);
        // What was driven off is looked at before it goes.
        low.metadata.finalizers = Some(vec!["example.com/look".to_owned()]);
        cluster.create(&low).await;
        cluster.until("the node fills", async || running(name).await).await;
    }
    cluster.create(&wanting("meek", "2", Some("meek"))).await;
    let told = async || {
        let pod = cluster.client.get::<Pod>("default", "meek").await.ok()?;
        pods::condition(&pod, "PodScheduled")?.message.clone()
    };
    let why = cluster.until("the meek one waits", told).await;
    assert!(why.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{why}");

    cluster.create(&wanting("important", "2", Some("high"))).await;
    let victim = async || {
        let all = cluster.list::<Pod>("default").await;
        all.into_iter().find(|pod| pods::condition(pod, "DisruptionTarget").is_some())
    };
    let victim = cluster.until("a lesser one is driven off", victim).await;
    let reason = pods::condition(&victim, "DisruptionTarget").unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("PreemptionByScheduler"));
    let nominated = async || {
        let pod = cluster.client.get::<Pod>("default", "important").await.ok()?;
        pod.status?.nominated_node_name
    };
    assert_eq!(cluster.until("it waits for the node", nominated).await, "n1");
    let name = victim.metadata.name.as_deref().unwrap();
    cluster.patch::<Pod>(name, json!({ "metadata": { "finalizers": null } })).await;
    let placed = cluster.until("it runs", async || running("important").await).await;
    assert_eq!(pods::node_name(&placed), Some("n1"));
    assert!(running("meek").await.is_none(), "the room was the important one's");
    cluster.stop().await;
}
