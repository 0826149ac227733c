//! Stateful sets and daemon sets.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::apps::{SOON, pods_of, workload};
use crate::api::Patch;
use crate::cases;
use crate::world::{World, condition, holds, items, name_of, same};

cases! {
    "[sig-apps] Daemon set [Serial] should retry creating failed daemon pods [Conformance]" => daemon_retries,
    "[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts [Conformance]"
        => daemon_rolls_back,
    "[sig-apps] Daemon set [Serial] should run and stop complex daemon [Conformance]" => daemon_complex,
    "[sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]" => daemon_simple,
    "[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate [Conformance]"
        => daemon_updates,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow] [Conformance]"
        => burst,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow] [Conformance]"
        => ordered,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset [Conformance]"
        => recreated,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications [Conformance]"
        => canary,
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications [Conformance]"
        => rolls_back,
}

const APPS: &str = "apps/v1";

fn daemon(world: &World) -> Value {
    workload(world, APPS, "DaemonSet", "web", 0)
}

/// A daemon runs and is ready on so many nodes, in the newest form.
async fn on_nodes(world: &World, count: usize) -> Result<Value> {
    let fits = |set: &Value| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["desiredNumberScheduled"] == count
            && status["numberReady"] == count
            && status["updatedNumberScheduled"].as_u64().unwrap_or(0) == count as u64
    };
    let what = format!("it is ready on {count} nodes");
    world.wait(&what, &world.path(APPS, "daemonsets", "web"), SOON, fits).await
}

async fn daemon_simple(world: World) -> Result<()> {
    world.create(APPS, "daemonsets", &daemon(&world)).await?;
    let count = world.nodes().await?.len();
    on_nodes(&world, count).await?;
    let pods = pods_of(&world, "web").await?;
    let stopped = name_of(pods.first().context("a pod")?).to_owned();
    world.api.delete(&world.pod_path(&stopped)).await?;
    world.wait_gone(&world.pod_path(&stopped), SOON).await?;
    on_nodes(&world, count).await.map(drop)
}

async fn daemon_complex(world: World) -> Result<()> {
    let label = world.unique("color");
    let node = world.nodes().await?.first().context("a node")?.clone();
    let path = world.global("v1", "nodes", &node);
    let set_label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {label.as_str(): value}}});
        world.api.patch(&path, Patch::Merge, &patch).await.map(drop)
    };
    let mut object = daemon(&world);
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({label.as_str(): "blue"});
    let result = async {
        world.create(APPS, "daemonsets", &object).await?;
        on_nodes(&world, 0).await?;
        set_label(json!("blue")).await?;
        on_nodes(&world, 1).await?;
        set_label(json!("green")).await?;
        on_nodes(&world, 0).await?;
        let green = json!({"spec": {
            "template": {"spec": {"nodeSelector": {label.as_str(): "green"}}},
            "updateStrategy": {"type": "RollingUpdate"},
        }});
        world.api.patch(&world.path(APPS, "daemonsets", "web"), Patch::Merge, &green).await?;
        on_nodes(&world, 1).await.map(drop)
    };
    let result = result.await;
    set_label(Value::Null).await?;
    result
}

async fn daemon_retries(world: World) -> Result<()> {
    world.create(APPS, "daemonsets", &daemon(&world)).await?;
    let count = world.nodes().await?.len();
    on_nodes(&world, count).await?;
    let pods = pods_of(&world, "web").await?;
    let failed = name_of(pods.first().context("a pod")?).to_owned();
    let patch = json!({"status": {"phase": "Failed"}});
    world.api.patch(&format!("{}/status", world.pod_path(&failed)), Patch::Merge, &patch).await?;
    world.wait_gone(&world.pod_path(&failed), SOON).await?;
    on_nodes(&world, count).await.map(drop)
}

async fn daemon_updates(world: World) -> Result<()> {
    let mut object = daemon(&world);
    object["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    world.create(APPS, "daemonsets", &object).await?;
    let count = world.nodes().await?.len();
    on_nodes(&world, count).await?;
    let hash = async || -> Result<String> {
        let pods = pods_of(&world, "web").await?;
        let labels = &pods.first().context("a pod")?["metadata"]["labels"];
        Ok(labels["controller-revision-hash"].as_str().context("a hash")?.to_owned())
    };
    let before = hash().await?;
    let stamp = json!({"spec": {"template": {"metadata": {"annotations": {"stamp": "2"}}}}});
    world.api.patch(&world.path(APPS, "daemonsets", "web"), Patch::Merge, &stamp).await?;
    on_nodes(&world, count).await?;
    holds("the pods are of another revision", hash().await? != before, &json!(before))?;
    let path = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "controllerrevisions", ""));
    same("two revisions", &json!(items(&world.api.get(&path).await?).len()), &json!(2))
}

