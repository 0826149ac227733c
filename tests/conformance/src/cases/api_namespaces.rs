//! Namespaces: their labels, status and finalizers, and what goes away with them.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::world::{World, condition, holds, items, same};

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);

cases! {
    "[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]"
        => finalizer,
    "[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]"
        => update,
    "[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]"
        => status,
    "[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]"
        => pods_removed,
    "[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]"
        => services_removed,
    "[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]"
        => patch,
}

async fn another(world: &World) -> Result<String> {
    let name = world.namespace("other").await?;
    Ok(world.global("v1", "namespaces", &name))
}

async fn patch(world: World) -> Result<()> {
    let path = another(&world).await?;
    let patch = json!({"metadata": {"labels": {"testLabel": "testValue"}}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let read = world.api.get(&path).await?;
    same("its label", &read["metadata"]["labels"]["testLabel"], &json!("testValue"))
}

async fn update(world: World) -> Result<()> {
    let path = another(&world).await?;
    world.api.update(&path, |ns| ns["metadata"]["labels"]["updated"] = json!("yes")).await?;
    let read = world.api.get(&path).await?;
    same("its label", &read["metadata"]["labels"]["updated"], &json!("yes"))
}

async fn status(world: World) -> Result<()> {
    let path = another(&world).await?;
    let status = format!("{path}/status");
    let made = |reason: &str| {
        json!({
            "type": "StatusPatched", "status": "True", "reason": reason, "message": "by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let patch = json!({
        "metadata": {"annotations": {"patched": "yes"}},
        "status": {"conditions": [made("Patched")]},
    });
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("patched", &json!(condition(&patched, "StatusPatched")), &json!("True"))?;
    same("its phase", &patched["status"]["phase"], &json!("Active"))?;
    let mut another = made("Updated");
    another["type"] = json!("StatusUpdated");
    world
        .api
        .update(&status, |ns| {
            if let Some(all) = ns["status"]["conditions"].as_array_mut() {
                all.push(another.clone());
            }
        })
        .await?;
    let read = world.api.get(&path).await?;
    same("updated", &json!(condition(&read, "StatusUpdated")), &json!("True"))?;
    same("patched still", &json!(condition(&read, "StatusPatched")), &json!("True"))
}

async fn finalizer(world: World) -> Result<()> {
    const OURS: &str = "e2e.example.com/fake-finalizer";
    let path = another(&world).await?;
    let finalize = format!("{path}/finalize");
    let has = |ns: &Value| {
        ns["spec"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == OURS))
    };
    let set = async |change: fn(&mut Vec<Value>)| -> Result<Value> {
        let mut ns = world.api.get(&path).await?;
        if let Some(all) = ns["spec"]["finalizers"].as_array_mut() {
            change(all);
        }
        world.api.replace(&finalize, &ns).await
    };
    let with = set(|all| all.push(json!(OURS))).await?;
    holds("it has the finalizer", has(&with), &with)?;
    world.api.delete(&path).await?;
    let what = "only the finalizer keeps it";
    let kept =
        world.wait(what, &path, SOON, |ns| ns["spec"]["finalizers"] == json!([OURS])).await?;
    same("its phase", &kept["status"]["phase"], &json!("Terminating"))?;
    set(|all| all.retain(|one| one != OURS)).await?;
    world.wait_gone(&path, SOON).await
}

/// Deletes the namespace of `path`, makes it anew, and expects none of `plural` there.
async fn emptied(world: &World, path: &str, name: &str, plural: &str) -> Result<()> {
    world.api.delete(path).await?;
    world.wait_gone(path, LONG).await?;
    world.api.create("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
    let list = world.api.get(&world.path_in(name, "v1", plural, "")).await?;
    same("what is left", &list["items"], &json!([]))?;
    holds("nothing is left", items(&list).is_empty(), &list)
}

async fn pods_removed(world: World) -> Result<()> {
    let path = another(&world).await?;
    let name = format!("{}-other", world.ns);
    let other = World { ns: name.clone(), ..world.clone() };
    let ready = other.path("v1", "serviceaccounts", "default");
    other.wait("its account", &ready, SOON, |_| true).await?;
    other.run(&other.sleeper("kept")).await?;
    emptied(&world, &path, &name, "pods").await
}

async fn services_removed(world: World) -> Result<()> {
    let path = another(&world).await?;
    let name = format!("{}-other", world.ns);
    let service = json!({
        "metadata": {"name": "kept"},
        "spec": {"selector": {"foo": "bar"}, "ports": [{"port": 80, "targetPort": 80}]},
    });
    world.api.create(&world.path_in(&name, "v1", "services", ""), &service).await?;
    emptied(&world, &path, &name, "services").await
}
