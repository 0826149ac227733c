//! Kinds of storage that the API keeps for others: drivers, classes, attachments, volumes and claims.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::lifecycle::{Kind, every_verb};
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
const DRIVER: &str = "csi.conformance.example.com";

cases! {
    "[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]"
        => csi_drivers,
    "[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]"
        => inline_volume,
    "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]"
        => csi_nodes,
    "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]"
        => capacities,
    "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]"
        => classes,
    "[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]"
        => attachments,
    "[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]"
        => attachment_status,
    "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]"
        => volume_and_claim,
    "[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]"
        => volume_and_claim_status,
}

const fn global(plural: &'static str) -> Kind {
    Kind { version: "storage.k8s.io/v1", plural, namespaced: false }
}

async fn csi_drivers(world: World) -> Result<()> {
    let spec = json!({"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"]});
    every_verb(&world, global("csidrivers"), |_| json!({"spec": spec})).await
}

async fn csi_nodes(world: World) -> Result<()> {
    every_verb(&world, global("csinodes"), |_| json!({"spec": {"drivers": []}})).await
}

async fn classes(world: World) -> Result<()> {
    every_verb(&world, global("storageclasses"), |_| json!({"provisioner": DRIVER})).await
}

async fn capacities(world: World) -> Result<()> {
    let kind = Kind { namespaced: true, ..global("csistoragecapacities") };
    every_verb(
        &world,
        kind,
        |_| json!({"storageClassName": "fast", "nodeTopology": {}, "capacity": "1Gi"}),
    )
    .await
}

async fn attachment(world: &World) -> Result<Value> {
    let node = world.nodes().await?.into_iter().next().context("a node")?;
    let source = json!({"persistentVolumeName": world.unique("volume")});
    Ok(json!({"spec": {"attacher": DRIVER, "nodeName": node, "source": source}}))
}

async fn attachments(world: World) -> Result<()> {
    let object = attachment(&world).await?;
    every_verb(&world, global("volumeattachments"), |_| object.clone()).await
}

async fn attachment_status(world: World) -> Result<()> {
    let kind = global("volumeattachments");
    let mut object = attachment(&world).await?;
    object["metadata"]["name"] = json!(world.unique("status"));
    let made = world.api.create(&kind.path(&world, ""), &object).await?;
    let path = kind.path(&world, name_of(&made));
    let result = status_changes(&world, &path).await;
    world.api.delete(&path).await?;
    result
}

/// Whether it is attached is said through the status alone.
async fn status_changes(world: &World, path: &str) -> Result<()> {
    let status = format!("{path}/status");
    let attached = json!({"status": {"attached": true}});
    let now = world.api.patch(&status, Patch::Merge, &attached).await?;
    same("patched", &now["status"]["attached"], &json!(true))?;
    let now = world
        .api
        .update(&status, |object| {
            object["status"] = json!({"attached": false, "attachmentMetadata": {"at": "here"}});
        })
        .await?;
    same("updated", &now["status"]["attachmentMetadata"]["at"], &json!("here"))?;
    world.api.patch(path, Patch::Merge, &attached).await?;
    let now = world.api.get(&status).await?;
    same("not through the object", &now["status"]["attached"], &json!(false))
}

async fn inline_volume(world: World) -> Result<()> {
    let driver = json!({
        "metadata": {"name": world.unique("csi")},
        "spec": {"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"]},
    });
    let drivers = world.global("storage.k8s.io/v1", "csidrivers", "");
    let made = world.api.create(&drivers, &driver).await?;
    let result = pod_with_inline_volume(&world, name_of(&made)).await;
    world.api.delete(&format!("{drivers}/{}", name_of(&made))).await?;
    result
}

async fn pod_with_inline_volume(world: &World, driver: &str) -> Result<()> {
    let mut pod = world.sleeper("inline");
    let source = json!({
        "driver": driver, "readOnly": false, "fsType": "ext4", "volumeAttributes": {"size": "1Gi"},
    });
    pod["spec"]["volumes"] = json!([{"name": "inline", "csi": source}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "inline", "mountPath": "/mnt"}]);
    world.create("v1", "pods", &pod).await?;
    let kept = world.api.get(&world.pod_path("inline")).await?;
    let volumes = kept["spec"]["volumes"].as_array().context("volumes")?;
    let found = volumes.iter().find(|volume| volume["name"] == "inline").context("the volume")?;
    same("the source", &found["csi"], &source)?;
    let label = json!({"metadata": {"labels": {"patched": "yes"}}});
    world.api.patch(&world.pod_path("inline"), Patch::Strategic, &label).await?;
    let list = format!("{}?labelSelector=patched%3Dyes", world.path("v1", "pods", ""));
    same("listed", &json!(items(&world.api.get(&list).await?).len()), &json!(1))?;
    let now = json!({"gracePeriodSeconds": 0});
    world.api.delete_with(&world.pod_path("inline"), &now).await?;
    world.wait_gone(&world.pod_path("inline"), SOON).await
}

