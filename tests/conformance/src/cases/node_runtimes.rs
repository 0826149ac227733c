//! Runtime classes.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::pods::discovered;
use crate::world::{POD_WITHIN, World, condition, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
const NODE: &str = "node.k8s.io/v1";

cases! {
    "[sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]"
        => operations,
    "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]"
        => unknown,
    "[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]"
        => deleted,
    "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]"
        => overhead,
    "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance] [Conformance]"
        => without_overhead,
}

fn class(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": world.unique(name), "labels": {"test": world.ns}},
        "handler": "test-handler",
    })
}

fn path_of(world: &World, name: &str) -> String {
    world.global(NODE, "runtimeclasses", &world.unique(name))
}

async fn create(world: &World, class: &Value) -> Result<Value> {
    world.api.create(&world.global(NODE, "runtimeclasses", ""), class).await
}

/// Removes what a case has left of its classes.
async fn removing(world: &World, result: Result<()>) -> Result<()> {
    let all = world.global(NODE, "runtimeclasses", "");
    world.api.delete(&format!("{all}?labelSelector=test%3D{}", world.ns)).await?;
    result
}

async fn operations(world: World) -> Result<()> {
    let result = operate(&world).await;
    removing(&world, result).await
}

async fn operate(world: &World) -> Result<()> {
    discovered(world, NODE, &["runtimeclasses"]).await?;
    let all = world.global(NODE, "runtimeclasses", "");
    let chosen = format!("{all}?labelSelector=test%3D{}", world.ns);
    let mut watch = world.api.watch(&chosen).await?;
    for name in ["one", "two", "three"] {
        create(world, &class(world, name)).await?;
    }
    refused(create(world, &class(world, "one")).await, 409, "AlreadyExists")?;
    let path = path_of(world, "one");
    let found = world.api.get(&path).await?;
    same("handler", &found["handler"], &json!("test-handler"))?;
    same("listed", &json!(items(&world.api.get(&chosen).await?).len()), &json!(3))?;
    let first = |class: &Value| name_of(class) == world.unique("one");
    watch.expect("ADDED", SOON, first).await?;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    world.api.patch(&path, Patch::Merge, &patch).await?;
    let updated = world
        .api
        .update(&path, |class| class["metadata"]["annotations"]["updated"] = json!("true"))
        .await?;
    let annotations = json!({"patched": "true", "updated": "true"});
    same("annotations", &updated["metadata"]["annotations"], &annotations)?;
    let is_updated = |class: &Value| class["metadata"]["annotations"]["updated"] == "true";
    watch.expect("MODIFIED", SOON, is_updated).await?;
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound")?;
    watch.expect("DELETED", SOON, first).await?;
    same("left", &json!(items(&world.api.get(&chosen).await?).len()), &json!(2))?;
    world.api.delete(&chosen).await?;
    same("left", &json!(items(&world.api.get(&chosen).await?).len()), &json!(0))
}

/// A pod that wants that class.
fn pod_of(world: &World, class: &str) -> Value {
    let mut pod = world.sleeper("pod");
    pod["spec"]["runtimeClassName"] = json!(class);
    pod
}

async fn unknown(world: World) -> Result<()> {
    let pod = pod_of(&world, &world.unique("nonexistent"));
    refused(world.create("v1", "pods", &pod).await, 403, "Forbidden").map(drop)
}

async fn deleted(world: World) -> Result<()> {
    create(&world, &class(&world, "gone")).await?;
    let path = path_of(&world, "gone");
    world.api.delete(&path).await?;
    world.wait_gone(&path, SOON).await?;
    let pod = pod_of(&world, &world.unique("gone"));
    refused(world.create("v1", "pods", &pod).await, 403, "Forbidden").map(drop)
}

/// Creates a class and a pod of it, and waits until the pod has a node; no node need have the handler.
async fn scheduled(world: &World, class: &Value) -> Result<Value> {
    create(world, class).await?;
    let name = class["metadata"]["name"].as_str().context("it has a name")?;
    world.create("v1", "pods", &pod_of(world, name)).await?;
    let path = world.pod_path("pod");
    let on_node = |pod: &Value| condition(pod, "PodScheduled") == Some("True");
    world.wait("it has a node", &path, POD_WITHIN, on_node).await
}

async fn overhead(world: World) -> Result<()> {
    let mut class = class(&world, "heavy");
    class["overhead"] = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    let result = async {
        let pod = scheduled(&world, &class).await?;
        let expected = json!({"cpu": "10m", "memory": "1Mi"});
        same("overhead", &pod["spec"]["overhead"], &expected)
    };
    let result = result.await;
    removing(&world, result).await
}

async fn without_overhead(world: World) -> Result<()> {
    let class = class(&world, "light");
    let result = async {
        let pod = scheduled(&world, &class).await?;
        same("overhead", &pod["spec"]["overhead"], &Value::Null)
    };
    let result = result.await;
    removing(&world, result).await
}
