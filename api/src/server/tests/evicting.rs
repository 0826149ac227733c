//! Evictions, and the budgets that refuse them.

use super::*;

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A ready pod of the budget's.
async fn running(cluster: &Cluster, name: &str) {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!({ "app": "web" });
    cluster.post(PODS, &pod).await.ok();
    let status = json!({ "status": {
        "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    cluster.merge(&format!("{PODS}/{name}/status"), &status).await.ok();
}

async fn budget(cluster: &Cluster, status: Value) {
    let budget = json!({
        "metadata": { "name": "web" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    cluster.post(BUDGETS, &budget).await.ok();
    cluster.merge(&format!("{BUDGETS}/web/status"), &json!({ "status": status })).await.ok();
}

#[tokio::test]
async fn a_budget_lets_go_as_many_pods_as_it_has_left_and_refuses_the_next() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        running(&cluster, name).await;
    }
    let eviction = |name: &str| json!({ "metadata": { "name": name } });
    let path = |name: &str| format!("{PODS}/{name}/eviction");
    budget(&cluster, json!({})).await;
    let early = cluster.post(&path("a"), &eviction("a")).await;
    assert_eq!(early.code, 429);
    assert_eq!(early.body["details"]["retryAfterSeconds"], 10);
    let counts = json!({ "status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1,
        "expectedPods": 2,
    } });
    cluster.merge(&format!("{BUDGETS}/web/status"), &counts).await.ok();

    let mut dry = eviction("a");
    dry["deleteOptions"] = json!({ "dryRun": ["All"] });
    assert_eq!(cluster.post(&path("a"), &dry).await.code, 201);
    let status = cluster.get(&format!("{BUDGETS}/web")).await.ok();
    assert_eq!(status["status"]["disruptionsAllowed"], 1, "nothing was spent");
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.code, 200);

    assert_eq!(cluster.post(&path("a"), &eviction("a")).await.code, 201);
    let status = cluster.get(&format!("{BUDGETS}/web")).await.ok();
    assert_eq!(status["status"]["disruptionsAllowed"], 0);
    assert!(status["status"]["disruptedPods"]["a"].is_string());

    let refused = cluster.post(&path("b"), &eviction("b")).await;
    assert_eq!(refused.code, 429);
    assert_eq!(
        refused.body["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        refused.body["details"]["causes"],
        json!([{
            "reason": "DisruptionBudget",
            "message": "The disruption budget web needs 1 healthy pods and has 2 currently",
        }])
    );
    assert_eq!(cluster.get(&format!("{PODS}/b")).await.code, 200);
    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    cluster.merge(&format!("{PODS}/b/status"), &unready).await.ok();
    assert_eq!(cluster.post(&path("b"), &eviction("b")).await.code, 201, "it is not missed");
}
