//! Objects that pods are made with: configurations, secrets, templates; and leases.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]"
        => config_map_empty_key,
    "[sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]"
        => config_map_life,
    "[sig-node] Secrets should fail to create secret due to empty secret key [Conformance]"
        => secret_empty_key,
    "[sig-node] Secrets should patch a secret [Conformance]"
        => secret_patch,
    "[sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]"
        => template_life,
    "[sig-node] PodTemplates should delete a collection of pod templates [Conformance]"
        => template_collection,
    "[sig-node] PodTemplates should replace a pod template [Conformance]"
        => template_replaced,
    "[sig-node] Lease lease API should be available [Conformance]"
        => leases,
}

async fn config_map_empty_key(world: World) -> Result<()> {
    let made = world.config_map("config", json!({"": "value"})).await;
    refused(made, 422, "Invalid").map(drop)
}

async fn secret_empty_key(world: World) -> Result<()> {
    let made = world.secret("secret", json!({"": "value"})).await;
    refused(made, 422, "Invalid").map(drop)
}

/// Names of a list.
fn names(list: &Value) -> Vec<&str> {
    items(list).iter().map(name_of).collect()
}

async fn config_map_life(world: World) -> Result<()> {
    let selector = format!("labelSelector=life%3D{}", world.ns);
    let here = format!("{}?{selector}", world.path("v1", "configmaps", ""));
    let everywhere = format!("{}?{selector}", world.global("v1", "configmaps", ""));
    let mut watch = world.api.watch(&here).await?;
    let object = json!({
        "metadata": {"name": "config", "labels": {"life": world.ns}},
        "data": {"key": "first"},
    });
    world.create("v1", "configmaps", &object).await?;
    watch.expect("ADDED", SOON, |map| map["data"]["key"] == "first").await?;
    let path = world.path("v1", "configmaps", "config");
    let patch = json!({"metadata": {"labels": {"state": "patched"}}, "data": {"key": "second"}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    watch.expect("MODIFIED", SOON, |map| map["data"]["key"] == "second").await?;
    let found = world.api.get(&path).await?;
    same("data", &found["data"], &json!({"key": "second"}))?;
    same("label", &found["metadata"]["labels"]["state"], &json!("patched"))?;
    let list = world.api.get(&everywhere).await?;
    same("listed", &json!(names(&list)), &json!(["config"]))?;
    same("listed data", &list["items"][0]["data"]["key"], &json!("second"))?;
    world.api.delete(&here).await?;
    watch.expect("DELETED", SOON, |map| map["metadata"]["name"] == "config").await?;
    same("left", &json!(names(&world.api.get(&everywhere).await?)), &json!([]))
}

async fn secret_patch(world: World) -> Result<()> {
    let label = format!("life%3D{}", world.ns);
    let everywhere = format!("{}?labelSelector={label}", world.global("v1", "secrets", ""));
    let object = json!({
        "metadata": {"name": "secret", "labels": {"life": world.ns}},
        "type": "Opaque",
        "data": {"key": "dmFsdWU="},
    });
    world.create("v1", "secrets", &object).await?;
    same("listed", &json!(names(&world.api.get(&everywhere).await?)), &json!(["secret"]))?;
    let path = world.path("v1", "secrets", "secret");
    let patch = json!({"metadata": {"labels": {"patched": "true"}}, "data": {"key": "dmFsdWUx"}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let found = world.api.get(&path).await?;
    same("data", &found["data"], &json!({"key": "dmFsdWUx"}))?;
    same("label", &found["metadata"]["labels"]["patched"], &json!("true"))?;
    let collection = world.path("v1", "secrets", "");
    world.api.delete(&format!("{collection}?labelSelector=patched%3Dtrue,{label}")).await?;
    same("left", &json!(names(&world.api.get(&everywhere).await?)), &json!([]))
}

/// A template of pods with a container of that image.
fn template(name: &str, set: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"set": set}},
        "template": {"spec": {"containers": [{"name": "main", "image": image}]}},
    })
}

