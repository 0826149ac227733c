//! Namespaces that are being deleted: in which order they are emptied, and what they tell.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::json;

use super::cluster::{Cluster, pod};

const HOLD: &str = "example.com/hold";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_before_everything_else_and_the_conditions_tell_what_is_left() {
    let mut cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.add_namespace("shop").await;
    let mut held = pod("held");
    held.metadata.namespace = Some("shop".to_owned());
    held.metadata.finalizers = Some(vec![HOLD.to_owned()]);
    cluster.create(&held).await;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "settings", "namespace": "shop" },
    });
    cluster.create(&serde_json::from_value::<ConfigMap>(map).unwrap()).await;
    cluster.client.delete::<Namespace>("", "shop", &DeleteOptions::default()).await.unwrap();
    let conditions = cluster
        .until("the namespace tells what is left", async || {
            let namespace = cluster.client.get::<Namespace>("", "shop").await.ok()?;
            namespace.status?.conditions
        })
        .await;
    let told = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.as_str(), condition.message.as_deref().unwrap_or_default())
    };
    assert_eq!(
        told("NamespaceContentRemaining"),
        ("True", "Some resources are remaining: pods. has 1 resource instances")
    );
    assert_eq!(
        told("NamespaceFinalizersRemaining").1,
        format!(
            "Some content in the namespace has finalizers remaining: {HOLD} in 1 resource instances"
        )
    );
    assert_eq!(told("NamespaceDeletionContentFailure").0, "False");
    assert!(cluster.client.get::<ConfigMap>("shop", "settings").await.is_ok(), "pods go first");

    // Another leader goes on where this one stops.
    cluster.stop_leading().await;
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    cluster.client.patch::<Pod>("shop", "held", Part::Main, &free).await.unwrap();
    cluster.lead();
    cluster
        .until("the namespace is gone", async || {
            cluster.client.get::<Namespace>("", "shop").await.is_err().then_some(())
        })
        .await;
    assert!(cluster.client.get::<ConfigMap>("shop", "settings").await.is_err());
    cluster.stop().await;
}
