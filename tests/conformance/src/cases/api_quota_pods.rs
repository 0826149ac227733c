//! Quotas of what pods ask for.

use anyhow::Result;
use serde_json::{Value, json};

use super::api_quota::{SOON, counted, quota_path, used};
use crate::api::{Patch, code_of, refused};
use crate::cases;
use crate::world::{World, holds};

cases! {
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]"
        => pod,
    "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]"
        => best_effort,
    "[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]"
        => terminating,
}

/// A pod that asks for `requests`, bounded by `limits`.
fn asking(world: &World, name: &str, requests: &Value, limits: &Value) -> Value {
    let mut pod = world.sleeper(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
    pod
}

async fn remove(world: &World, name: &str) -> Result<()> {
    let path = world.pod_path(name);
    world.api.delete_with(&path, &json!({"gracePeriodSeconds": 0})).await?;
    world.wait_gone(&path, SOON).await
}

async fn pod(world: World) -> Result<()> {
    counted(&world).await?;
    let requests = json!({
        "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2",
    });
    let limits = json!({"example.com/dongle": "2"});
    world.create("v1", "pods", &asking(&world, "first", &requests, &limits)).await?;
    let with_one = json!({
        "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
        "requests.example.com/dongle": "2",
    });
    used(&world, "all", &with_one).await?;
    let more = [
        (json!({"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"}), json!({})),
        (
            json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "2"}),
            json!({"example.com/dongle": "2"}),
        ),
    ];
    for (requests, limits) in &more {
        let made = world.create("v1", "pods", &asking(&world, "second", requests, limits)).await;
        refused(made, 403, "Forbidden")?;
    }
    cannot_change(&world).await?;
    used(&world, "all", &with_one).await?;
    remove(&world, "first").await?;
    let none = json!({
        "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0",
        "requests.example.com/dongle": "0",
    });
    used(&world, "all", &none).await
}

/// A pod's requests stay what they are.
async fn cannot_change(world: &World) -> Result<()> {
    let patch = json!({"spec": {"containers": [{
        "name": "main", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
    }]}});
    let changed = world.api.patch(&world.pod_path("first"), Patch::Strategic, &patch).await;
    let code = changed.as_ref().err().and_then(code_of);
    holds("requests cannot be changed", code == Some(422), &json!(changed.ok()))
}

async fn scoped(world: &World, name: &str, scope: &str, hard: &Value) -> Result<()> {
    let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": [scope]}});
    world.create("v1", "resourcequotas", &quota).await?;
    let counted = |quota: &Value| quota["status"]["used"]["pods"] == "0";
    world.wait("it has counted", &quota_path(world, name), SOON, counted).await.map(drop)
}

/// A pod is counted by the one quota and not by the other, as long as it is there.
async fn counted_by(world: &World, pod: &Value, by: &str, not: &str, all: &Value) -> Result<()> {
    world.create("v1", "pods", pod).await?;
    used(world, by, all).await?;
    used(world, not, &json!({"pods": "0"})).await?;
    remove(world, pod["metadata"]["name"].as_str().unwrap_or_default()).await?;
    used(world, by, &json!({"pods": "0"})).await
}

async fn best_effort(world: World) -> Result<()> {
    let hard = json!({"pods": "5"});
    scoped(&world, "best-effort", "BestEffort", &hard).await?;
    scoped(&world, "not-best-effort", "NotBestEffort", &hard).await?;
    let one = json!({"pods": "1"});
    let pod = world.sleeper("plain");
    counted_by(&world, &pod, "best-effort", "not-best-effort", &one).await?;
    let pod = asking(
        &world,
        "asking",
        &json!({"cpu": "100m", "memory": "50Mi"}),
        &json!({"cpu": "200m", "memory": "100Mi"}),
    );
    counted_by(&world, &pod, "not-best-effort", "best-effort", &one).await
}

async fn terminating(world: World) -> Result<()> {
    let hard = json!({
        "pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2",
        "limits.memory": "1Gi",
    });
    scoped(&world, "terminating", "Terminating", &hard).await?;
    scoped(&world, "not-terminating", "NotTerminating", &hard).await?;
    let all = json!({
        "pods": "1", "requests.cpu": "100m", "requests.memory": "50Mi", "limits.cpu": "200m",
        "limits.memory": "100Mi",
    });
    let requests = json!({"cpu": "100m", "memory": "50Mi"});
    let limits = json!({"cpu": "200m", "memory": "100Mi"});
    let pod = asking(&world, "lasting", &requests, &limits);
    counted_by(&world, &pod, "not-terminating", "terminating", &all).await?;
    let mut pod = asking(&world, "ending", &requests, &limits);
    pod["spec"]["activeDeadlineSeconds"] = json!(3600);
    counted_by(&world, &pod, "terminating", "not-terminating", &all).await
}