async fn template_life(world: World) -> Result<()> {
    let label = format!("labelSelector=set%3D{}", world.ns);
    let everywhere = format!("{}?{label}", world.global("v1", "podtemplates", ""));
    world.create("v1", "podtemplates", &template("nginx", &world.ns, "nginx")).await?;
    same("listed", &json!(names(&world.api.get(&everywhere).await?)), &json!(["nginx"]))?;
    let path = world.path("v1", "podtemplates", "nginx");
    let patch = json!({"metadata": {"labels": {"state": "patched"}}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let found = world.api.get(&path).await?;
    same("label", &found["metadata"]["labels"]["state"], &json!("patched"))?;
    same("image", &found["template"]["spec"]["containers"][0]["image"], &json!("nginx"))?;
    world.api.delete(&path).await?;
    same("left", &json!(names(&world.api.get(&everywhere).await?)), &json!([]))
}

async fn template_collection(world: World) -> Result<()> {
    for (name, set) in [("one", "true"), ("two", "true"), ("three", "true"), ("other", "false")] {
        world.create("v1", "podtemplates", &template(name, set, "nginx")).await?;
    }
    let path = world.path("v1", "podtemplates", "");
    let chosen = format!("{path}?labelSelector=set%3Dtrue");
    same("listed", &json!(items(&world.api.get(&chosen).await?).len()), &json!(3))?;
    world.api.delete(&chosen).await?;
    same("left", &json!(names(&world.api.get(&path).await?)), &json!(["other"]))
}

async fn template_replaced(world: World) -> Result<()> {
    world.create("v1", "podtemplates", &template("nginx", "one", "nginx")).await?;
    let path = world.path("v1", "podtemplates", "nginx");
    let updated = world
        .api
        .update(&path, |found| {
            found["metadata"]["annotations"] = json!({"updated": "true"});
            found["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
        })
        .await?;
    same("annotation", &updated["metadata"]["annotations"]["updated"], &json!("true"))?;
    let found = world.api.get(&path).await?;
    same("image", &found["template"]["spec"]["containers"][0]["image"], &json!("nginx:2"))
}

const LEASES: &str = "coordination.k8s.io/v1";

/// What a lease says.
fn lease_spec(holder: &str, seconds: u32, transitions: u32) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": "2026-01-02T03:04:05.000000Z",
        "renewTime": "2026-01-02T03:04:10.123456Z",
        "leaseTransitions": transitions,
    })
}

async fn lease_says(world: &World, expected: &Value) -> Result<()> {
    let found = world.api.get(&world.path(LEASES, "leases", "lease")).await?;
    same("lease", &found["spec"], expected)
}

async fn leases(world: World) -> Result<()> {
    let path = world.path(LEASES, "leases", "lease");
    let first = lease_spec("holder", 30, 0);
    let object = json!({"metadata": {"name": "lease"}, "spec": first});
    world.create(LEASES, "leases", &object).await?;
    lease_says(&world, &first).await?;
    let second = lease_spec("holder2", 45, 1);
    world.api.update(&path, |lease| lease["spec"] = second.clone()).await?;
    lease_says(&world, &second).await?;
    let third = lease_spec("holder3", 60, 2);
    world.api.patch(&path, Patch::Strategic, &json!({"spec": third})).await?;
    lease_says(&world, &third).await?;
    let other = json!({"metadata": {"name": "other", "labels": {"deletecollection": "true"}}});
    world.create(LEASES, "leases", &other).await?;
    let all = world.path(LEASES, "leases", "");
    let listed = world.api.get(&all).await?;
    holds("both are listed", items(&listed).len() == 2, &listed)?;
    world.api.delete(&format!("{all}?labelSelector=deletecollection%3Dtrue")).await?;
    same("left", &json!(names(&world.api.get(&all).await?)), &json!(["lease"]))?;
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound").map(drop)
}
