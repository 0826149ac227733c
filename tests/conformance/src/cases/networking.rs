//! Pods that reach each other, over TCP and UDP, from pods and from nodes; ports of nodes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::services_support::{
    SOON, client, client_says, endpoints_are, fetch, server_of, servers, service, text,
};
use crate::watch::Watch;
use crate::world::{World, holds, items, same};
use crate::{cases, udp};

use Asker::{Node, Pod};
use Protocol::{Http, Udp};

cases! {
    "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance] [Conformance]"
        => pods_are_reached(Pod, Http),
    "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp [NodeConformance] [Conformance]"
        => pods_are_reached(Pod, Udp),
    "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance] [Conformance]"
        => pods_are_reached(Node, Http),
    "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp [LinuxOnly] [NodeConformance] [Conformance]"
        => pods_are_reached(Node, Udp),
    "[sig-network] Services should serve endpoints on same port and different protocols [Conformance]"
        => two_protocols,
    "[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly] [Conformance]"
        => host_ports,
    "[sig-network] Service endpoints latency should not be very high [Conformance]"
        => latency,
}

/// Where the question comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asker {
    Pod,
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Http,
    Udp,
}

const PORT: u16 = 8080;

/// A pod that answers at [`PORT`] with its name.
async fn answering(world: &World, name: &str, protocol: Protocol) -> Result<Value> {
    if protocol == Http {
        return Ok(server_of(world, name, "web"));
    }
    let list = world.api.get("/api/v1/nodes").await?;
    let amd64 = |node: &Value| node["status"]["nodeInfo"]["architecture"] == "amd64";
    holds("the program runs on amd64 alone", items(&list).iter().all(amd64), &json!(null))?;
    let mut pod = world.shell(name, &udp::server(PORT, name));
    pod["metadata"]["labels"]["app"] = json!("web");
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": PORT, "protocol": "UDP"}]);
    Ok(pod)
}

/// Waits until `name` answers the client at that address.
async fn answers(world: &World, ip: &str, port: u16, protocol: Protocol, name: &str) -> Result<()> {
    let script = match protocol {
        Http => fetch(&format!("{ip}:{port}")),
        Udp => udp::client(ip.parse::<Ipv4Addr>()?, port),
    };
    client_says(world, &format!("{name} answers"), &script, |said| said.trim() == name).await?;
    Ok(())
}

/// The pod `client` in a node's network.
async fn client_in_host_network(world: &World, node: Option<&str>) -> Result<()> {
    let mut pod = world.sleeper("client");
    pod["spec"]["hostNetwork"] = json!(true);
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    world.run(&pod).await?;
    Ok(())
}

/// A server on each node answers one client.
async fn pods_are_reached(world: World, asker: Asker, protocol: Protocol) -> Result<()> {
    let nodes = world.nodes().await?;
    let names: Vec<String> = (0..nodes.len()).map(|number| format!("server-{number}")).collect();
    for (name, node) in names.iter().zip(&nodes) {
        let mut pod = answering(&world, name, protocol).await?;
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        world.create("v1", "pods", &pod).await?;
    }
    match asker {
        Pod => drop(client(&world).await?),
        Node => client_in_host_network(&world, None).await?,
    }
    for (name, node) in names.iter().zip(&nodes) {
        let pod = world.ready(name).await?;
        same("where it runs", &pod["spec"]["nodeName"], &json!(node))?;
        answers(&world, text(&pod, "/status/podIP")?, PORT, protocol, name).await?;
    }
    Ok(())
}

