//! Quotas that count each kind of object.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, items, name_of, same};

pub(super) const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]"
        => status,
    "[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]"
        => update_and_delete,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]"
        => config_map,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]"
        => replica_set,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]"
        => replication_controller,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]"
        => secret,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]"
        => service,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]"
        => promptly,
    "[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]"
        => lifecycle,
}

/// Bounds for everything that the cases make.
fn hard() -> Value {
    json!({
        "pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "cpu": "1", "memory": "500Mi",
        "configmaps": "10", "secrets": "10", "persistentvolumeclaims": "10",
        "requests.storage": "10Gi", "ephemeral-storage": "50Gi", "count/replicasets.apps": "5",
        "requests.example.com/dongle": "3",
    })
}

pub(super) fn quota_path(world: &World, name: &str) -> String {
    world.path("v1", "resourcequotas", name)
}

/// Creates a quota with all bounds and waits until it has counted; returns what is used.
pub(super) async fn counted(world: &World) -> Result<Value> {
    let quota = json!({"metadata": {"name": "all"}, "spec": {"hard": hard()}});
    world.create("v1", "resourcequotas", &quota).await?;
    let all = hard();
    let counted = |quota: &Value| {
        quota["status"]["hard"] == all
            && all.as_object().is_some_and(|hard| {
                hard.keys().all(|name| quota["status"]["used"][name].is_string())
            })
            && quota["status"]["used"]["resourcequotas"] == "1"
    };
    let quota = world.wait("it has counted", &quota_path(world, "all"), SOON, counted).await?;
    Ok(quota["status"]["used"].clone())
}

/// Waits until a quota says that these are used.
pub(super) async fn used(world: &World, name: &str, expected: &Value) -> Result<()> {
    let fits = |quota: &Value| {
        expected.as_object().is_some_and(|all| {
            all.iter().all(|(what, count)| quota["status"]["used"][what] == *count)
        })
    };
    let what = format!("{name} says that {expected} is used");
    world.wait(&what, &quota_path(world, name), SOON, fits).await.map(drop)
}

/// What is used, with one more of `what`.
fn one_more(before: &Value, what: &str) -> Value {
    let count = before[what].as_str().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    json!({what: (count + 1).to_string()})
}

/// A quota counts an object that comes and goes.
async fn life(
    world: &World,
    what: &str,
    version: &str,
    plural: &str,
    object: &Value,
) -> Result<()> {
    let before = counted(world).await?;
    let made = world.create(version, plural, object).await?;
    used(world, "all", &one_more(&before, what)).await?;
    world.api.delete(&world.path(version, plural, name_of(&made))).await?;
    used(world, "all", &json!({what: before[what]})).await
}

async fn promptly(world: World) -> Result<()> {
    let used = counted(&world).await?;
    same("pods", &used["pods"], &json!("0"))?;
    same("processor time", &used["cpu"], &json!("0"))
}

async fn config_map(world: World) -> Result<()> {
    let object = json!({"metadata": {"name": "map"}, "data": {"a": "b"}});
    // The authority's map comes with the namespace, a moment later.
    let root = world.path("v1", "configmaps", "kube-root-ca.crt");
    world.wait("the authority's map", &root, SOON, |_| true).await?;
    life(&world, "configmaps", "v1", "configmaps", &object).await
}

async fn secret(world: World) -> Result<()> {
    let object = json!({"metadata": {"name": "secret"}, "stringData": {"a": "b"}});
    life(&world, "secrets", "v1", "secrets", &object).await
}

async fn replica_set(world: World) -> Result<()> {
    let object = json!({
        "metadata": {"name": "set"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"name": "set"}},
            "template": {"metadata": {"labels": {"name": "set"}}, "spec": world.sleeper("set")["spec"]},
        },
    });
    let mut object = object;
    object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    life(&world, "count/replicasets.apps", "apps/v1", "replicasets", &object).await
}

async fn replication_controller(world: World) -> Result<()> {
    let mut object = json!({
        "metadata": {"name": "set"},
        "spec": {
            "replicas": 0, "selector": {"name": "set"},
            "template": {"metadata": {"labels": {"name": "set"}}, "spec": world.sleeper("set")["spec"]},
        },
    });
    object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    life(&world, "replicationcontrollers", "v1", "replicationcontrollers", &object).await
}

