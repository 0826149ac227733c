//! Replica sets, replication controllers and what all workloads share.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::world::{World, condition, holds, items, name_of, same};

pub(super) const SOON: Duration = Duration::from_secs(90);

cases! {
    "[sig-apps] ReplicaSet should serve a basic image on each replica with a public image [Conformance]"
        => replica_set_serves,
    "[sig-apps] ReplicationController should serve a basic image on each replica with a public image [Conformance]"
        => replication_controller_serves,
    "[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]"
        => replica_set_scale,
    "[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]"
        => replication_controller_scale,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]"
        => stateful_set_scale,
    "[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]"
        => deployment_scale,
    "[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]"
        => replica_set_adopts,
    "[sig-apps] ReplicationController should adopt matching pods on creation [Conformance]"
        => replication_controller_adopts,
    "[sig-apps] ReplicationController should release no longer matching pods [Conformance]"
        => replication_controller_releases,
    "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]"
        => replication_controller_quota,
    "[sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]"
        => replication_controller_lifecycle,
    "[sig-apps] ReplicaSet Replace and Patch tests [Conformance]" => replica_set_patched,
    "[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]"
        => replica_set_collection,
    "[sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]"
        => replica_set_status,
    "[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]"
        => deployment_status,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]"
        => stateful_set_status,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]"
        => stateful_set_collection,
    "[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]"
        => daemon_set_collection,
    "[sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]"
        => daemon_set_status,
    "[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]"
        => controller_revisions,
}

/// A workload of `replicas` servers called `name`.
pub(super) fn workload(
    world: &World,
    version: &str,
    kind: &str,
    name: &str,
    replicas: u32,
) -> Value {
    let pod = world.server(name, 8080);
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    });
    match kind {
        "ReplicationController" => object["spec"]["selector"] = json!({"app": name}),
        "StatefulSet" => object["spec"]["serviceName"] = json!(name),
        "DaemonSet" => {
            object["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        }
        _ => {}
    }
    object
}

/// The pods of this label.
pub(super) async fn pods_of(world: &World, name: &str) -> Result<Vec<Value>> {
    let path = world.path("v1", "pods", "");
    let list = world.api.get(&format!("{path}?labelSelector=app%3D{name}")).await?;
    Ok(items(&list).to_vec())
}

async fn serves(world: World, version: &str, kind: &str, plural: &str) -> Result<()> {
    let set = workload(&world, version, kind, "web", 2);
    world.create(version, plural, &set).await?;
    let path = world.path(version, plural, "web");
    world.wait("two are ready", &path, SOON, |set| set["status"]["readyReplicas"] == 2).await?;
    for pod in pods_of(&world, "web").await? {
        let proxied = format!("{}:8080/proxy/", world.pod_path(name_of(&pod)));
        let said = world.api.text(&proxied).await?;
        same("what it serves", &json!(said.trim()), &pod["metadata"]["name"])?;
    }
    Ok(())
}

async fn replica_set_serves(world: World) -> Result<()> {
    serves(world, "apps/v1", "ReplicaSet", "replicasets").await
}

async fn replication_controller_serves(world: World) -> Result<()> {
    serves(world, "v1", "ReplicationController", "replicationcontrollers").await
}

async fn scales(world: World, version: &str, kind: &str, plural: &str) -> Result<()> {
    let set = workload(&world, version, kind, "web", 1);
    world.create(version, plural, &set).await?;
    let path = world.path(version, plural, "web");
    let scale = format!("{path}/scale");
    let now = world.api.get(&scale).await?;
    same("kind", &now["kind"], &json!("Scale"))?;
    same("replicas", &now["spec"]["replicas"], &json!(1))?;
    world.api.update(&scale, |scale| scale["spec"]["replicas"] = json!(2)).await?;
    world.wait("two are there", &path, SOON, |set| set["status"]["replicas"] == 2).await?;
    let patch = json!({"spec": {"replicas": 4}});
    let patched = world.api.patch(&scale, Patch::Merge, &patch).await?;
    same("patched", &patched["spec"]["replicas"], &json!(4))?;
    same("the set", &world.api.get(&path).await?["spec"]["replicas"], &json!(4))
}

async fn replica_set_scale(world: World) -> Result<()> {
    scales(world, "apps/v1", "ReplicaSet", "replicasets").await
}

async fn replication_controller_scale(world: World) -> Result<()> {
    scales(world, "v1", "ReplicationController", "replicationcontrollers").await
}

async fn stateful_set_scale(world: World) -> Result<()> {
    scales(world, "apps/v1", "StatefulSet", "statefulsets").await
}

async fn deployment_scale(world: World) -> Result<()> {
    scales(world, "apps/v1", "Deployment", "deployments").await
}

/// A pod alone whose label a set is made for: it becomes the set's only one.
async fn adopts(world: &World, version: &str, kind: &str, plural: &str) -> Result<Value> {
    let mut pod = world.sleeper("orphan");
    pod["metadata"]["labels"] = json!({"app": "web"});
    let pod = world.run(&pod).await?;
    holds("it has no owner", pod["metadata"]["ownerReferences"].is_null(), &pod)?;
    world.create(version, plural, &workload(world, version, kind, "web", 1)).await?;
    let owned = world
        .wait("the pod is adopted", &world.pod_path("orphan"), SOON, |pod| {
            let owner = &pod["metadata"]["ownerReferences"][0];
            owner["kind"] == kind && owner["controller"] == true
        })
        .await?;
    same("as many pods", &json!(pods_of(world, "web").await?.len()), &json!(1))?;
    Ok(owned)
}

/// A pod whose label is changed belongs to nobody, and another takes its place.
async fn releases(world: &World, name: &str) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"app": "other"}}});
    world.api.patch(&world.pod_path(name), Patch::Merge, &patch).await?;
    let path = world.pod_path(name);
    let released =
        |pod: &Value| pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
    world.wait("the pod is released", &path, SOON, released).await?;
    let path = format!("{}?labelSelector=app%3Dweb", world.path("v1", "pods", ""));
    world.wait("another is made", &path, SOON, |list| items(list).len() == 1).await.map(drop)
}

