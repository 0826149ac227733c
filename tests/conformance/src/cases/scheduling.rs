//! Which nodes a pod may have: by what is free there, by labels and by ports.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::scheduling_support::{
    ask, label, node_of, nodes, pin, placed, quiet, scheduled, unscheduled,
};
use crate::cases;
use crate::world::{POD_WITHIN, World, condition, items, name_of, same, until};

cases! {
    "[sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]"
        => two_nodes,
    "[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run [Conformance]"
        => resources,
    "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching [Conformance]"
        => selected,
    "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching [Conformance]"
        => not_selected,
    "[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP [Conformance]"
        => ports,
}

/// How long a pod is watched that must not get a node.
const A_WHILE: Duration = Duration::from_secs(10);
/// A port of nodes that nothing else has.
const PORT: u16 = 54322;

async fn two_nodes(world: World) -> Result<()> {
    let nodes = until(POD_WITHIN, || nodes(&world, 2)).await?;
    for node in &nodes[..2] {
        let mut pod = world.sleeper(&format!("on-{node}"));
        pin(&mut pod, node);
        let pod = world.run(&pod).await?;
        same("where it runs", &json!(node_of(&pod)), &json!(node))?;
    }
    Ok(())
}

/// Thousandths of a processor; servers write whole numbers of them or of processors.
fn milli_cpu(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().unwrap_or("0");
    let number = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse(),
        None => text.parse().map(|whole: u64| whole * 1000),
    };
    number.with_context(|| format!("{quantity} of cpu"))
}

/// What a pod that runs asks of its node's processors.
fn asked_cpu(pod: &Value) -> Result<u64> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.map(|one| milli_cpu(&one["resources"]["requests"]["cpu"])).sum()
}

/// What is free of the processors of each node that takes pods, and the most that one of them has.
async fn free_cpu(world: &World) -> Result<(BTreeMap<String, u64>, u64)> {
    let mut free = BTreeMap::new();
    for node in nodes(world, 1).await? {
        let object = world.api.get(&world.global("v1", "nodes", &node)).await?;
        free.insert(node, milli_cpu(&object["status"]["allocatable"]["cpu"])?);
    }
    let most = free.values().copied().max().unwrap_or_default();
    let pods = world.api.get(&world.global("v1", "pods", "")).await?;
    for pod in items(&pods) {
        let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if let Some(free) = free.get_mut(node_of(pod)).filter(|_| !has_ended) {
            *free = free.saturating_sub(asked_cpu(pod)?);
        }
    }
    Ok((free, most))
}

async fn resources(world: World) -> Result<()> {
    quiet(&world).await?;
    let (free, most) = free_cpu(&world).await?;
    for (node, free) in &free {
        let mut filler = world.sleeper(&format!("filler-{node}"));
        pin(&mut filler, node);
        ask(&mut filler, "cpu", &format!("{}m", free * 7 / 10));
        world.create("v1", "pods", &filler).await?;
    }
    for node in free.keys() {
        let filler = world.ready(&format!("filler-{node}")).await?;
        same("where a filler runs", &json!(node_of(&filler)), &json!(node))?;
    }
    let mut additional = world.sleeper("additional");
    ask(&mut additional, "cpu", &format!("{}m", most / 2));
    world.create("v1", "pods", &additional).await?;
    unscheduled(&world, "additional", "Insufficient cpu").await?;
    world.stays("additional", A_WHILE, "it has no node", |pod| node_of(pod).is_empty()).await?;
    let (with, without) = placed(&world).await?;
    same("how many have nodes", &json!(with.len()), &json!(free.len()))?;
    same("which have none", &json!(without), &json!(["additional"]))
}

/// A node that takes an ordinary pod now.
async fn a_node(world: &World) -> Result<String> {
    let pod = world.run(&world.sleeper("any")).await?;
    let path = world.pod_path("any");
    world.api.delete_with(&path, &json!({"gracePeriodSeconds": 0})).await?;
    world.wait_gone(&path, POD_WITHIN).await?;
    Ok(node_of(&pod).to_owned())
}

