//! Claims and volumes over a store in memory.

use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kontiki_api::registry::options::DeleteOptions;
use serde_json::{Value, json};

use super::cluster::{Cluster, local_path_class, pod};
use crate::controllers::local_path;
use crate::controllers::pods;
use crate::controllers::volumes::{claim_phase, volume_name, volume_phase};

fn claim(name: &str, more: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    claim["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, policy: &str) -> PersistentVolume {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "2Gi" },
            "storageClassName": "by-hand", "persistentVolumeReclaimPolicy": policy,
            "hostPath": { "path": "/srv/data" },
        },
    }))
    .unwrap()
}

fn using(name: &str, volume: Value) -> Pod {
    let mut pod = pod(name);
    let mut volume = volume;
    volume["name"] = json!("data");
    pod.spec.as_mut().unwrap().volumes = Some(vec![serde_json::from_value(volume).unwrap()]);
    pod
}

async fn until_bound(cluster: &Cluster, name: &str) -> PersistentVolumeClaim {
    let bound = async || {
        let claim = cluster.client.get::<PersistentVolumeClaim>("default", name).await.ok()?;
        (claim_phase(&claim) == "Bound").then_some(claim)
    };
    cluster.until("the claim is bound", bound).await
}

async fn until_phase(cluster: &Cluster, name: &str, phase: &str) -> PersistentVolume {
    let reached = async || {
        let volume = cluster.client.get::<PersistentVolume>("", name).await.ok()?;
        (volume_phase(&volume) == phase).then_some(volume)
    };
    cluster.until(&format!("volume {name} is {phase}"), reached).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_just_works_and_its_folder_goes_with_it() {
    let cluster = Cluster::with_nodes(&["n1", "n2"]).await;
    cluster.create(&local_path_class()).await;
    cluster.create(&claim("data", json!({}))).await;
    let told = async || {
        let events = cluster.list::<Event>("default").await;
        events.iter().any(|e| e.reason.as_deref() == Some("WaitForFirstConsumer")).then_some(())
    };
    cluster.until("the claim says why it waits", told).await;
    let source = json!({ "persistentVolumeClaim": { "claimName": "data" } });
    cluster.create(&using("first", source.clone())).await;
    let bound = until_bound(&cluster, "data").await;
    let running = async |name: &str| {
        let pod = cluster.client.get::<Pod>("default", name).await.ok()?;
        pods::is_ready(&pod).then_some(pod)
    };
    let first = cluster.until("the pod runs", async || running("first").await).await;
    let name = volume_name(&bound).to_owned();
    let made = until_phase(&cluster, &name, "Bound").await;
    assert_eq!(local_path::node_of(&made), pods::node_name(&first));
    let status = bound.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");

    cluster.create(&using("second", source)).await;
    let second = cluster.until("another pod runs", async || running("second").await).await;
    assert_eq!(pods::node_name(&second), pods::node_name(&first), "it goes where the data is");

    let options = DeleteOptions::default();
    let client = &cluster.client;
    client.delete::<PersistentVolumeClaim>("default", "data", &options).await.unwrap();
    client.delete::<Pod>("default", "first", &options).await.unwrap();
    let gone = async |name: &str| client.get::<Pod>("default", name).await.err().map(drop);
    cluster.until("the first pod is gone", async || gone("first").await).await;
    let kept = client.get::<PersistentVolumeClaim>("default", "data").await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_some(), "a pod still uses it");
    client.delete::<Pod>("default", "second", &options).await.unwrap();
    let volume_gone = async || client.get::<PersistentVolume>("", &name).await.err().map(drop);
    cluster.until("the volume is gone", volume_gone).await;
    let node = pods::node_name(&first).unwrap();
    let mut removed = cluster.folders.0.lock().clone();
    // It may be asked for again before the volume is seen to go.
    removed.dedup();
    assert_eq!(removed, [format!("{node}:{name}_default_data")]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_made_by_hand_is_bound_released_and_kept() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&claim("data", json!({ "storageClassName": "by-hand" }))).await;
    cluster.create(&volume("disk", "Retain")).await;
    let bound = until_bound(&cluster, "data").await;
    assert_eq!(volume_name(&bound), "disk");
    let options = DeleteOptions::default();
    // A volume that a claim has stays until the claim is gone.
    cluster.client.delete::<PersistentVolume>("", "disk", &options).await.unwrap();
    until_phase(&cluster, "disk", "Bound").await;
    cluster.client.delete::<PersistentVolumeClaim>("default", "data", &options).await.unwrap();
    let gone = async || cluster.client.get::<PersistentVolume>("", "disk").await.err().map(drop);
    cluster.until("the volume goes as was asked", gone).await;

    cluster.create(&volume("other", "Retain")).await;
    cluster.create(&claim("again", json!({ "storageClassName": "by-hand" }))).await;
    until_bound(&cluster, "again").await;
    cluster.client.delete::<PersistentVolumeClaim>("default", "again", &options).await.unwrap();
    until_phase(&cluster, "other", "Released").await;
    cluster.create(&claim("late", json!({ "storageClassName": "by-hand" }))).await;
    cluster.create(&volume("third", "Delete")).await;
    assert_eq!(volume_name(&until_bound(&cluster, "late").await), "third", "released is not free");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_claim_is_made_for_its_pod() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&local_path_class()).await;
    let template = json!({ "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
    }});
    let source = json!({ "ephemeral": { "volumeClaimTemplate": template } });
    let made = cluster.create(&using("scratch", source)).await;
    let bound = until_bound(&cluster, "scratch-data").await;
    let owner = &bound.metadata.owner_references.unwrap()[0];
    assert_eq!(Some(&owner.uid), made.metadata.uid.as_ref());
    let running = async || {
        let pod = cluster.client.get::<Pod>("default", "scratch").await.ok()?;
        pods::is_ready(&pod).then_some(())
    };
    cluster.until("the pod runs", running).await;
    cluster.stop().await;
}
