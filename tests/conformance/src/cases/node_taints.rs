//! Nodes: their life as objects, and pods that a taint drives away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::world::{POD_WITHIN, World, condition, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-node] Node Lifecycle should run through the lifecycle of a node [Conformance]"
        => life,
    "[sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive] [Conformance]"
        => cancelled,
    "[sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive] [Conformance]"
        => in_time,
}

async fn life(world: World) -> Result<()> {
    let selector = format!("labelSelector=fake%3D{}", world.ns);
    let chosen = format!("{}?{selector}", world.global("v1", "nodes", ""));
    let result = live(&world, &chosen).await;
    world.api.delete(&chosen).await?;
    result
}

async fn live(world: &World, chosen: &str) -> Result<()> {
    let name = world.unique("fake-node");
    let path = world.global("v1", "nodes", &name);
    let mut watch = world.api.watch(chosen).await?;
    let node = json!({
        "metadata": {"name": name, "labels": {"fake": world.ns}},
        "spec": {"unschedulable": true},
        "status": {"phase": "Running", "conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "Test", "message": "a fake",
        }]},
    });
    world.api.create(&world.global("v1", "nodes", ""), &node).await?;
    watch.expect("ADDED", SOON, |node| name_of(node) == name).await?;
    same("name", &world.api.get(&path).await?["metadata"]["name"], &json!(name))?;
    let patch = json!({"metadata": {"labels": {"state": "patched"}}});
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("label", &patched["metadata"]["labels"]["state"], &json!("patched"))?;
    same("other labels", &patched["metadata"]["labels"]["fake"], &json!(world.ns))?;
    let is_patched = |node: &Value| node["metadata"]["labels"]["state"] == "patched";
    watch.expect("MODIFIED", SOON, is_patched).await?;
    let list = world.api.get(chosen).await?;
    same("listed", &json!(items(&list).len()), &json!(1))?;
    world.api.update(&path, |node| node["metadata"]["labels"]["state"] = json!("updated")).await?;
    let is_updated = |node: &Value| node["metadata"]["labels"]["state"] == "updated";
    watch.expect("MODIFIED", SOON, is_updated).await?;
    let status = format!("{path}/status");
    let patch = json!({"status": {"conditions": [{
        "type": "Tested", "status": "True", "reason": "Test", "message": "patched",
    }]}});
    let patched = world.api.patch(&status, Patch::Strategic, &patch).await?;
    same("condition", &json!(condition(&patched, "Tested")), &json!("True"))?;
    let ready = condition(&patched, "Ready");
    holds("conditions are merged by their type", ready.is_some(), &patched["status"])?;
    world.api.delete(chosen).await?;
    watch.expect("DELETED", SOON, |node| name_of(node) == name).await?;
    same("left", &json!(items(&world.api.get(chosen).await?).len()), &json!(0))
}

/// A pod on `node` (where one is given) that stands the taint for some seconds.
fn tolerant(world: &World, name: &str, node: Option<&str>, seconds: u32) -> Value {
    let mut pod = world.sleeper(name);
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod["spec"]["tolerations"] = json!([{
        "key": taint_key(world), "operator": "Equal", "value": "evict", "effect": "NoExecute",
        "tolerationSeconds": seconds,
    }]);
    pod
}

fn taint_key(world: &World) -> String {
    format!("conformance.test/{}", world.ns)
}

async fn taint(world: &World, node: &str) -> Result<()> {
    let taint = json!({"key": taint_key(world), "value": "evict", "effect": "NoExecute"});
    let path = world.global("v1", "nodes", node);
    let add = |node: &mut Value| match node["spec"]["taints"].as_array_mut() {
        Some(taints) => taints.push(taint.clone()),
        None => node["spec"]["taints"] = json!([taint]),
    };
    world.api.update(&path, add).await.map(drop)
}

async fn untaint(world: &World, node: &str) -> Result<()> {
    let key = taint_key(world);
    let remove = |node: &mut Value| {
        if let Some(taints) = node["spec"]["taints"].as_array_mut() {
            taints.retain(|taint| taint["key"] != *key);
        }
    };
    world.api.update(&world.global("v1", "nodes", node), remove).await.map(drop)
}

fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

async fn cancelled(world: World) -> Result<()> {
    let pod = world.run(&tolerant(&world, "pod", None, 30)).await?;
    let node = pod["spec"]["nodeName"].as_str().context("it runs on a node")?;
    taint(&world, node).await?;
    let stays = |pod: &Value| !is_ending(pod);
    let before = world.stays("pod", Duration::from_secs(8), "it is tolerated", stays).await;
    untaint(&world, node).await?;
    before?;
    world.stays("pod", Duration::from_secs(50), "it is not evicted", stays).await.map(drop)
}

async fn in_time(world: World) -> Result<()> {
    let nodes = world.nodes().await?;
    let node = nodes.first().context("a node")?;
    world.run(&tolerant(&world, "soon", Some(node), 5)).await?;
    world.run(&tolerant(&world, "later", Some(node), 40)).await?;
    taint(&world, node).await?;
    let result = evicted(&world).await;
    untaint(&world, node).await?;
    result
}

async fn evicted(world: &World) -> Result<()> {
    let begun = Instant::now();
    world.wait_gone(&world.pod_path("soon"), POD_WITHIN).await?;
    let early = begun.elapsed();
    holds("tolerated for 5 s", early >= Duration::from_secs(4), &json!(early.as_secs()))?;
    let other = world.api.get(&world.pod_path("later")).await?;
    let in_time = early > Duration::from_secs(38);
    holds("the other is tolerated", in_time || !is_ending(&other), &other["metadata"])?;
    world.wait_gone(&world.pod_path("later"), 2 * POD_WITHIN).await?;
    let late = begun.elapsed();
    holds("tolerated for 40 s", late >= Duration::from_secs(38), &json!(late.as_secs()))
}
