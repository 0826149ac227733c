//! Owners and dependents of several kinds, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolume, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kontiki_api::client::ApiType;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use kontiki_storage::kv::{
    Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, TxnResponse, WatchRequest,
    Watcher,
};
use kontiki_storage::local::LocalKv;
use serde_json::json;

use super::cluster::Cluster;
use crate::controllers::owners;
use crate::leader_context::Settings;

fn map(name: &str, owners: Vec<OwnerReference>) -> ConfigMap {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "default", "ownerReferences": owners },
    }))
    .unwrap()
}

/// A reference that does not make its object the controller.
fn owned_by<K: ApiType>(owner: &K) -> OwnerReference {
    OwnerReference { controller: None, ..owners::controller_reference(owner) }
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let maps = cluster.list::<ConfigMap>("default").await;
    let names = maps.iter().map(|map| owners::name(&map.metadata).to_owned());
    names.filter(|name| name != "kube-root-ca.crt").collect()
}

async fn until_left(cluster: &Cluster, expected: &[&str]) {
    let what = format!("only {expected:?} are left");
    cluster.until(&what, async || (names(cluster).await == expected).then_some(())).await;
}

async fn delete(cluster: &Cluster, name: &str, propagation: Propagation) {
    let options = DeleteOptions::default().propagate(propagation);
    cluster.client.delete::<ConfigMap>("default", name, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_of_dependents_go_and_those_with_another_owner_stay() {
    let cluster = Cluster::with_nodes(&[]).await;
    let (a, b) = (cluster.create(&map("a", vec![])).await, cluster.create(&map("b", vec![])).await);
    let child = cluster.create(&map("child", vec![owned_by(&a)])).await;
    cluster.create(&map("grandchild", vec![owned_by(&child)])).await;
    cluster.create(&map("shared", vec![owned_by(&a), owned_by(&b)])).await;
    delete(&cluster, "a", Propagation::Background).await;
    until_left(&cluster, &["b", "shared"]).await;
    cluster
        .until("the owner that is gone is taken off", async || {
            let shared = cluster.client.get::<ConfigMap>("default", "shared").await.ok()?;
            (shared.metadata.owner_references? == [owned_by(&b)]).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_created_for_an_owner_that_is_gone_already_goes() {
    let cluster = Cluster::with_nodes(&[]).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    delete(&cluster, "owner", Propagation::Background).await;
    cluster.create(&map("late", vec![owned_by(&owner)])).await;
    // Another of that name is not that owner.
    cluster.create(&map("owner", vec![])).await;
    until_left(&cluster, &["owner"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_deleted_in_the_foreground_waits_for_those_that_block_it() {
    let cluster = Cluster::with_nodes(&[]).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    let mut held = map("held", vec![owned_by(&owner)]);
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    cluster.create(&held).await;
    delete(&cluster, "owner", Propagation::Foreground).await;
    cluster
        .until("the dependent is told to go", async || {
            let held = cluster.client.get::<ConfigMap>("default", "held").await.ok()?;
            held.metadata.deletion_timestamp.map(drop)
        })
        .await;
    assert_eq!(names(&cluster).await, ["held", "owner"]);
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    cluster.client.patch::<ConfigMap>("default", "held", Part::Main, &free).await.unwrap();
    until_left(&cluster, &[]).await;
    cluster.stop().await;
}

/// Conformance: "should not be blocked by dependency circle".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_goes_in_the_foreground_too() {
    for propagation in [Propagation::Foreground, Propagation::Background] {
        let cluster = Cluster::with_nodes(&[]).await;
        let mut circle = Vec::new();
        for name in ["a", "b", "c"] {
            circle.push(cluster.create(&map(name, vec![])).await);
        }
        for (name, owner) in [("a", &circle[2]), ("b", &circle[0]), ("c", &circle[1])] {
            let owners = json!({ "metadata": { "ownerReferences": [owned_by(owner)] } });
            cluster.patch::<ConfigMap>(name, owners).await;
        }
        delete(&cluster, "a", propagation).await;
        until_left(&cluster, &[]).await;
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_in_another_namespace_is_none_and_an_event_says_so() {
    let cluster = Cluster::with_nodes(&[]).await;
    cluster.add_namespace("shop").await;
    let mut owner = map("owner", vec![]);
    owner.metadata.namespace = Some("shop".to_owned());
    let owner = cluster.create(&owner).await;
    let dependent = cluster.create(&map("lost", vec![owned_by(&owner)])).await;
    let uid = owners::uid(&owner.metadata);
    let expected = format!(
        "ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: {uid}] does not exist in \
         namespace \"default\""
    );
    cluster
        .until("an event says why", async || {
            let events = cluster.list::<Event>("default").await;
            let event = events
                .into_iter()
                .find(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))?;
            (event.message == Some(expected.clone())
                && event.involved_object.uid == dependent.metadata.uid)
                .then_some(())
        })
        .await;
    until_left(&cluster, &[]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lives_in_no_namespace_is_not_taken_for_an_orphan_of_what_lives_in_one() {
    let cluster = Cluster::with_nodes(&[]).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    let volume: PersistentVolume = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "volume", "ownerReferences": [owned_by(&owner)] },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
            "hostPath": { "path": "/tmp/x" },
        },
    }))
    .unwrap();
    let volume = cluster.create(&volume).await;
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {
            "name": "secret", "namespace": "default", "ownerReferences": [owned_by(&volume)],
        },
    }))
    .unwrap();
    cluster.create(&secret).await;
    delete(&cluster, "owner", Propagation::Background).await;
    until_left(&cluster, &[]).await;
    // The other way round it is a proper owner.
    cluster
        .client
        .delete::<PersistentVolume>("", "volume", &DeleteOptions::default())
        .await
        .unwrap();
    cluster
        .until("the secret goes with the volume", async || {
            cluster.list::<Secret>("default").await.is_empty().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_collects_what_lost_its_owner_between_the_terms() {
    let mut cluster = Cluster::with_nodes(&[]).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    cluster.create(&map("left", vec![owned_by(&owner)])).await;
    cluster.stop_leading().await;
    delete(&cluster, "owner", Propagation::Background).await;
    cluster.lead();
    until_left(&cluster, &[]).await;
    cluster.stop().await;
}

/// A store whose watchers hear of changed Secrets late.
struct Late(LocalKv);

#[async_trait]
impl Kv for Late {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.0.range(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        self.0.txn(proposal).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        let watcher = self.0.watch(request).await?;
        Ok(watcher.read_by(|event| {
            if event.kv.version > 1 && event.kv.key.starts_with(b"/registry/secrets/") {
                std::thread::sleep(Duration::from_millis(300));
            }
        }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.0.compact(revision).await
    }

    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn compacted(&self) -> Revision {
        self.0.compacted()
    }
}

/// The owner is seen gone before its dependent is seen let go: what is deleted then must be as it was
/// seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_orphaned_is_not_collected_on_an_old_sight_of_it() {
    let store = Arc::new(Late(LocalKv::in_memory()));
    let cluster = Cluster::over(store, &[], Settings::default()).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    let kept: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "kept", "namespace": "default", "ownerReferences": [owned_by(&owner)],
        },
    }))
    .unwrap();
    cluster.create(&kept).await;
    delete(&cluster, "owner", Propagation::Orphan).await;
    until_left(&cluster, &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.list::<Secret>("default").await.len(), 1);
    cluster.stop().await;
}

/// A ReplicaSet whose pods come and go changes faster than it is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_changes_all_the_time_is_collected_all_the_same() {
    let store = Arc::new(Late(LocalKv::in_memory()));
    let cluster = Cluster::over(store, &[], Settings::default()).await;
    let owner = cluster.create(&map("owner", vec![])).await;
    let busy: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "busy", "namespace": "default", "ownerReferences": [owned_by(&owner)],
        },
    }))
    .unwrap();
    cluster.create(&busy).await;
    let client = cluster.client.clone();
    let changing = tokio::spawn(async move {
        for number in 0_u64.. {
            let patch =
                Patch::Merge(json!({ "metadata": { "labels": { "n": number.to_string() } } }));
            if client.patch::<Secret>("default", "busy", Part::Main, &patch).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    delete(&cluster, "owner", Propagation::Background).await;
    tokio::time::timeout(Duration::from_secs(20), changing)
        .await
        .expect("it is collected")
        .unwrap();
    assert!(cluster.list::<Secret>("default").await.is_empty());
    cluster.stop().await;
}
