//! The garbage collector.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::Patch;
use crate::cases;
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);
/// How long what is orphaned must stay.
const STAYS: Duration = Duration::from_secs(10);

cases! {
    "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]"
        => deployment_in_background,
    "[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]"
        => controller_in_background,
    "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Conformance]"
        => controller_in_foreground,
    "[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]"
        => circle,
    "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Conformance]"
        => two_owners,
    "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]"
        => deployment_orphans,
    "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Conformance]"
        => controller_orphans,
}

fn template(world: &World, name: &str) -> Value {
    let mut spec = world.sleeper(name)["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    json!({"metadata": {"labels": {"name": name}}, "spec": spec})
}

async fn controller(world: &World, name: &str, replicas: usize) -> Result<Value> {
    let object = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"name": name}, "template": template(world, name),
        },
    });
    world.create("v1", "replicationcontrollers", &object).await?;
    let path = world.path("v1", "replicationcontrollers", name);
    let what = "its pods are there";
    world.wait(what, &path, SOON, |now| now["status"]["replicas"] == replicas).await
}

async fn deployment(world: &World) -> Result<Value> {
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"name": "web"}},
            "template": template(world, "web"),
        },
    });
    world.create("apps/v1", "deployments", &object).await?;
    let path = world.path("apps/v1", "replicasets", "");
    let what = "its replica set has its pods";
    world
        .wait(what, &path, SOON, |list| {
            items(list).iter().any(|set| set["status"]["replicas"] == 2)
        })
        .await
}

fn policy(policy: &str) -> Value {
    json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy})
}

async fn pods(world: &World) -> Result<Vec<Value>> {
    Ok(items(&world.api.get(&world.path("v1", "pods", "")).await?).to_vec())
}

async fn none_left(world: &World, version: &str, plural: &str) -> Result<()> {
    let path = world.path(version, plural, "");
    world.wait(&format!("no {plural}"), &path, LONG, |list| items(list).is_empty()).await.map(drop)
}

/// Waits until nothing is owned any more, and looks whether `count` stay.
async fn orphaned(world: &World, version: &str, plural: &str, count: usize) -> Result<()> {
    let path = world.path(version, plural, "");
    let free = |list: &Value| {
        let unowned =
            |one: &&Value| one["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
        items(list).iter().filter(unowned).count() == count
    };
    world.wait("nothing is owned", &path, SOON, free).await?;
    sleep(STAYS).await;
    let list = world.api.get(&path).await?;
    holds("all are there", free(&list) && items(&list).len() == count, &list)?;
    let going = items(&list).iter().any(|one| !one["metadata"]["deletionTimestamp"].is_null());
    holds("none is going", !going, &list)
}

async fn deployment_in_background(world: World) -> Result<()> {
    deployment(&world).await?;
    let path = world.path("apps/v1", "deployments", "web");
    world.api.delete_with(&path, &policy("Background")).await?;
    world.wait_gone(&path, SOON).await?;
    none_left(&world, "apps/v1", "replicasets").await?;
    none_left(&world, "v1", "pods").await
}

async fn controller_in_background(world: World) -> Result<()> {
    controller(&world, "web", 2).await?;
    let path = world.path("v1", "replicationcontrollers", "web");
    world.api.delete_with(&path, &policy("Background")).await?;
    world.wait_gone(&path, SOON).await?;
    none_left(&world, "v1", "pods").await
}

async fn controller_in_foreground(world: World) -> Result<()> {
    controller(&world, "web", 6).await?;
    let path = world.path("v1", "replicationcontrollers", "web");
    // One pod is held back, so that the order can be seen.
    let held = pods(&world).await?.first().map(|pod| world.pod_path(name_of(pod)));
    let held = held.unwrap_or_default();
    let hold = json!({"metadata": {"finalizers": ["example.com/held"]}});
    world.api.patch(&held, Patch::Merge, &hold).await?;
    world.api.delete_with(&path, &policy("Foreground")).await?;
    let list = world.path("v1", "pods", "");
    let one_left = world.wait("one pod is left", &list, LONG, |list| items(list).len() == 1).await;
    let kept = world.api.get(&path).await;
    let release = json!({"metadata": {"finalizers": null}});
    world.api.patch(&held, Patch::Merge, &release).await?;
    one_left?;
    let kept = kept?;
    holds("it is going", kept["metadata"]["deletionTimestamp"].is_string(), &kept)?;
    same("what keeps it", &kept["metadata"]["finalizers"], &json!(["foregroundDeletion"]))?;
    world.wait_gone(&path, LONG).await?;
    same("the pods", &json!(pods(&world).await?), &json!([]))
}

async fn controller_orphans(world: World) -> Result<()> {
    controller(&world, "web", 6).await?;
    let path = world.path("v1", "replicationcontrollers", "web");
    world.api.delete_with(&path, &policy("Orphan")).await?;
    world.wait_gone(&path, SOON).await?;
    orphaned(&world, "v1", "pods", 6).await
}

async fn deployment_orphans(world: World) -> Result<()> {
    deployment(&world).await?;
    let path = world.path("apps/v1", "deployments", "web");
    world.api.delete_with(&path, &policy("Orphan")).await?;
    world.wait_gone(&path, SOON).await?;
    orphaned(&world, "apps/v1", "replicasets", 1).await?;
    let left = pods(&world).await?;
    let stay = left.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    holds("the pods stay", left.len() == 2 && stay, &json!(left))
}

fn reference(kind: &str, owner: &Value, controller: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": kind, "name": name_of(owner), "uid": owner["metadata"]["uid"],
        "controller": controller, "blockOwnerDeletion": true,
    })
}

async fn circle(world: World) -> Result<()> {
    let mut made = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        made.push(world.create("v1", "pods", &world.sleeper(name)).await?);
    }
    for (owned, owner) in [(0, 2), (1, 0), (2, 1)] {
        let patch =
            json!({"metadata": {"ownerReferences": [reference("Pod", &made[owner], true)]}});
        let path = world.pod_path(name_of(&made[owned]));
        world.api.patch(&path, Patch::Strategic, &patch).await?;
    }
    let mut options = policy("Foreground");
    options["preconditions"] = json!({"uid": made[0]["metadata"]["uid"]});
    world.api.delete_with(&world.pod_path("pod1"), &options).await?;
    none_left(&world, "v1", "pods").await
}

async fn two_owners(world: World) -> Result<()> {
    const HALF: usize = 3;
    controller(&world, "leaving", 2 * HALF).await?;
    let staying = controller(&world, "staying", 0).await?;
    let owner = reference("ReplicationController", &staying, false);
    let mut shared = Vec::new();
    for pod in pods(&world).await?.iter().take(HALF) {
        let patch = json!({"metadata": {"ownerReferences": [owner]}});
        let path = world.pod_path(name_of(pod));
        let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
        let owners = patched["metadata"]["ownerReferences"].as_array().map(Vec::len);
        same("its owners", &json!(owners), &json!(2))?;
        shared.push(name_of(pod).to_owned());
    }
    let path = world.path("v1", "replicationcontrollers", "leaving");
    world.api.delete_with(&path, &policy("Foreground")).await?;
    world.wait_gone(&path, LONG).await?;
    sleep(STAYS).await;
    let left = pods(&world).await?;
    let mut names: Vec<_> = left.iter().map(|pod| name_of(pod).to_owned()).collect();
    names.sort();
    shared.sort();
    same("who is left", &json!(names), &json!(shared))?;
    let going = left.iter().any(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
    holds("none is going", !going, &json!(left))
}