async fn service(world: World) -> Result<()> {
    let object = |name: &str, kind: &str, nodes: bool| {
        let mut object = json!({
            "metadata": {"name": name},
            "spec": {"type": kind, "selector": {"a": "b"}, "ports": [{"port": 80}]},
        });
        if kind == "LoadBalancer" {
            object["spec"]["allocateLoadBalancerNodePorts"] = json!(nodes);
        }
        object
    };
    let before = counted(&world).await?;
    let path = |name: &str| world.path("v1", "services", name);
    world.create("v1", "services", &object("inside", "ClusterIP", false)).await?;
    world.create("v1", "services", &object("nodes", "NodePort", true)).await?;
    used(&world, "all", &json!({"services": "2", "services.nodeports": "1"})).await?;
    // The one node port is used.
    let more = world.create("v1", "services", &object("balanced", "LoadBalancer", true)).await;
    refused(more, 403, "Forbidden")?;
    let more = world.create("v1", "services", &object("more", "NodePort", true)).await;
    refused(more, 403, "Forbidden")?;
    world.create("v1", "services", &object("balanced", "LoadBalancer", false)).await?;
    let all = json!({"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"});
    used(&world, "all", &all).await?;
    for name in ["inside", "nodes", "balanced"] {
        world.api.delete(&path(name)).await?;
    }
    let names = ["services", "services.nodeports", "services.loadbalancers"];
    let expected: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), before[*name].clone())).collect();
    used(&world, "all", &Value::Object(expected)).await
}

fn small() -> Value {
    json!({"metadata": {"name": "small"}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}})
}

async fn update_and_delete(world: World) -> Result<()> {
    let made = world.create("v1", "resourcequotas", &small()).await?;
    same("its bounds", &made["spec"]["hard"], &small()["spec"]["hard"])?;
    let path = quota_path(&world, "small");
    let bounds = json!({"cpu": "2", "memory": "1Gi"});
    let updated = world.api.update(&path, |quota| quota["spec"]["hard"] = bounds.clone()).await?;
    same("its new bounds", &updated["spec"]["hard"], &bounds)?;
    let read = world.api.get(&path).await?;
    same("its bounds as read", &read["spec"]["hard"], &bounds)?;
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound").map(drop)
}

async fn lifecycle(world: World) -> Result<()> {
    let mut quota = small();
    quota["metadata"]["labels"] = json!({"case": world.ns});
    world.create("v1", "resourcequotas", &quota).await?;
    let path = quota_path(&world, "small");
    same("its bounds", &world.api.get(&path).await?["spec"]["hard"]["cpu"], &json!("1"))?;
    let selector = format!("labelSelector=case%3D{}", world.ns);
    let everywhere = format!("{}?{selector}", world.global("v1", "resourcequotas", ""));
    same("listed", &json!(items(&world.api.get(&everywhere).await?).len()), &json!(1))?;
    let patch = json!({
        "metadata": {"labels": {"patched": "yes"}},
        "spec": {"hard": {"memory": "750Mi"}},
    });
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("its bounds", &patched["spec"]["hard"], &json!({"cpu": "1", "memory": "750Mi"}))?;
    same("its label", &patched["metadata"]["labels"]["patched"], &json!("yes"))?;
    let here = format!("{}?labelSelector=patched%3Dyes", world.path("v1", "resourcequotas", ""));
    world.api.delete(&here).await?;
    world.wait("all are gone", &everywhere, SOON, |list| items(list).is_empty()).await.map(drop)
}

async fn status(world: World) -> Result<()> {
    world.create("v1", "resourcequotas", &small()).await?;
    let path = quota_path(&world, "small");
    let status = format!("{path}/status");
    let spec = small()["spec"]["hard"].clone();
    let calculated = |quota: &Value| quota["status"]["hard"] == spec;
    world.wait("it is calculated", &path, SOON, calculated).await?;
    let set = json!({"cpu": "2", "memory": "1Gi"});
    let updated = world.api.update(&status, |quota| quota["status"]["hard"] = set.clone()).await?;
    same("the status as updated", &updated["status"]["hard"], &set)?;
    same("the spec", &updated["spec"]["hard"], &spec)?;
    // The controller sets it right again.
    world.wait("it is calculated again", &path, SOON, calculated).await?;
    let patch = json!({
        "metadata": {"annotations": {"patched": "yes"}},
        "status": {"hard": {"cpu": "3", "memory": "2Gi"}},
    });
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("the status as patched", &patched["status"]["hard"], &patch["status"]["hard"])?;
    world.wait("it is calculated once more", &path, SOON, calculated).await?;
    let read = world.api.get(&status).await?;
    same("the spec at last", &read["spec"]["hard"], &spec)
}
