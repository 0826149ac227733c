//! Services whose clients stay with one pod.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};

use super::services_support::{
    client, client_says, fetch, node_addresses, reached, servers, service,
};
use crate::api::Patch;
use crate::cases;
use crate::world::World;

use Way::{ClusterAddress, NodePort};

cases! {
    "[sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly] [Conformance]"
        => affinity(ClusterAddress),
    "[sig-network] Services should have session affinity work for NodePort service [LinuxOnly] [Conformance]"
        => affinity(NodePort),
    "[sig-network] Services should be able to switch session affinity for service with type clusterIP [LinuxOnly] [Conformance]"
        => switched(ClusterAddress),
    "[sig-network] Services should be able to switch session affinity for NodePort service [LinuxOnly] [Conformance]"
        => switched(NodePort),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    ClusterAddress,
    NodePort,
}

/// Three pods, a Service over them, a client, and the address at which the client asks.
async fn stage(world: &World, way: Way, affinity: &str) -> Result<(Vec<String>, String)> {
    let mut object = service("sticky", "web");
    object["spec"]["sessionAffinity"] = json!(affinity);
    if way == NodePort {
        object["spec"]["type"] = json!("NodePort");
    }
    let made = world.create("v1", "services", &object).await?;
    let names = servers(world, "web", 3).await?;
    client(world).await?;
    reached(world, "sticky", &names).await?;
    let cluster = format!("{}:80", made["spec"]["clusterIP"].as_str().unwrap_or_default());
    if way == ClusterAddress {
        return Ok((names, cluster));
    }
    reached(world, &cluster, &names).await?;
    let node = node_addresses(world).await?.swap_remove(0);
    Ok((names, format!("{node}:{}", port(&made))))
}

fn port(service: &Value) -> u64 {
    service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or_default()
}

/// Asks again and again until the answers of one round come from one pod, or from several.
async fn answered(world: &World, address: &str, names: &[String], by_one: bool) -> Result<()> {
    let rounds = if by_one { 15 } else { 30 };
    let script = format!("for n in $(seq {rounds}); do {} || exit 1; done", fetch(address));
    let what = if by_one { "one pod answers always" } else { "several pods answer" };
    client_says(world, what, &script, |said| {
        let answers: Vec<&str> = said.split_whitespace().collect();
        let distinct: BTreeSet<&str> = answers.iter().copied().collect();
        answers.len() == rounds
            && distinct.iter().all(|answer| names.iter().any(|name| name == answer))
            && (distinct.len() == 1) == by_one
    })
    .await?;
    Ok(())
}

async fn affinity(world: World, way: Way) -> Result<()> {
    let (names, address) = stage(&world, way, "ClientIP").await?;
    answered(&world, &address, &names, true).await
}

async fn switched(world: World, way: Way) -> Result<()> {
    let (names, address) = stage(&world, way, "ClientIP").await?;
    answered(&world, &address, &names, true).await?;
    for (affinity, by_one) in [("None", false), ("ClientIP", true)] {
        let change = json!({"spec": {"sessionAffinity": affinity}});
        world.api.patch(&world.path("v1", "services", "sticky"), Patch::Merge, &change).await?;
        answered(&world, &address, &names, by_one).await?;
    }
    Ok(())
}
