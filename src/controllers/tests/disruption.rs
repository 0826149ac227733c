//! PodDisruptionBudgets over a store in memory.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kontiki_api::registry::options::{Part, Patch};
use serde_json::json;

use super::cluster::{Cluster, deployment};
use crate::controllers::owners;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_counts_the_pods_of_its_deployment() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    }))
    .unwrap();
    cluster.create(&budget).await;
    cluster.create(&deployment("web", 3, "web:1")).await;
    let counts = async |expected: [i32; 4]| {
        let status =
            cluster.client.get::<PodDisruptionBudget>("default", "web").await.ok()?.status?;
        let found = [
            status.expected_pods,
            status.desired_healthy,
            status.current_healthy,
            status.disruptions_allowed,
        ];
        (found == expected).then_some(())
    };
    cluster.until("one may go", async || counts([3, 2, 3, 1]).await).await;
    let pod = cluster.list::<Pod>("default").await.remove(0);
    let unready = Patch::Strategic(
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }),
    );
    let name = owners::name(&pod.metadata);
    cluster.client.patch::<Pod>("default", name, Part::Status, &unready).await.unwrap();
    cluster.until("none may go", async || counts([3, 2, 2, 0]).await).await;
    cluster.stop().await;
}