async fn replica_set_adopts(world: World) -> Result<()> {
    adopts(&world, "apps/v1", "ReplicaSet", "replicasets").await?;
    releases(&world, "orphan").await
}

async fn replication_controller_adopts(world: World) -> Result<()> {
    adopts(&world, "v1", "ReplicationController", "replicationcontrollers").await.map(drop)
}

async fn replication_controller_releases(world: World) -> Result<()> {
    let set = workload(&world, "v1", "ReplicationController", "web", 1);
    world.create("v1", "replicationcontrollers", &set).await?;
    let path = world.path("v1", "pods", "");
    let list = world.wait("a pod", &path, SOON, |list| items(list).len() == 1).await?;
    releases(&world, name_of(&list["items"][0])).await
}

async fn replication_controller_quota(world: World) -> Result<()> {
    let quota = json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}});
    world.create("v1", "resourcequotas", &quota).await?;
    let path = world.path("v1", "resourcequotas", "two");
    let counted = |quota: &Value| quota["status"]["hard"]["pods"] == "2";
    world.wait("the quota is counted", &path, SOON, counted).await?;
    let set = workload(&world, "v1", "ReplicationController", "web", 3);
    world.create("v1", "replicationcontrollers", &set).await?;
    let path = world.path("v1", "replicationcontrollers", "web");
    let failed = |set: &Value| condition(set, "ReplicaFailure") == Some("True");
    world.wait("it says that it fails", &path, SOON, failed).await?;
    let patch = json!({"spec": {"replicas": 2}});
    world.api.patch(&format!("{path}/scale"), Patch::Merge, &patch).await?;
    let healed = |set: &Value| condition(set, "ReplicaFailure").is_none();
    world.wait("it says so no more", &path, SOON, healed).await.map(drop)
}