async fn daemon_rolls_back(world: World) -> Result<()> {
    let mut object = daemon(&world);
    object["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
    world.create(APPS, "daemonsets", &object).await?;
    let count = world.nodes().await?.len();
    on_nodes(&world, count).await?;
    let before = pods_of(&world, "web").await?;
    let path = world.path(APPS, "daemonsets", "web");
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    world.api.patch(&path, Patch::Strategic, &image("registry.invalid/none:1")).await?;
    let begun = |set: &Value| {
        set["status"]["updatedNumberScheduled"].as_u64() > Some(0)
            && set["status"]["observedGeneration"] == set["metadata"]["generation"]
    };
    world.wait("one pod is of the new form", &path, SOON, begun).await?;
    world.api.patch(&path, Patch::Strategic, &image(&world.image)).await?;
    on_nodes(&world, count).await?;
    let after = pods_of(&world, "web").await?;
    let kept = before
        .iter()
        .filter(|old| after.iter().any(|new| new["metadata"]["uid"] == old["metadata"]["uid"]));
    same("pods that were not touched are kept", &json!(kept.count()), &json!(count - 1))
}

fn stateful(world: &World, replicas: u32) -> Value {
    workload(world, APPS, "StatefulSet", "ss", replicas)
}

async fn headless(world: &World) -> Result<()> {
    let service = json!({
        "metadata": {"name": "ss"},
        "spec": {"clusterIP": "None", "selector": {"app": "ss"}, "ports": [{"port": 8080}]},
    });
    world.create("v1", "services", &service).await.map(drop)
}

async fn ready_replicas(world: &World, count: u64) -> Result<Value> {
    let what = format!("{count} replicas are ready");
    let fits = |set: &Value| {
        set["status"]["readyReplicas"].as_u64().unwrap_or(0) == count
            && set["status"]["replicas"] == count
            && set["status"]["observedGeneration"] == set["metadata"]["generation"]
    };
    world.wait(&what, &world.path(APPS, "statefulsets", "ss"), SOON, fits).await
}

async fn scale(world: &World, replicas: u32) -> Result<()> {
    let path = format!("{}/scale", world.path(APPS, "statefulsets", "ss"));
    world.api.patch(&path, Patch::Merge, &json!({"spec": {"replicas": replicas}})).await.map(drop)
}

/// Puts back what a pod's probe asks for.
const MEND: &str = "mv /tmp/index.html /tmp/www/index.html";

/// Takes away or puts back what a pod's probe asks for.
async fn set_healthy(world: &World, pod: &str, healthy: bool) -> Result<()> {
    let script = if healthy { MEND } else { "mv /tmp/www/index.html /tmp/index.html" };
    world.exec(pod, script).await?;
    let expected = if healthy { "True" } else { "False" };
    let what = format!("{pod} is ready: {expected}");
    let fits = |pod: &Value| condition(pod, "Ready") == Some(expected);
    world.wait(&what, &world.pod_path(pod), SOON, fits).await.map(drop)
}

async fn ordered(world: World) -> Result<()> {
    headless(&world).await?;
    let pods = format!("{}?labelSelector=app%3Dss", world.path("v1", "pods", ""));
    let mut watch = world.api.watch(&pods).await?;
    world.create(APPS, "statefulsets", &stateful(&world, 1)).await?;
    ready_replicas(&world, 1).await?;
    set_healthy(&world, "ss-0", false).await?;
    scale(&world, 3).await?;
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    let list = world.api.get(&pods).await?;
    same("nothing is made while one is unhealthy", &json!(items(&list).len()), &json!(1))?;
    set_healthy(&world, "ss-0", true).await?;
    for name in ["ss-0", "ss-1", "ss-2"] {
        watch.expect("ADDED", SOON, |pod| name_of(pod) == name).await?;
    }
    ready_replicas(&world, 3).await?;
    for pod in ["ss-0", "ss-1", "ss-2"] {
        set_healthy(&world, pod, false).await?;
    }
    scale(&world, 0).await?;
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    let list = world.api.get(&pods).await?;
    same("nothing is ended while another is unhealthy", &json!(items(&list).len()), &json!(3))?;
    for pod in ["ss-2", "ss-1", "ss-0"] {
        world.exec(pod, MEND).await?;
    }
    for name in ["ss-2", "ss-1", "ss-0"] {
        watch.expect("DELETED", SOON, |pod| name_of(pod) == name).await?;
    }
    Ok(())
}

async fn burst(world: World) -> Result<()> {
    headless(&world).await?;
    let mut object = stateful(&world, 1);
    object["spec"]["podManagementPolicy"] = json!("Parallel");
    world.create(APPS, "statefulsets", &object).await?;
    ready_replicas(&world, 1).await?;
    set_healthy(&world, "ss-0", false).await?;
    scale(&world, 3).await?;
    let path = world.path(APPS, "statefulsets", "ss");
    world.wait("all are made", &path, SOON, |set| set["status"]["replicas"] == 3).await?;
    set_healthy(&world, "ss-0", true).await?;
    ready_replicas(&world, 3).await?;
    set_healthy(&world, "ss-0", false).await?;
    scale(&world, 0).await?;
    ready_replicas(&world, 0).await.map(drop)
}

async fn recreated(world: World) -> Result<()> {
    headless(&world).await?;
    let node = world.nodes().await?.first().context("a node")?.clone();
    let mut blocker = world.sleeper("blocker");
    blocker["spec"]["nodeName"] = json!(node);
    blocker["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 21017, "hostPort": 21017}]);
    world.run(&blocker).await?;
    let mut object = stateful(&world, 1);
    let pod = &mut object["spec"]["template"]["spec"];
    pod["nodeName"] = json!(node);
    pod["containers"][0]["ports"] = json!([{"containerPort": 21017, "hostPort": 21017}]);
    let mut watch = world
        .api
        .watch(&format!("{}?labelSelector=app%3Dss", world.path("v1", "pods", "")))
        .await?;
    world.create(APPS, "statefulsets", &object).await?;
    // The node refuses it, since its port is taken; the set makes it anew each time.
    let first = watch.expect("MODIFIED", SOON, |pod| pod["status"]["phase"] == "Failed").await?;
    watch.expect("DELETED", SOON, |pod| pod["metadata"]["uid"] == first["metadata"]["uid"]).await?;
    world.api.delete(&world.pod_path("blocker")).await?;
    ready_replicas(&world, 1).await.map(drop)
}

fn stamp(value: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"stamp": value}}}}})
}