/// A label that no other node has.
fn own_label(world: &World) -> String {
    format!("conformance.test/{}", world.ns)
}

async fn selected(world: World) -> Result<()> {
    let node = a_node(&world).await?;
    let key = own_label(&world);
    label(&world, &node, &key, "42").await?;
    // Several, of which chance would hardly take all to one node.
    for name in ["first", "second", "third"] {
        let mut pod = world.sleeper(name);
        pod["spec"]["nodeSelector"] = json!({key.as_str(): "42"});
        world.create("v1", "pods", &pod).await?;
    }
    for name in ["first", "second", "third"] {
        let pod = scheduled(&world, name).await?;
        same("its node", &json!(node_of(&pod)), &json!(node))?;
        let begun = |pod: &Value| pod["status"]["phase"] != "Pending";
        world.wait("it is no longer pending", &world.pod_path(name), POD_WITHIN, begun).await?;
    }
    Ok(())
}

async fn not_selected(world: World) -> Result<()> {
    quiet(&world).await?;
    let key = own_label(&world);
    let node = a_node(&world).await?;
    // The key alone is not enough.
    label(&world, &node, &key, "other").await?;
    let mut pod = world.sleeper("restricted");
    pod["spec"]["nodeSelector"] = json!({key.as_str(): "nonempty"});
    world.create("v1", "pods", &pod).await?;
    let why = "node(s) didn't match Pod's node affinity/selector";
    unscheduled(&world, "restricted", why).await?;
    world.stays("restricted", A_WHILE, "it has no node", |pod| node_of(pod).is_empty()).await?;
    let (with, without) = placed(&world).await?;
    same("which have nodes", &json!(with), &json!([]))?;
    same("which have none", &json!(without), &json!(["restricted"]))
}

/// A pod for labelled nodes that has a port of its node.
fn with_port(world: &World, name: &str, ip: &str, protocol: &str) -> Value {
    let mut pod = world.server(name, 8080);
    pod["spec"]["nodeSelector"] = json!({own_label(world): "95"});
    let mut port = json!({"containerPort": 8080, "hostPort": PORT, "protocol": protocol});
    if !ip.is_empty() {
        port["hostIP"] = json!(ip);
    }
    pod["spec"]["containers"][0]["ports"] = json!([port]);
    pod
}

async fn ports(world: World) -> Result<()> {
    let node = a_node(&world).await?;
    label(&world, &node, &own_label(&world), "95").await?;
    let object = world.api.get(&world.global("v1", "nodes", &node)).await?;
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
    let mut own = addresses.filter(|address| address["type"] == "InternalIP");
    let Some(ip) = own.find_map(|address| address["address"].as_str()) else {
        bail!("node {node} has no address: {}", object["status"]["addresses"]);
    };
    let all = world.run(&with_port(&world, "all-addresses", "", "TCP")).await?;
    same("its node", &json!(node_of(&all)), &json!(node))?;
    world.create("v1", "pods", &with_port(&world, "one-address", ip, "TCP")).await?;
    // Another protocol's port is another port: nothing else keeps the pod away.
    world.create("v1", "pods", &with_port(&world, "other-protocol", ip, "UDP")).await?;
    let other = scheduled(&world, "other-protocol").await?;
    same("the node of the other protocol's", &json!(node_of(&other)), &json!(node))?;
    let why = "node(s) didn't have free ports for the requested pod ports";
    unscheduled(&world, "one-address", why).await?;
    world.stays("one-address", A_WHILE, "it has no node", |pod| node_of(pod).is_empty()).await?;
    let all = world.api.get(&world.pod_path(name_of(&all))).await?;
    same("whether the first still runs", &json!(condition(&all, "Ready")), &json!("True"))
}
