//! Custom objects go with their owners, their namespaces and their definitions.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, ListOptions};
use kontiki_api::registry::strategy::Kind;
use kontiki_api::resources::custom_resource_definition::KIND;
use serde_json::{Value, json};

use super::cluster::Cluster;

fn definition(plural: &str, kind: &str) -> Object {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = json!({
        "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
    });
    Object::new(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.controllers.example.com") },
        "spec": {
            "group": "controllers.example.com", "scope": "Namespaced",
            "names": { "plural": plural, "kind": kind }, "versions": [version],
        },
    }))
    .unwrap()
}

fn thing(namespace: &str, name: &str, owners: Value) -> Object {
    Object::new(json!({
        "apiVersion": "controllers.example.com/v1", "kind": "Thing",
        "metadata": { "name": name, "namespace": namespace, "ownerReferences": owners },
    }))
    .unwrap()
}

async fn things(cluster: &Cluster, kind: &'static Kind) -> usize {
    let list = cluster.client.list_objects(kind, "", &ListOptions::default()).await;
    list.unwrap().items.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_objects_go_with_owners_namespaces_and_definitions() {
    let cluster = Cluster::with_nodes(&[]).await;
    cluster.client.create_object(&KIND, definition("things", "Thing")).await.unwrap();
    // What another definition has is not free before that is gone.
    let second = definition("others", "Thing");
    let second = cluster.client.create_object(&KIND, second).await.unwrap();
    assert_eq!(second.at("/status/conditions/0/status"), Some(&json!("False")));
    let kind = cluster
        .until("the kind is served", async || {
            cluster.client.kinds().into_iter().find(|kind| kind.kind == "Thing")
        })
        .await;

    let owner: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "owner", "namespace": "default" } }))
            .unwrap();
    let owner = cluster.client.create(&owner).await.unwrap();
    let reference = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
    }]);
    cluster.add_namespace("going").await;
    for object in [
        thing("default", "owned", reference),
        thing("default", "free", json!(null)),
        thing("going", "inside", json!(null)),
    ] {
        cluster.client.create_object(kind, object).await.unwrap();
    }
    let options = DeleteOptions::default();
    cluster.client.delete::<ConfigMap>("default", "owner", &options).await.unwrap();
    cluster
        .until("the owned object is gone", async || {
            (things(&cluster, kind).await == 2).then_some(())
        })
        .await;
    cluster.client.delete::<Namespace>("", "going", &options).await.unwrap();
    cluster
        .until("the namespace is gone with its object", async || {
            cluster.client.get::<Namespace>("", "going").await.is_err().then_some(())
        })
        .await;
    assert_eq!(things(&cluster, kind).await, 1);

    let name = "things.controllers.example.com";
    cluster.client.delete_object(&KIND, "", name, &options).await.unwrap();
    cluster
        .until("the definition is gone", async || {
            cluster.client.get_object(&KIND, "", name).await.is_err().then_some(())
        })
        .await;
    assert_eq!(things(&cluster, kind).await, 0);
    cluster
        .until("the other one has the name", async || {
            let read = cluster.client.get_object(&KIND, "", second.name()).await.unwrap();
            (read.at("/status/conditions/1/status") == Some(&json!("True"))).then_some(())
        })
        .await;
    cluster.stop().await;
}