/// One pod whose two containers answer the same port's two protocols.
async fn two_protocols(world: World) -> Result<()> {
    let mut object = service("web", "web");
    object["spec"]["ports"] = json!([
        {"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"},
        {"name": "udp", "port": 80, "targetPort": PORT, "protocol": "UDP"},
    ]);
    let made = world.create("v1", "services", &object).await?;
    let mut pod = answering(&world, "both", Http).await?;
    let mut other = answering(&world, "both", Udp).await?["spec"]["containers"][0].clone();
    other["name"] = json!("other");
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(other);
    }
    world.run(&pod).await?;
    client(&world).await?;
    endpoints_are(&world, "web", &["both"]).await?;
    let address = text(&made, "/spec/clusterIP")?;
    answers(&world, address, 80, Http, "both").await?;
    answers(&world, address, 80, Udp, "both").await?;

    let path = world.path("v1", "services", "web");
    for (left, protocol, dropped) in [(0, Http, Udp), (1, Udp, Http)] {
        let port = object["spec"]["ports"][left].clone();
        world.api.update(&path, |service| service["spec"]["ports"] = json!([port])).await?;
        let script = match dropped {
            Http => fetch(&format!("{address}:80")),
            Udp => udp::client(address.parse()?, 80),
        };
        let unanswered = format!("{{ {script}; }} > /dev/null 2>&1 || echo nobody");
        client_says(&world, "nobody", &unanswered, |said| said.trim() == "nobody").await?;
        answers(&world, address, 80, protocol, "both").await?;
    }
    Ok(())
}

/// Three pods of one node with one host port: they differ in address or protocol.
async fn host_ports(world: World) -> Result<()> {
    const HOST_PORT: u16 = 54_323;
    let node = world.nodes().await?.into_iter().next().context("a node")?;
    let object = world.api.get(&world.global("v1", "nodes", &node)).await?;
    let known = object["status"]["addresses"].as_array().context("addresses")?;
    let internal = known.iter().find(|address| address["type"] == "InternalIP");
    let address = text(internal.context("an internal one")?, "/address")?;
    client_in_host_network(&world, Some(&node)).await?;
    let all = [("one", "127.0.0.1", Http), ("two", address, Http), ("three", address, Udp)];
    for (name, host, protocol) in all {
        let mut pod = answering(&world, name, protocol).await?;
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        let port = &mut pod["spec"]["containers"][0]["ports"][0];
        port["hostPort"] = json!(HOST_PORT);
        port["hostIP"] = json!(host);
        world.run(&pod).await?;
    }
    for (name, host, protocol) in all {
        answers(&world, host, HOST_PORT, protocol, name).await?;
    }
    Ok(())
}

/// How long after they are made the endpoints of a hundred Services are known.
async fn latency(world: World) -> Result<()> {
    servers(&world, "web", 1).await?;
    let slices = world.path("discovery.k8s.io/v1", "endpointslices", "");
    let mut watch = world.api.watch(&slices).await?;
    let mut taken = Vec::new();
    for batch in 0..10 {
        let mut begun = BTreeMap::new();
        for number in 0..10 {
            let name = format!("web-{batch}-{number}");
            begun.insert(name.clone(), Instant::now());
            world.create("v1", "services", &service(&name, "web")).await?;
        }
        await_endpoints(&mut watch, begun, &mut taken).await?;
    }
    taken.sort_unstable();
    // What upstream allows: half within 20 s, all but one in a hundred within 50 s.
    let (median, worst) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100 - 1]);
    let good = median.as_secs() < 20 && worst.as_secs() < 50;
    holds("latencies", good, &json!(format!("median {median:?}, p99 {worst:?}")))
}

async fn await_endpoints(
    watch: &mut Watch,
    mut begun: BTreeMap<String, Instant>,
    taken: &mut Vec<std::time::Duration>,
) -> Result<()> {
    while !begun.is_empty() {
        let Some(event) = watch.next(SOON).await else {
            bail!("no endpoints within {SOON:?} for {:?}", begun.keys());
        };
        let slice = &event["object"];
        let service = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
        let ready = slice["endpoints"][0]["conditions"]["ready"] == true;
        if let Some(name) = service.as_str().filter(|_| ready)
            && let Some(since) = begun.remove(name)
        {
            taken.push(since.elapsed());
        }
    }
    Ok(())
}
