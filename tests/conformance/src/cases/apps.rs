//! Workload controllers.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::world::{World, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-apps] ReplicaSet should serve a basic image on each replica with a public image [Conformance]"
        => replica_set_serves,
    "[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]"
        => replica_set_scale,
}

/// A workload of `replicas` servers.
fn workload(world: &World, version: &str, kind: &str, name: &str, replicas: u32) -> Value {
    let pod = world.server(name, 8080);
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

async fn pods_of(world: &World, name: &str) -> Result<Vec<Value>> {
    let path = world.path("v1", "pods", "");
    let list = world.api.get(&format!("{path}?labelSelector=app%3D{name}")).await?;
    Ok(items(&list).to_vec())
}

async fn replica_set_serves(world: World) -> Result<()> {
    let set = workload(&world, "apps/v1", "ReplicaSet", "web", 2);
    world.create("apps/v1", "replicasets", &set).await?;
    let path = world.path("apps/v1", "replicasets", "web");
    world.wait("two are ready", &path, SOON, |set| set["status"]["readyReplicas"] == 2).await?;
    for pod in pods_of(&world, "web").await? {
        let proxied = format!("{}:8080/proxy/", world.pod_path(name_of(&pod)));
        let said = world.api.text(&proxied).await?;
        same("what it serves", &json!(said.trim()), &pod["metadata"]["name"])?;
    }
    Ok(())
}

async fn replica_set_scale(world: World) -> Result<()> {
    let set = workload(&world, "apps/v1", "ReplicaSet", "web", 1);
    world.create("apps/v1", "replicasets", &set).await?;
    let path = world.path("apps/v1", "replicasets", "web");
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