async fn replication_controller_lifecycle(world: World) -> Result<()> {
    let (version, plural) = ("v1", "replicationcontrollers");
    let collection = world.path(version, plural, "");
    let mut watch = world.api.watch(&format!("{collection}?labelSelector=app%3Dweb")).await?;
    let set = workload(&world, version, "ReplicationController", "web", 1);
    world.create(version, plural, &set).await?;
    watch.expect("ADDED", SOON, |set| name_of(set) == "web").await?;
    watch.expect("MODIFIED", SOON, |set| set["status"]["readyReplicas"] == 1).await?;
    let path = world.path(version, plural, "web");
    let label = json!({"metadata": {"labels": {"test-rc": "patched"}}});
    world.api.patch(&path, Patch::Strategic, &label).await?;
    let patched = |set: &Value| set["metadata"]["labels"]["test-rc"] == "patched";
    watch.expect("MODIFIED", SOON, patched).await?;
    let status = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    let answer = world.api.patch(&format!("{path}/status"), Patch::Merge, &status).await?;
    let available = answer["status"]["availableReplicas"].as_u64().unwrap_or(0);
    same("status", &json!(available), &json!(0))?;
    let scale = json!({"spec": {"replicas": 2}});
    world.api.patch(&format!("{path}/scale"), Patch::Merge, &scale).await?;
    watch.expect("MODIFIED", SOON, |set| set["status"]["readyReplicas"] == 2).await?;
    let all =
        world.api.get("/api/v1/replicationcontrollers?labelSelector=test-rc%3Dpatched").await?;
    holds("it is listed over all namespaces", !items(&all).is_empty(), &all)?;
    world.api.delete(&format!("{collection}?labelSelector=test-rc%3Dpatched")).await?;
    watch.expect("DELETED", SOON, |set| name_of(set) == "web").await.map(drop)
}

async fn replica_set_patched(world: World) -> Result<()> {
    let set = workload(&world, "apps/v1", "ReplicaSet", "web", 1);
    world.create("apps/v1", "replicasets", &set).await?;
    let path = world.path("apps/v1", "replicasets", "web");
    world.api.update(&path, |set| set["spec"]["replicas"] = json!(2)).await?;
    world.wait("two are ready", &path, SOON, |set| set["status"]["readyReplicas"] == 2).await?;
    let patch = json!({
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "main", "image": world.image, "env": [{"name": "NEW", "value": "1"}]},
        ]}}},
    });
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    same("merged by name", &json!(containers.as_array().map(Vec::len)), &json!(1))?;
    same("environment", &containers[0]["env"][0]["name"], &json!("NEW"))?;
    same("label", &patched["metadata"]["labels"]["test-rs"], &json!("patched"))?;
    world
        .wait("three are ready", &path, SOON, |set| set["status"]["readyReplicas"] == 3)
        .await
        .map(drop)
}

async fn collection(world: World, kind: &str, plural: &str) -> Result<()> {
    let made = workload(&world, "apps/v1", kind, "web", 1);
    world.create("apps/v1", plural, &made).await?;
    let mut other = workload(&world, "apps/v1", kind, "other", 1);
    other["metadata"]["labels"] = json!({"kept": "yes"});
    world.create("apps/v1", plural, &other).await?;
    let path = world.path("apps/v1", plural, "web");
    let label = json!({"metadata": {"labels": {"patched": "yes"}}});
    world.api.patch(&path, Patch::Merge, &label).await?;
    let all = format!("{}?labelSelector=patched%3Dyes", world.global("apps/v1", plural, ""));
    let here = |list: &Value| {
        items(list).iter().filter(|set| set["metadata"]["namespace"] == world.ns.as_str()).count()
    };
    same("over all namespaces", &json!(here(&world.api.get(&all).await?)), &json!(1))?;
    let chosen = format!("{}?labelSelector=patched%3Dyes", world.path("apps/v1", plural, ""));
    world.api.delete(&chosen).await?;
    world.wait_gone(&path, SOON).await?;
    world.api.get(&world.path("apps/v1", plural, "other")).await.map(drop)
}

async fn replica_set_collection(world: World) -> Result<()> {
    collection(world, "ReplicaSet", "replicasets").await
}

async fn stateful_set_collection(world: World) -> Result<()> {
    collection(world, "StatefulSet", "statefulsets").await
}

