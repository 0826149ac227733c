//! What cases about the scheduler share: pods that only some nodes may have, nodes that offer more
//! than they have, and how to tell that a pod has no node.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::world::{POD_WITHIN, World, condition, holds, items, name_of, same};

/// How long the scheduler may take to say something.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// Lets a pod run on that node alone; the scheduler still decides.
pub(super) fn pin(pod: &mut Value, node: &str) {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    pod["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [field]}],
        },
    }});
}

/// Lets a pod's first container ask for so much of something, and have no more.
pub(super) fn ask(pod: &mut Value, resource: &str, amount: &str) {
    let amounts = json!({resource: amount});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
}

/// Puts a label on a node until the case is over.
pub(super) async fn label(world: &World, node: &str, key: &str, value: &str) -> Result<()> {
    let labels = |value: Value| json!({"metadata": {"labels": {key: value}}});
    let path = world.global("v1", "nodes", node);
    let now = world.change(path, &labels(json!(value)), labels(Value::Null)).await?;
    same("the node's label", &now["metadata"]["labels"][key], &json!(value))
}

/// The name of something countable that only this case's nodes offer.
pub(super) fn own_resource(world: &World) -> String {
    format!("example.com/{}", world.unique("fake"))
}

/// Lets a node offer so much of something until the case is over.
pub(super) async fn offer(world: &World, node: &str, resource: &str, amount: &str) -> Result<()> {
    let amounts = |amount: Value| {
        let one = json!({resource: amount});
        json!({"status": {"capacity": one, "allocatable": one}})
    };
    let path = format!("{}/status", world.global("v1", "nodes", node));
    let now = world.change(path, &amounts(json!(amount)), amounts(Value::Null)).await?;
    same("what the node offers", &now["status"]["allocatable"][resource], &json!(amount))
}

/// Makes priority classes that go away with the case; their names are unique.
pub(super) async fn classes(world: &World, values: &[(&str, i32)]) -> Result<()> {
    for (name, value) in values {
        let class = json!({"metadata": {"name": world.unique(name)}, "value": value});
        world.create_global("scheduling.k8s.io/v1", "priorityclasses", &class).await?;
    }
    Ok(())
}

/// The names of all nodes that take any pod; at least so many.
pub(super) async fn nodes(world: &World, least: usize) -> Result<Vec<String>> {
    let nodes = world.nodes().await?;
    holds(&format!("{least} nodes take pods"), nodes.len() >= least, &json!(nodes))?;
    Ok(nodes)
}

/// Waits until nothing that other cases have run is still on its way out.
pub(super) async fn quiet(world: &World) -> Result<()> {
    let all_active =
        |list: &Value| items(list).iter().all(|one| one["metadata"]["deletionTimestamp"].is_null());
    for plural in ["namespaces", "pods"] {
        let path = world.global("v1", plural, "");
        let what = format!("no {plural} are on their way out");
        // What is seen last is the whole cluster's: say less.
        if world.wait(&what, &path, POD_WITHIN, all_active).await.is_err() {
            bail!("not within {POD_WITHIN:?}: {what}");
        }
    }
    Ok(())
}

/// The node that a pod was given.
pub(super) fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// Waits until a pod has a node.
pub(super) async fn scheduled(world: &World, name: &str) -> Result<Value> {
    let has_node =
        |pod: &Value| !node_of(pod).is_empty() && condition(pod, "PodScheduled") == Some("True");
    let what = format!("pod {name} has a node");
    world.wait(&what, &world.pod_path(name), SOON, has_node).await
}

/// Waits until the scheduler says of a pod that no node can have it, and why, in its condition and in
/// an event.
pub(super) async fn unscheduled(world: &World, name: &str, why: &str) -> Result<()> {
    let says = |message: &Value| message.as_str().is_some_and(|message| message.contains(why));
    let refused = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|known| {
            known["type"] == "PodScheduled"
                && known["status"] == "False"
                && known["reason"] == "Unschedulable"
                && says(&known["message"])
        })
    };
    let what = format!("pod {name} has no node, for {why:?}");
    let pod = world.wait(&what, &world.pod_path(name), SOON, refused).await?;
    same("its node", &json!(node_of(&pod)), &json!(""))?;
    same("its phase", &pod["status"]["phase"], &json!("Pending"))?;
    let selector = format!("involvedObject.name%3D{name},reason%3DFailedScheduling");
    let events = format!("{}?fieldSelector={selector}", world.path("v1", "events", ""));
    let told = |list: &Value| {
        items(list).iter().any(|event| event["type"] == "Warning" && says(&event["message"]))
    };
    world.wait("an event says so", &events, SOON, told).await.map(drop)
}

/// Names of the namespace's pods that have a node, and of those that have none.
pub(super) async fn placed(world: &World) -> Result<(Vec<String>, Vec<String>)> {
    let list = world.api.get(&world.path("v1", "pods", "")).await?;
    let (with, without): (Vec<_>, Vec<_>) =
        items(&list).iter().partition(|pod| !node_of(pod).is_empty());
    let names = |pods: Vec<&Value>| pods.into_iter().map(|pod| name_of(pod).to_owned()).collect();
    Ok((names(with), names(without)))
}
