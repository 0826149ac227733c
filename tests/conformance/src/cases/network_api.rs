//! Kinds of the network that the API keeps for others.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::services_support::{SOON, service};
use crate::api::{Patch, refused};
use crate::cases;
use crate::lifecycle::{Kind, discovered, every_verb};
use crate::world::{World, holds, items, name_of, same};

cases! {
    "[sig-network] Ingress API should support creating Ingress API operations [Conformance]"
        => ingresses,
    "[sig-network] IngressClass API should support creating IngressClass API operations [Conformance]"
        => ingress_classes,
    "[sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]"
        => slices,
    "[sig-network] Services should complete a service status lifecycle [Conformance]"
        => service_status,
    "[sig-network] Services should test the lifecycle of an Endpoint [Conformance]"
        => endpoints,
}

const INGRESSES: Kind =
    Kind { version: "networking.k8s.io/v1", plural: "ingresses", namespaced: true };

async fn ingresses(world: World) -> Result<()> {
    let spec = json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}});
    every_verb(&world, INGRESSES, |_| json!({"spec": spec})).await?;
    discovered(&world.api, INGRESSES.version, "ingresses/status", &["get", "patch", "update"])
        .await?;
    let object = json!({"metadata": {"name": "status"}, "spec": spec});
    world.api.create(&INGRESSES.path(&world, ""), &object).await?;
    let status = format!("{}/status", INGRESSES.path(&world, "status"));
    let balancer = |address| json!({"loadBalancer": {"ingress": [{"ip": address}]}});
    let patch = json!({"status": balancer("192.0.2.1")});
    let now = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("patched", &now["status"], &balancer("192.0.2.1"))?;
    let change = |object: &mut Value| object["status"] = balancer("192.0.2.2");
    world.api.update(&status, change).await?;
    let now = world.api.get(&INGRESSES.path(&world, "status")).await?;
    same("updated", &now["status"], &balancer("192.0.2.2"))?;
    same("the rest", &now["spec"]["defaultBackend"], &spec["defaultBackend"])
}

async fn ingress_classes(world: World) -> Result<()> {
    let kind = Kind { plural: "ingressclasses", namespaced: false, ..INGRESSES };
    every_verb(&world, kind, |_| json!({"spec": {"controller": "example.com/controller"}})).await
}

async fn slices(world: World) -> Result<()> {
    let kind = Kind { version: "discovery.k8s.io/v1", plural: "endpointslices", namespaced: true };
    every_verb(&world, kind, |_| {
        json!({
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.3"]}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        })
    })
    .await
}

async fn service_status(world: World) -> Result<()> {
    let api = &world.api;
    let path = world.path("v1", "services", "balanced");
    let status = format!("{path}/status");
    let selector = world.path("v1", "services", "?labelSelector=app%3Dweb").replace("/?", "?");
    let mut watch = api.watch(&selector).await?;
    let mut object = service("balanced", "web");
    object["spec"]["type"] = json!("LoadBalancer");
    // Of a class that nobody serves, so that the status is ours.
    object["spec"]["loadBalancerClass"] = json!("conformance.example.com/none");
    world.create("v1", "services", &object).await?;
    watch.expect("ADDED", SOON, |seen| name_of(seen) == "balanced").await?;

    let balancer = json!({"ingress": [{"ip": "203.0.113.1"}]});
    let patch = json!({
        "metadata": {"annotations": {"patched": "yes"}}, "status": {"loadBalancer": balancer},
    });
    api.patch(&status, Patch::Merge, &patch).await?;
    let balanced =
        |seen: &Value| seen["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1";
    let seen = watch.expect("MODIFIED", SOON, balanced).await?;
    same("annotation", &seen["metadata"]["annotations"]["patched"], &json!("yes"))?;
    holds("it is read", balanced(&api.get(&status).await?), &seen)?;

    let condition = json!({
        "type": "Updated", "status": "True", "reason": "c", "message": "d",
        "lastTransitionTime": "2024-01-01T00:00:00Z",
    });
    api.update(&status, |object| object["status"]["conditions"] = json!([condition])).await?;
    let updated = |seen: &Value| seen["status"]["conditions"][0]["type"] == "Updated";
    watch.expect("MODIFIED", SOON, updated).await?;
    let label = json!({"metadata": {"labels": {"patched": "yes"}}});
    api.patch(&path, Patch::Merge, &label).await?;
    let seen = watch
        .expect("MODIFIED", SOON, |seen| seen["metadata"]["labels"]["patched"] == "yes")
        .await?;
    holds("its status stays", balanced(&seen) && updated(&seen), &seen)?;
    api.delete(&path).await?;
    watch.expect("DELETED", SOON, |seen| name_of(seen) == "balanced").await?;
    Ok(())
}

async fn endpoints(world: World) -> Result<()> {
    let api = &world.api;
    let path = world.path("v1", "endpoints", "by-hand");
    let everywhere = format!("/api/v1/endpoints?labelSelector=by%3D{}", world.ns);
    let mut watch = api.watch(&everywhere).await?;
    let subset = |address: &str, port: u16| json!([{"addresses": [{"ip": address}], "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}]);
    let object = json!({
        "metadata": {"name": "by-hand", "labels": {"by": world.ns}},
        "subsets": subset("192.0.2.1", 80),
    });
    world.create("v1", "endpoints", &object).await?;
    watch.expect("ADDED", SOON, |seen| name_of(seen) == "by-hand").await?;
    let list = api.get(&everywhere).await?;
    same("listed over all", &json!(items(&list).len()), &json!(1))?;
    api.update(&path, |object| object["metadata"]["labels"]["updated"] = json!("yes")).await?;
    watch.expect("MODIFIED", SOON, |seen| seen["metadata"]["labels"]["updated"] == "yes").await?;
    let patch = json!({"subsets": subset("192.0.2.2", 8080)});
    api.patch(&path, Patch::Strategic, &patch).await?;
    let fits = |seen: &Value| seen["subsets"] == subset("192.0.2.2", 8080);
    watch.expect("MODIFIED", SOON, fits).await?;
    let found = api.get(&path).await?;
    same("read", &found["subsets"], &subset("192.0.2.2", 8080))?;
    let selected = format!("{}?labelSelector=updated%3Dyes", world.path("v1", "endpoints", ""));
    api.delete(&selected).await?;
    watch.expect("DELETED", SOON, |seen| name_of(seen) == "by-hand").await?;
    refused(api.get(&path).await, 404, "NotFound")?;
    tokio::time::timeout(Duration::from_secs(60), api.get(&selected)).await.context("a list")??;
    Ok(())
}
