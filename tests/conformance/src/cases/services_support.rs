//! What cases with Services have in common: pods that serve, one that asks, and patience.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::world::{World, items, name_of};

/// How long rules, names and slices may take to follow.
pub(super) const SOON: Duration = Duration::from_secs(90);

/// A Service at port 80 over the pods of `app`, which serve at 8080.
pub(super) fn service(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

/// A pod of `app` that serves its name at 8080.
pub(super) fn server_of(world: &World, name: &str, app: &str) -> Value {
    let mut pod = world.server(name, 8080);
    pod["metadata"]["labels"]["app"] = json!(app);
    pod
}

/// Starts `count` of them, and returns their names when all are ready.
pub(super) async fn servers(world: &World, app: &str, count: usize) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("{app}-{number}")).collect();
    for name in &names {
        world.create("v1", "pods", &server_of(world, name, app)).await?;
    }
    for name in &names {
        world.ready(name).await?;
    }
    Ok(names)
}

/// Starts the pod `client`, from which cases ask.
pub(super) async fn client(world: &World) -> Result<Value> {
    world.run(&world.sleeper("client")).await
}

/// What the client says to `script`, as soon as that fits.
pub(super) async fn client_says(
    world: &World,
    what: &str,
    script: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<String> {
    let until = Instant::now() + SOON;
    loop {
        let now = world.exec("client", script).await;
        if let Ok(said) = &now
            && fits(said)
        {
            return now;
        }
        if Instant::now() >= until {
            bail!("not within {SOON:?}: {what}: {script}; last said: {now:?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A command that asks for the page at `address`.
pub(super) fn fetch(address: &str) -> String {
    format!("/bin/busybox timeout 10 wget -qO- http://{address}/")
}

/// Waits until one of `names` answers the client at `address`.
pub(super) async fn reached(world: &World, address: &str, names: &[String]) -> Result<()> {
    let is_one = |said: &str| names.iter().any(|name| name == said.trim());
    client_says(world, "a server answers", &fetch(address), is_one).await?;
    Ok(())
}

/// An object's text at a JSON pointer.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no text at {pointer}: {object}"))
}

/// The addresses of all usable nodes, in the cluster.
pub(super) async fn node_addresses(world: &World) -> Result<Vec<String>> {
    let list = world.api.get("/api/v1/nodes").await?;
    let usable = world.nodes().await?;
    let mut addresses = Vec::new();
    for node in items(&list).iter().filter(|node| usable.iter().any(|name| name == name_of(node))) {
        let known = node["status"]["addresses"].as_array().context("addresses")?;
        let internal = known.iter().find(|address| address["type"] == "InternalIP");
        addresses.push(text(internal.context("an internal one")?, "/address")?.to_owned());
    }
    Ok(addresses)
}

/// Every address of ready endpoints in a Service's slices, with its pod's name, sorted.
pub(super) async fn ready_endpoints(world: &World, service: &str) -> Result<Vec<(String, String)>> {
    let slices = world.path("discovery.k8s.io/v1", "endpointslices", "");
    let selector = format!("{slices}?labelSelector=kubernetes.io%2Fservice-name%3D{service}");
    let list = world.api.get(&selector).await?;
    let endpoints = items(&list).iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let mut found = Vec::new();
    for endpoint in ready {
        let name = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
        for address in endpoint["addresses"].as_array().into_iter().flatten() {
            found.push((address.as_str().unwrap_or_default().to_owned(), name.to_owned()));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Waits until exactly the pods `names` are a Service's ready endpoints.
pub(super) async fn endpoints_are(world: &World, service: &str, names: &[&str]) -> Result<()> {
    let until = Instant::now() + SOON;
    loop {
        let now = ready_endpoints(world, service).await?;
        let mut pods: Vec<&str> = now.iter().map(|(_, pod)| pod.as_str()).collect();
        pods.sort_unstable();
        if pods == names {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("endpoints of {service} within {SOON:?}: found {now:?}, expected {names:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
