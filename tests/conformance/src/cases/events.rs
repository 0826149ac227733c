//! Events, as `v1` and as `events.k8s.io/v1`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, items, name_of, same};

cases! {
    "[sig-instrumentation] Events should manage the lifecycle of an event [Conformance]"
        => core_life,
    "[sig-instrumentation] Events should delete a collection of events [Conformance]"
        => core_collection,
    "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]"
        => new_life,
    "[sig-instrumentation] Events API should delete a collection of events [Conformance]"
        => new_collection,
}

const EVENTS: &str = "events.k8s.io/v1";

/// An event of the core group about a pod.
fn core_event(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"testevent": "constant"}},
        "message": "This is a test event",
        "reason": "Test",
        "type": "Normal",
        "count": 1,
        "involvedObject": {"kind": "Pod", "namespace": world.ns, "name": "nobody"},
    })
}

/// An event of the newer group about a pod.
fn new_event(world: &World, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"testevent": "constant"}},
        "eventTime": "2026-01-02T03:04:05.123456Z",
        "note": "This is a test event",
        "reason": "Test",
        "action": "Do",
        "type": "Normal",
        "reportingController": format!("test-controller-{}", world.ns),
        "reportingInstance": "test-node",
        "regarding": {"kind": "Pod", "namespace": world.ns, "name": "nobody"},
    })
}

/// Names of what is listed at `path`.
async fn listed(world: &World, path: &str) -> Result<Vec<String>> {
    let list = world.api.get(path).await?;
    Ok(items(&list).iter().map(|event| name_of(event).to_owned()).collect())
}

async fn core_life(world: World) -> Result<()> {
    let path = world.path("v1", "events", "event");
    world.create("v1", "events", &core_event(&world, "event")).await?;
    let selector = format!(
        "labelSelector=testevent%3Dconstant&fieldSelector=metadata.namespace%3D{}",
        world.ns
    );
    let everywhere = format!("{}?{selector}", world.global("v1", "events", ""));
    same("listed", &json!(listed(&world, &everywhere).await?), &json!(["event"]))?;
    let patch = json!({"message": "This is a test event - patched"});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let found = world.api.get(&path).await?;
    same("message", &found["message"], &patch["message"])?;
    world.api.update(&path, |event| event["count"] = json!(7)).await?;
    same("count", &world.api.get(&path).await?["count"], &json!(7))?;
    world.api.delete(&path).await?;
    same("left", &json!(listed(&world, &everywhere).await?), &json!([]))?;
    refused(world.api.get(&path).await, 404, "NotFound").map(drop)
}

/// Three events are found by a label, removed by it, and no other one is.
async fn collection(world: &World, version: &str, event: fn(&World, &str) -> Value) -> Result<()> {
    for name in ["one", "two", "three", "other"] {
        let mut event = event(world, name);
        if name == "other" {
            event["metadata"]["labels"]["testevent"] = json!("another");
        }
        world.create(version, "events", &event).await?;
    }
    let path = world.path(version, "events", "");
    let chosen = format!("{path}?labelSelector=testevent%3Dconstant");
    same("listed", &json!(listed(world, &chosen).await?.len()), &json!(3))?;
    world.api.delete(&chosen).await?;
    same("chosen ones left", &json!(listed(world, &chosen).await?), &json!([]))?;
    let other = format!("{path}?labelSelector=testevent%3Danother");
    same("others left", &json!(listed(world, &other).await?), &json!(["other"]))
}

async fn core_collection(world: World) -> Result<()> {
    collection(&world, "v1", core_event).await
}

async fn new_collection(world: World) -> Result<()> {
    collection(&world, EVENTS, new_event).await
}

async fn new_life(world: World) -> Result<()> {
    let path = world.path(EVENTS, "events", "event");
    let made = world.create(EVENTS, "events", &new_event(&world, "event")).await?;
    let controller = made["reportingController"].as_str().context("who reports")?;
    let all = [world.path(EVENTS, "events", "") + "?", world.global(EVENTS, "events", "") + "?"];
    for all in &all {
        let found = listed(
            &world,
            &format!(
                "{all}labelSelector=testevent%3Dconstant&fieldSelector=metadata.namespace%3D{}",
                world.ns
            ),
        )
        .await?;
        same("listed", &json!(found), &json!(["event"]))?;
        let by = format!("{all}fieldSelector=reportingController%3D{controller}");
        same("by its controller", &json!(listed(&world, &by).await?), &json!(["event"]))?;
    }
    // The older group has another name for it, and takes it for the source where there is none.
    for field in ["reportingComponent", "source"] {
        let by = format!("{}?fieldSelector={field}%3D{controller}", world.path("v1", "events", ""));
        let found = listed(&world, &by).await?;
        same(&format!("by {field}"), &json!(found), &json!(["event"]))?;
    }
    let patch = json!({"note": "This is a test event - patched"});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let found = world.api.get(&path).await?;
    same("note", &found["note"], &patch["note"])?;
    let series = json!({"count": 100, "lastObservedTime": "2026-01-02T03:04:06.000000Z"});
    world.api.update(&path, |event| event["series"] = series.clone()).await?;
    let found = world.api.get(&path).await?;
    same("series", &found["series"], &series)?;
    same("note as before", &found["note"], &patch["note"])?;
    world.api.delete(&path).await?;
    for all in &all {
        let by = format!("{all}fieldSelector=reportingController%3D{controller}");
        same("left", &json!(listed(&world, &by).await?), &json!([]))?;
    }
    Ok(())
}