fn volume(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": world.unique(name), "labels": {"conformance": world.ns}},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": world.ns,
            "csi": {"driver": DRIVER, "volumeHandle": world.unique(name)},
        },
    })
}

fn claim(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"conformance": world.ns}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": world.ns,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// The collections of volumes and of claims that belong to a case.
fn selected(world: &World) -> [String; 2] {
    let selector = format!("?labelSelector=conformance%3D{}", world.ns);
    [
        format!("{}{selector}", world.global("v1", "persistentvolumes", "")),
        format!("{}{selector}", world.path("v1", "persistentvolumeclaims", "")),
    ]
}

async fn remove(world: &World) -> Result<()> {
    let [volumes, claims] = selected(world);
    for collection in [&claims, &volumes] {
        world.api.delete(collection).await?;
        world.wait("none is left", collection, SOON, |list| items(list).is_empty()).await?;
    }
    Ok(())
}

/// Makes a volume and a claim that get each other, and returns their paths.
async fn bound(world: &World) -> Result<[String; 2]> {
    let made = world.api.create("/api/v1/persistentvolumes", &volume(world, "volume")).await?;
    world.create("v1", "persistentvolumeclaims", &claim(world, "claim")).await?;
    let paths = [
        world.global("v1", "persistentvolumes", name_of(&made)),
        world.path("v1", "persistentvolumeclaims", "claim"),
    ];
    for path in &paths {
        world.wait("it is bound", path, SOON, |now| now["status"]["phase"] == "Bound").await?;
    }
    Ok(paths)
}

async fn volume_and_claim(world: World) -> Result<()> {
    let result = volume_and_claim_live(&world).await;
    remove(&world).await?;
    result
}

async fn volume_and_claim_live(world: &World) -> Result<()> {
    let api = &world.api;
    let paths = bound(world).await?;
    for path in &paths {
        let label = json!({"metadata": {"labels": {"patched": "yes"}}});
        let now = api.patch(path, Patch::Merge, &label).await?;
        same("patched", &now["metadata"]["labels"]["patched"], &json!("yes"))?;
        let change = |object: &mut Value| object["metadata"]["labels"]["updated"] = json!("yes");
        let now = api.update(path, change).await?;
        same("updated", &now["metadata"]["labels"]["updated"], &json!("yes"))?;
    }
    for list in selected(world) {
        same("listed", &json!(items(&api.get(&list).await?).len()), &json!(1))?;
    }
    let everywhere =
        format!("/api/v1/persistentvolumeclaims?labelSelector=conformance%3D{}", world.ns);
    same("listed over all", &json!(items(&api.get(&everywhere).await?).len()), &json!(1))?;
    let [volume_path, claim_path] = &paths;
    let volume_now = api.get(volume_path).await?;
    same("whose", &volume_now["spec"]["claimRef"]["name"], &json!("claim"))?;
    let claim_now = api.get(claim_path).await?;
    same("which", &claim_now["spec"]["volumeName"], &volume_now["metadata"]["name"])?;

    api.delete(claim_path).await?;
    world.wait_gone(claim_path, SOON).await?;
    let released = |now: &Value| now["status"]["phase"] == "Released";
    world.wait("it is released", volume_path, SOON, released).await?;
    api.delete(volume_path).await?;
    world.wait_gone(volume_path, SOON).await?;
    bound(world).await?;
    remove(world).await
}

async fn volume_and_claim_status(world: World) -> Result<()> {
    let result = statuses_change(&world).await;
    remove(&world).await?;
    result
}

async fn statuses_change(world: &World) -> Result<()> {
    let [volume, claim] = bound(world).await?.map(|path| format!("{path}/status"));
    let condition = json!({"type": "Patched", "status": "True", "reason": "c", "message": "d"});
    let now = world
        .api
        .patch(&claim, Patch::Merge, &json!({"status": {"conditions": [condition]}}))
        .await?;
    let has = |object: &Value, kind: &str| {
        let mut all = object["status"]["conditions"].as_array().into_iter().flatten();
        all.any(|condition| condition["type"] == kind)
    };
    holds("the claim is patched", has(&now, "Patched"), &now)?;
    let now = world
        .api
        .update(&claim, |object| {
            object["status"]["conditions"] = json!([{"type": "Updated", "status": "True"}]);
        })
        .await?;
    holds("the claim is updated", has(&now, "Updated") && !has(&now, "Patched"), &now)?;
    let patch = json!({"status": {"message": "patched", "reason": "Patched"}});
    let now = world.api.patch(&volume, Patch::Merge, &patch).await?;
    same("the volume is patched", &now["status"]["message"], &json!("patched"))?;
    let now =
        world.api.update(&volume, |object| object["status"]["message"] = json!("updated")).await?;
    same("the volume is updated", &now["status"]["message"], &json!("updated"))?;
    for path in [&volume, &claim] {
        same("it stays bound", &world.api.get(path).await?["status"]["phase"], &json!("Bound"))?;
    }
    Ok(())
}
