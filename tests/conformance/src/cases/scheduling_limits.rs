//! Limit ranges: what they give to pods, and which pods they refuse.

use anyhow::Result;
use serde_json::{Value, json};

use super::scheduling_support::SOON;
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, items, name_of, same, until};

cases! {
    "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]"
        => defaults,
    "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]"
        => collection,
}

/// Amounts of the three things that limit ranges bound; an empty one is left out.
fn amounts(cpu: &str, memory: &str, disk: &str) -> Value {
    let all = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", disk)];
    all.iter().filter(|(_, amount)| !amount.is_empty()).copied().collect::<Value>()
}

fn range(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"case": world.ns, "state": "created"}},
        "spec": {"limits": [{
            "type": "Container",
            "min": amounts("50m", "100Mi", "100Gi"),
            "max": amounts("500m", "500Mi", "500Gi"),
            "default": amounts("500m", "500Mi", "500Gi"),
            "defaultRequest": amounts("100m", "200Mi", "200Gi"),
        }]},
    })
}

/// What comes of making a pod that asks for `requests`, bounded by `limits`.
async fn asking(world: &World, name: &str, requests: Value, limits: Value) -> Result<Value> {
    let mut pod = world.sleeper(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
    world.create("v1", "pods", &pod).await
}

/// A container's resources as they come out of the API.
async fn resources(world: &World, name: &str) -> Result<Value> {
    let pod = world.api.get(&world.pod_path(name)).await?;
    Ok(pod["spec"]["containers"][0]["resources"].clone())
}

async fn defaults(world: World) -> Result<()> {
    let chosen =
        format!("{}?labelSelector=case%3D{}", world.path("v1", "limitranges", ""), world.ns);
    same("before", &json!(items(&world.api.get(&chosen).await?).len()), &json!(0))?;
    let mut watch = world.api.watch(&chosen).await?;
    let wanted = range(&world, "range");
    world.create("v1", "limitranges", &wanted).await?;
    watch.expect("ADDED", SOON, |range| name_of(range) == "range").await?;
    let path = world.path("v1", "limitranges", "range");
    let found = world.api.get(&path).await?;
    same("what it says", &found["spec"], &wanted["spec"])?;
    in_force(&world).await?;
    filled_in(&world).await?;

    refused(few(&world, "few").await, 403, "Forbidden")?;
    refused(much(&world, "much").await, 403, "Forbidden")?;
    let less = amounts("9m", "49Mi", "49Gi");
    world.api.update(&path, |range| range["spec"]["limits"][0]["min"] = less.clone()).await?;
    same("new bounds", &world.api.get(&path).await?["spec"]["limits"][0]["min"], &less)?;
    // Each server looks at the bounds through a cache of its own.
    until(SOON, || few(&world, "few")).await?;
    refused(much(&world, "much").await, 403, "Forbidden")?;

    world.api.delete_with(&path, &json!({"gracePeriodSeconds": 30})).await?;
    watch.expect("DELETED", SOON, |range| name_of(range) == "range").await?;
    world.wait("none is left", &chosen, SOON, |list| items(list).is_empty()).await?;
    until(SOON, || much(&world, "much")).await.map(drop)
}

/// Waits until a pod that asks for too much is refused.
async fn in_force(world: &World) -> Result<()> {
    until(SOON, || async { refused(much(world, "tried").await, 403, "Forbidden").map(drop) }).await
}

async fn filled_in(world: &World) -> Result<()> {
    asking(world, "asks-nothing", json!({}), json!({})).await?;
    let all = json!({
        "requests": amounts("100m", "200Mi", "200Gi"), "limits": amounts("500m", "500Mi", "500Gi"),
    });
    same("what it is given", &resources(world, "asks-nothing").await?, &all)?;
    asking(world, "asks-some", amounts("", "150Mi", "150Gi"), amounts("300m", "", "")).await?;
    // Who says a limit and no request asks for the limit: the range gives only what is still missing.
    let rest = json!({
        "requests": amounts("300m", "150Mi", "150Gi"), "limits": amounts("300m", "500Mi", "500Gi"),
    });
    same("what it has", &resources(world, "asks-some").await?, &rest)
}

/// A pod below the first bounds.
async fn few(world: &World, name: &str) -> Result<Value> {
    asking(world, name, amounts("10m", "50Mi", "50Gi"), json!({})).await
}

/// A pod above all bounds.
async fn much(world: &World, name: &str) -> Result<Value> {
    let all = amounts("600m", "600Mi", "600Gi");
    // Without limits of its own it would be refused for those that it is given.
    asking(world, name, all.clone(), all).await
}

async fn collection(world: World) -> Result<()> {
    let other = world.namespace("other").await?;
    world.create("v1", "limitranges", &range(&world, "range")).await?;
    let there = world.path_in(&other, "v1", "limitranges", "");
    world.api.create(&there, &range(&world, "range")).await?;
    let everywhere =
        format!("{}?labelSelector=case%3D{}", world.global("v1", "limitranges", ""), world.ns);
    same("everywhere", &json!(items(&world.api.get(&everywhere).await?).len()), &json!(2))?;

    let less = amounts("9m", "49Mi", "49Gi");
    let mut spec = range(&world, "range")["spec"].take();
    spec["limits"][0]["min"] = less.clone();
    let patch = json!({"metadata": {"labels": {"state": "patched"}}, "spec": spec});
    let path = world.path("v1", "limitranges", "range");
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("its label", &patched["metadata"]["labels"]["state"], &json!("patched"))?;
    same("its other label", &patched["metadata"]["labels"]["case"], &json!(world.ns))?;
    same("its limits", &patched["spec"], &patch["spec"])?;

    let patched = format!(
        "{}?labelSelector=case%3D{},state%3Dpatched",
        world.path("v1", "limitranges", ""),
        world.ns,
    );
    world.api.delete(&patched).await?;
    world.wait("it is gone", &patched, SOON, |list| items(list).is_empty()).await?;
    let left = world.api.get(&everywhere).await?;
    let left: Vec<&Value> =
        items(&left).iter().map(|range| &range["metadata"]["namespace"]).collect();
    same("where one is left", &json!(left), &json!([other]))
}
