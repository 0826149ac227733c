//! A quota is counted when it comes to be, and what is deleted is free again.

use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kontiki_api::registry::options::DeleteOptions;
use serde_json::json;

use super::cluster::Cluster;

async fn until_used(cluster: &Cluster, amount: &str) {
    cluster
        .until("the quota is counted", async || {
            let quota = cluster.client.get::<ResourceQuota>("default", "q").await.unwrap();
            let used = quota.status?.used?.remove("secrets")?;
            (used.0 == amount).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_free_again() {
    let cluster = Cluster::with_nodes(&[]).await;
    let map = |name: &str| -> Secret {
        let body = json!({ "metadata": { "name": name, "namespace": "default" } });
        serde_json::from_value(body).unwrap()
    };
    cluster.create(&map("a")).await;
    let quota: ResourceQuota = serde_json::from_value(json!({
        "metadata": { "name": "q", "namespace": "default" },
        "spec": { "hard": { "secrets": "2" } },
    }))
    .unwrap();
    cluster.create(&quota).await;
    until_used(&cluster, "1").await;
    cluster.create(&map("b")).await;
    let refused = cluster.client.create(&map("c")).await.unwrap_err();
    let why = "exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=2";
    assert!(refused.message().ends_with(why), "{}", refused.message());
    let options = DeleteOptions::default();
    cluster.client.delete::<Secret>("default", "a", &options).await.unwrap();
    until_used(&cluster, "1").await;
    cluster.create(&map("c")).await;
    cluster.stop().await;
}