async fn daemon_set_collection(world: World) -> Result<()> {
    collection(world, "DaemonSet", "daemonsets").await
}

/// A condition that is written to the status subresource by PUT and by PATCH, and seen by a watch.
async fn status(world: World, kind: &str, plural: &str) -> Result<()> {
    let set = workload(&world, "apps/v1", kind, "web", 1);
    world.create("apps/v1", plural, &set).await?;
    let path = world.path("apps/v1", plural, "web");
    let ready = if kind == "DaemonSet" { "numberReady" } else { "readyReplicas" };
    world.wait("it is ready", &path, SOON, |set| set["status"][ready].as_u64() > Some(0)).await?;
    let has = |set: &Value, kind: &str| {
        let conditions = set["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|known| known["type"] == kind))
    };
    let collection = world.path("apps/v1", plural, "");
    let mut watch = world.api.watch(&format!("{collection}?labelSelector=app%3Dweb")).await?;
    let address = format!("{path}/status");
    let shown = world.api.get(&address).await?;
    same("what the subresource shows", &shown["kind"], &json!(kind))?;
    let added =
        |name: &str| json!({"type": name, "status": "True", "reason": "E2E", "message": "Set"});
    world
        .api
        .update(&address, |set| match set["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(added("StatusUpdate")),
            None => set["status"]["conditions"] = json!([added("StatusUpdate")]),
        })
        .await?;
    watch.expect("MODIFIED", SOON, |set| has(set, "StatusUpdate")).await?;
    let patch = json!({"status": {"conditions": [added("StatusPatched")]}});
    world.api.patch(&address, Patch::Strategic, &patch).await?;
    watch.expect("MODIFIED", SOON, |set| has(set, "StatusPatched")).await.map(drop)
}

async fn replica_set_status(world: World) -> Result<()> {
    status(world, "ReplicaSet", "replicasets").await
}

async fn deployment_status(world: World) -> Result<()> {
    status(world, "Deployment", "deployments").await
}

async fn stateful_set_status(world: World) -> Result<()> {
    status(world, "StatefulSet", "statefulsets").await
}

async fn daemon_set_status(world: World) -> Result<()> {
    status(world, "DaemonSet", "daemonsets").await
}

async fn controller_revisions(world: World) -> Result<()> {
    let set = workload(&world, "apps/v1", "DaemonSet", "web", 1);
    world.create("apps/v1", "daemonsets", &set).await?;
    let plural = "controllerrevisions";
    let collection = format!("{}?labelSelector=app%3Dweb", world.path("apps/v1", plural, ""));
    let list = world.wait("a revision", &collection, SOON, |list| items(list).len() == 1).await?;
    let first = list["items"][0].clone();
    same("owner", &first["metadata"]["ownerReferences"][0]["kind"], &json!("DaemonSet"))?;
    let path = world.path("apps/v1", plural, name_of(&first));
    let label = json!({"metadata": {"labels": {"patched": "yes"}}});
    world.api.patch(&path, Patch::Strategic, &label).await?;
    let mut second = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "data": first["data"],
        "revision": first["revision"].as_u64().context("a revision has a number")? + 1,
    });
    second["metadata"] = json!({
        "name": "by-hand", "labels": {"app": "web"},
        "ownerReferences": first["metadata"]["ownerReferences"],
    });
    world.create("apps/v1", plural, &second).await?;
    let listed = world.api.get(&collection).await?;
    same("two", &json!(items(&listed).len()), &json!(2))?;
    world
        .api
        .update(&path, |revision| revision["metadata"]["labels"]["updated"] = json!("yes"))
        .await?;
    world.api.delete(&world.path("apps/v1", plural, "by-hand")).await?;
    world.wait_gone(&world.path("apps/v1", plural, "by-hand"), SOON).await?;
    world.api.delete(&format!("{collection},updated%3Dyes")).await?;
    let whole = world.path("apps/v1", plural, "");
    let made_again = |list: &Value| {
        items(list).iter().any(|now| now["metadata"]["uid"] != first["metadata"]["uid"])
    };
    world.wait("the set has written its revision again", &whole, SOON, made_again).await.map(drop)
}
