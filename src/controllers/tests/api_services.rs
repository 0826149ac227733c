//! APIServices: those of the cluster itself come back, those of others are told how they are.

use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Part};
use kontiki_api::resources::api_service::{KIND, condition};
use kontiki_api::resources::custom_resource_definition;
use serde_json::{Value, json};

use super::cluster::{Cluster, service};

impl Cluster {
    async fn until_available(&self, name: &str, status: &str, reason: &str) -> Object {
        self.until(reason, async || {
            let found = self.client.get_object(&KIND, "", name).await.ok()?;
            let is = condition(&found)?;
            (is["status"] == status && is["reason"] == reason).then_some(found)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_s_own_versions_are_registered_and_come_back() {
    let cluster = Cluster::with_nodes(&[]).await;
    let apps = cluster.until_available("v1.apps", "True", "Local").await;
    assert_eq!(apps.label("kube-aggregator.kubernetes.io/automanaged"), Some("onstart"));
    assert_eq!(apps.i64_at("/spec/groupPriorityMinimum"), Some(17_800));
    let core = cluster.until_available("v1.", "True", "Local").await;
    assert_eq!(core.at("/spec/group"), None);
    let options = DeleteOptions::of_uid(apps.uid());
    cluster.client.delete_object(&KIND, "", "v1.apps", &options).await.unwrap();
    let again = cluster.until_available("v1.apps", "True", "Local").await;
    assert_ne!(again.uid(), apps.uid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_s_versions_are_registered_while_it_is_there() {
    let cluster = Cluster::with_nodes(&[]).await;
    let version = json!({ "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": { "type": "object" } } });
    let definition = Object::new(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.example.com" },
        "spec": { "group": "example.com", "scope": "Cluster", "versions": [version],
            "names": { "plural": "things", "kind": "Thing" } },
    }))
    .unwrap();
    let kind = &custom_resource_definition::KIND;
    cluster.client.create_object(kind, definition).await.unwrap();
    let found = cluster.until_available("v1.example.com", "True", "Local").await;
    assert_eq!(found.label("kube-aggregator.kubernetes.io/automanaged"), Some("true"));
    let options = DeleteOptions::default();
    cluster.client.delete_object(kind, "", "things.example.com", &options).await.unwrap();
    cluster
        .until("it is registered no more", async || {
            cluster.client.get_object(&KIND, "", "v1.example.com").await.is_err().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_elsewhere_is_available_when_it_is_there_and_answers() {
    let cluster = Cluster::with_nodes(&[]).await;
    let name = "v1alpha1.wardle.example.com";
    let one = Object::new(json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": name },
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000,
            "versionPriority": 200, "insecureSkipTLSVerify": true,
            "service": { "namespace": "default", "name": "api", "port": 80 },
        },
    }))
    .unwrap();
    "it does not answer".clone_into(&mut cluster.aggregated.refusal.lock());
    cluster.client.create_object(&KIND, one).await.unwrap();
    cluster.until_available(name, "False", "ServiceNotFound").await;
    cluster.create(&service("api")).await;
    cluster.until_available(name, "False", "MissingEndpoints").await;
    let mut outside = cluster.client.get_object(&KIND, "", name).await.unwrap();
    outside.set(&["spec", "service", "port"], 81);
    cluster.client.update_object(&KIND, Part::Main, outside).await.unwrap();
    cluster.until_available(name, "False", "ServicePortError").await;
    let external = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "outside", "namespace": "default" },
        "spec": { "type": "ExternalName", "externalName": "api.example.com" },
    });
    let external: k8s_openapi::api::core::v1::Service = serde_json::from_value(external).unwrap();
    cluster.client.create(&external).await.unwrap();
    let mut outside = cluster.client.get_object(&KIND, "", name).await.unwrap();
    outside.set(&["spec", "service", "name"], "outside");
    cluster.client.update_object(&KIND, Part::Main, outside).await.unwrap();
    let down = cluster.until_available(name, "False", "FailedDiscoveryCheck").await;
    let message = condition(&down).and_then(|is| is["message"].as_str());
    assert_eq!(message, Some("it does not answer"));
    cluster.aggregated.refusal.lock().clear();
    let up = cluster.until_available(name, "True", "Passed").await;
    assert_eq!(condition(&up).map(|is| &is["message"]), Some(&Value::from("all checks passed")));
}