async fn stamps(world: &World) -> Result<Vec<String>> {
    let mut pods = pods_of(world, "ss").await?;
    pods.sort_by_key(|pod| name_of(pod).to_owned());
    let stamp =
        |pod: &Value| pod["metadata"]["annotations"]["stamp"].as_str().unwrap_or("").to_owned();
    Ok(pods.iter().map(stamp).collect())
}

async fn updated(world: &World, count: u64) -> Result<Value> {
    let what = format!("{count} replicas are updated and all are ready");
    let fits = |set: &Value| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["updatedReplicas"].as_u64().unwrap_or(0) == count
            && status["readyReplicas"] == set["spec"]["replicas"]
    };
    world.wait(&what, &world.path(APPS, "statefulsets", "ss"), SOON, fits).await
}

async fn canary(world: World) -> Result<()> {
    headless(&world).await?;
    let mut object = stateful(&world, 3);
    object["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 3}});
    world.create(APPS, "statefulsets", &object).await?;
    ready_replicas(&world, 3).await?;
    let path = world.path(APPS, "statefulsets", "ss");
    let set = world.api.patch(&path, Patch::Merge, &stamp("2")).await?;
    let new = |set: &Value| set["status"]["currentRevision"] != set["status"]["updateRevision"];
    world.wait("there is a new revision", &path, SOON, new).await?;
    same("generation", &set["metadata"]["generation"], &json!(2))?;
    same("none is updated", &json!(stamps(&world).await?), &json!(["", "", ""]))?;
    let partition = |at: u32| json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": at}}}});
    world.api.patch(&path, Patch::Merge, &partition(2)).await?;
    updated(&world, 1).await?;
    same("the canary is", &json!(stamps(&world).await?), &json!(["", "", "2"]))?;
    // One of the old is made again as old, one of the new as new.
    for name in ["ss-0", "ss-2"] {
        let uid = world.api.get(&world.pod_path(name)).await?["metadata"]["uid"].clone();
        world.api.delete(&world.pod_path(name)).await?;
        let again =
            |pod: &Value| pod["metadata"]["uid"] != uid && condition(pod, "Ready") == Some("True");
        world.wait("it is made again", &world.pod_path(name), SOON, again).await?;
    }
    same("as they were", &json!(stamps(&world).await?), &json!(["", "", "2"]))?;
    for at in [1, 0] {
        world.api.patch(&path, Patch::Merge, &partition(at)).await?;
        updated(&world, u64::from(3 - at)).await?;
    }
    same("all are", &json!(stamps(&world).await?), &json!(["2", "2", "2"]))
}

async fn rolls_back(world: World) -> Result<()> {
    headless(&world).await?;
    world.create(APPS, "statefulsets", &stateful(&world, 3)).await?;
    ready_replicas(&world, 3).await?;
    let path = world.path(APPS, "statefulsets", "ss");
    let first = world.api.get(&path).await?["status"]["currentRevision"].clone();
    let mut watch = world
        .api
        .watch(&format!("{}?labelSelector=app%3Dss", world.path("v1", "pods", "")))
        .await?;
    world.api.patch(&path, Patch::Merge, &stamp("2")).await?;
    for name in ["ss-2", "ss-1", "ss-0"] {
        watch.expect("DELETED", SOON, |pod| name_of(pod) == name).await?;
    }
    updated(&world, 3).await?;
    same("all are", &json!(stamps(&world).await?), &json!(["2", "2", "2"]))?;
    let back = json!({"spec": {"template": {"metadata": {"annotations": Value::Null}}}});
    world.api.patch(&path, Patch::Merge, &back).await?;
    let as_first = |set: &Value| {
        set["status"]["currentRevision"] == first
            && set["status"]["updateRevision"] == first
            && set["status"]["readyReplicas"] == 3
    };
    world.wait("it is of its first revision again", &path, SOON, as_first).await?;
    same("no pod is stamped", &json!(stamps(&world).await?), &json!(["", "", ""]))
}
