//! Endpoints and EndpointSlices that controllers write.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::services_support::{SOON, endpoints_are, server_of, service, text};
use crate::api::Patch;
use crate::cases;
use crate::lifecycle::discovered;
use crate::world::{World, holds, items, same};

cases! {
    "[sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server [Conformance]"
        => of_the_api,
    "[sig-network] EndpointSlice should create and delete Endpoints and EndpointSlices for a Service with a selector specified [Conformance]"
        => come_and_go,
    "[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]"
        => of_pods,
    "[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete [Conformance]"
        => mirrored,
}

const VERSION: &str = "discovery.k8s.io/v1";

/// Path of the slices of a Service of that namespace.
fn slices_of(world: &World, namespace: &str, service: &str) -> String {
    let path = world.path_in(namespace, VERSION, "endpointslices", "");
    format!("{path}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")
}

/// Sorted texts at `pointer` in each of `list`.
fn texts(list: Option<&Vec<Value>>, pointer: &str) -> Vec<String> {
    let found = list.into_iter().flatten().filter_map(|one| one.pointer(pointer)?.as_str());
    let mut found: Vec<String> = found.map(str::to_owned).collect();
    found.sort();
    found
}

/// Servers that share an address differ by port, and each port has a subset and a slice of its own.
async fn of_the_api(world: World) -> Result<()> {
    let verbs = ["create", "get", "list", "watch"];
    discovered(&world.api, VERSION, "endpointslices", &verbs).await?;
    let endpoints =
        world.api.get(&world.path_in("default", "v1", "endpoints", "kubernetes")).await?;
    let subsets = endpoints["subsets"].as_array().context("subsets")?;
    let told = reached(subsets, "addresses", "/ip");
    holds("endpoints have addresses", !told.is_empty(), &endpoints)?;
    let slices = world.api.get(&slices_of(&world, "default", "kubernetes")).await?;
    let slices = items(&slices);
    let mirrored = reached(slices, "endpoints", "/addresses/0");
    same("where the servers are", &json!(mirrored), &json!(told))?;
    let is_named = slices.iter().all(|slice| slice["ports"][0]["name"] == "https");
    holds("the port is named https", is_named, &json!(slices))
}

/// Address and port of each endpoint, sorted.
fn reached(groups: &[Value], list: &str, pointer: &str) -> Vec<String> {
    let of = |group: &Value| {
        let port = group["ports"][0]["port"].clone();
        texts(group[list].as_array(), pointer).into_iter().map(move |ip| format!("{ip}:{port}"))
    };
    let mut all: Vec<String> = groups.iter().flat_map(of).collect();
    all.sort();
    all
}

async fn come_and_go(world: World) -> Result<()> {
    world.create("v1", "services", &service("web", "nobody")).await?;
    let endpoints = world.path("v1", "endpoints", "web");
    let slices = slices_of(&world, &world.ns, "web");
    world.wait("there are endpoints", &endpoints, SOON, |_| true).await?;
    let list = world.wait("there is a slice", &slices, SOON, |list| items(list).len() == 1).await?;
    let owner = &items(&list)[0]["metadata"]["ownerReferences"][0];
    same("whose", &json!([owner["kind"], owner["name"]]), &json!(["Service", "web"]))?;
    world.api.delete(&world.path("v1", "services", "web")).await?;
    world.wait_gone(&endpoints, SOON).await?;
    world.wait("no slice is left", &slices, SOON, |list| items(list).is_empty()).await?;
    Ok(())
}

/// Two pods, one Service that takes one and names a port by its name, another that takes both.
async fn of_pods(world: World) -> Result<()> {
    let mut named = service("named", "web");
    named["spec"]["selector"] = json!({"name": "one"});
    named["spec"]["ports"][0]["targetPort"] = json!("at-http");
    world.create("v1", "services", &named).await?;
    world.create("v1", "services", &service("both", "web")).await?;
    for name in ["one", "two"] {
        let mut pod = server_of(&world, name, "web");
        pod["spec"]["containers"][0]["ports"][0]["name"] = json!("at-http");
        world.run(&pod).await?;
    }
    for (service, pods) in [("named", &["one"][..]), ("both", &["one", "two"][..])] {
        endpoints_are(&world, service, pods).await?;
        agree(&world, service, pods).await?;
    }
    Ok(())
}

/// Both kinds say the same of a Service: which pods, where, at which port.
async fn agree(world: &World, service: &str, pods: &[&str]) -> Result<()> {
    let mut addresses = Vec::new();
    for pod in pods {
        let pod = world.api.get(&world.pod_path(pod)).await?;
        addresses.push(text(&pod, "/status/podIP")?.to_owned());
    }
    addresses.sort();
    let endpoints = world.path("v1", "endpoints", service);
    let all_there =
        |now: &Value| texts(now["subsets"][0]["addresses"].as_array(), "/ip") == addresses;
    let endpoints = world.wait("they are in endpoints", &endpoints, SOON, all_there).await?;
    let subset = &endpoints["subsets"][0];
    let of = texts(subset["addresses"].as_array(), "/targetRef/name");
    same("pods in endpoints", &json!(of), &json!(pods))?;
    same("port in endpoints", &subset["ports"][0]["port"], &json!(8080))?;
    let slices = world.api.get(&slices_of(world, &world.ns, service)).await?;
    let slice = items(&slices).first().context("a slice")?;
    let found = texts(slice["endpoints"].as_array(), "/addresses/0");
    same("addresses in the slice", &json!(found), &json!(addresses))?;
    let port = json!([slice["ports"][0]["name"], slice["ports"][0]["port"]]);
    same("port in the slice", &port, &json!(["http", 8080]))?;
    same(
        "managed by",
        &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        &json!("endpointslice-controller.k8s.io"),
    )
}

async fn mirrored(world: World) -> Result<()> {
    let object = json!({
        "metadata": {"name": "custom"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    world.create("v1", "services", &object).await?;
    let subset = |address: &str, port: u16| json!([{"addresses": [{"ip": address}], "ports": [{"name": "http", "port": port}]}]);
    let object = json!({"metadata": {"name": "custom"}, "subsets": subset("10.1.2.3", 80)});
    world.create("v1", "endpoints", &object).await?;
    is_mirrored(&world, "10.1.2.3", 80).await?;
    let path = world.path("v1", "endpoints", "custom");
    world.api.patch(&path, Patch::Merge, &json!({"subsets": subset("10.2.3.4", 8080)})).await?;
    is_mirrored(&world, "10.2.3.4", 8080).await?;
    world.api.delete(&path).await?;
    let slices = slices_of(&world, &world.ns, "custom");
    world.wait("no slice is left", &slices, SOON, |list| items(list).is_empty()).await?;
    Ok(())
}

async fn is_mirrored(world: &World, address: &str, port: u16) -> Result<()> {
    let slices = slices_of(world, &world.ns, "custom");
    let fits = |list: &Value| {
        items(list).len() == 1
            && items(list)[0]["endpoints"][0]["addresses"] == json!([address])
            && items(list)[0]["ports"][0]["port"] == port
    };
    let list = world.wait("it is mirrored", &slices, SOON, fits).await?;
    let labels = &items(&list)[0]["metadata"]["labels"];
    same(
        "managed by",
        &labels["endpointslice.kubernetes.io/managed-by"],
        &json!("endpointslicemirroring-controller.k8s.io"),
    )
}
