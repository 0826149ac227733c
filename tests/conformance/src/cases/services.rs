//! Services: what reaches them, what their types promise, and what the API does with them.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::services_support::{
    SOON, client, client_says, endpoints_are, fetch, node_addresses, reached, server_of, servers,
    service, text,
};
use crate::api::Patch;
use crate::cases;
use crate::world::{World, holds, items, name_of, same};

cases! {
    "[sig-network] Services should be able to change the type from ClusterIP to ExternalName [Conformance]"
        => to_external_name("ClusterIP"),
    "[sig-network] Services should be able to change the type from NodePort to ExternalName [Conformance]"
        => to_external_name("NodePort"),
    "[sig-network] Services should be able to change the type from ExternalName to ClusterIP [Conformance]"
        => from_external_name("ClusterIP"),
    "[sig-network] Services should be able to change the type from ExternalName to NodePort [Conformance]"
        => from_external_name("NodePort"),
    "[sig-network] Services should be able to create a functioning NodePort service [Conformance]"
        => node_port_functions,
    "[sig-network] Services should serve a basic endpoint from pods [Conformance]"
        => endpoints_follow_pods,
    "[sig-network] Services should serve multiport endpoints from pods [Conformance]"
        => endpoints_of_two_ports,
    "[sig-network] Services should provide secure master service [Conformance]"
        => secure_master,
    "[sig-network] Services should find a service from listing all namespaces [Conformance]"
        => found_among_all,
    "[sig-network] Services should delete a collection of services [Conformance]"
        => collection_goes,
}

/// Asks each way that a Service of that type promises.
async fn reached_each_way(world: &World, made: &Value, names: &[String]) -> Result<()> {
    reached(world, &format!("{}:80", name_of(made)), names).await?;
    reached(world, &format!("{}:80", text(made, "/spec/clusterIP")?), names).await?;
    if made["spec"]["type"] != "NodePort" {
        return Ok(());
    }
    let Some(port) = made["spec"]["ports"][0]["nodePort"].as_u64() else {
        bail!("no node port: {made}");
    };
    for node in node_addresses(world).await? {
        reached(world, &format!("{node}:{port}"), names).await?;
    }
    Ok(())
}

async fn node_port_functions(world: World) -> Result<()> {
    let mut object = service("web", "web");
    object["spec"]["type"] = json!("NodePort");
    let made = world.create("v1", "services", &object).await?;
    let names = servers(&world, "web", 2).await?;
    client(&world).await?;
    reached_each_way(&world, &made, &names).await
}

async fn to_external_name(world: World, kind: &str) -> Result<()> {
    let mut object = service("changing", "web");
    object["spec"]["type"] = json!(kind);
    let made = world.create("v1", "services", &object).await?;
    text(&made, "/spec/clusterIP")?;
    world.create("v1", "services", &service("target", "web")).await?;
    let names = servers(&world, "web", 1).await?;
    client(&world).await?;
    reached_each_way(&world, &made, &names).await?;

    let target = format!("target.{}.svc.cluster.local", world.ns);
    let path = world.path("v1", "services", "changing");
    let now = world
        .api
        .update(&path, |object| {
            object["spec"]["type"] = json!("ExternalName");
            object["spec"]["externalName"] = json!(target);
        })
        .await?;
    let released =
        now["spec"].get("clusterIP").is_none() && now["spec"]["ports"][0].get("nodePort").is_none();
    holds("address and port are released", released, &now)?;
    let name = format!("changing.{}.svc.cluster.local", world.ns);
    let script = format!("/bin/busybox nslookup -type=cname {name}");
    client_says(&world, "the other name", &script, |said| said.contains(&target)).await?;
    reached(&world, "changing", &names).await
}

async fn from_external_name(world: World, kind: &str) -> Result<()> {
    let object = json!({
        "metadata": {"name": "changing"},
        "spec": {"type": "ExternalName", "externalName": "elsewhere.example.com"},
    });
    let made = world.create("v1", "services", &object).await?;
    holds("it has no address", made["spec"].get("clusterIP").is_none(), &made)?;
    let names = servers(&world, "web", 2).await?;
    client(&world).await?;
    let wanted = service("changing", "web");
    let path = world.path("v1", "services", "changing");
    let now = world
        .api
        .update(&path, |object| {
            object["spec"] = wanted["spec"].clone();
            object["spec"]["type"] = json!(kind);
        })
        .await?;
    same("type", &now["spec"]["type"], &json!(kind))?;
    reached_each_way(&world, &now, &names).await
}

async fn endpoints_follow_pods(world: World) -> Result<()> {
    world.create("v1", "services", &service("web", "web")).await?;
    client(&world).await?;
    endpoints_are(&world, "web", &[]).await?;
    world.run(&server_of(&world, "one", "web")).await?;
    endpoints_are(&world, "web", &["one"]).await?;
    reached(&world, "web", &["one".to_owned()]).await?;
    world.run(&server_of(&world, "two", "web")).await?;
    endpoints_are(&world, "web", &["one", "two"]).await?;
    for name in ["one", "two"] {
        reached(&world, "web", &[name.to_owned()]).await?;
    }
    world.api.delete(&world.pod_path("one")).await?;
    endpoints_are(&world, "web", &["two"]).await?;
    let both = format!("{0}; {0}; {0}; {0}", fetch("web"));
    client_says(&world, "only the second answers", &both, |said| {
        said.split_whitespace().collect::<Vec<_>>() == ["two"; 4]
    })
    .await?;
    world.api.delete(&world.pod_path("two")).await?;
    endpoints_are(&world, "web", &[]).await
}

/// Two ports whose targets are names that only one of the pods has.
async fn endpoints_of_two_ports(world: World) -> Result<()> {
    let mut object = service("web", "web");
    object["spec"]["ports"] = json!([
        {"name": "first", "port": 80, "targetPort": "at-first"},
        {"name": "second", "port": 81, "targetPort": "at-second"},
    ]);
    world.create("v1", "services", &object).await?;
    client(&world).await?;
    for (name, port) in [("first", "at-first"), ("second", "at-second")] {
        let mut pod = server_of(&world, name, "web");
        pod["spec"]["containers"][0]["ports"][0]["name"] = json!(port);
        world.run(&pod).await?;
    }
    endpoints_are(&world, "web", &["first", "second"]).await?;
    reached(&world, "web:80", &["first".to_owned()]).await?;
    reached(&world, "web:81", &["second".to_owned()]).await?;
    world.api.delete(&world.pod_path("first")).await?;
    endpoints_are(&world, "web", &["second"]).await?;
    reached(&world, "web:81", &["second".to_owned()]).await?;
    world.api.delete(&world.pod_path("second")).await?;
    endpoints_are(&world, "web", &[]).await
}

async fn secure_master(world: World) -> Result<()> {
    let service = world.api.get(&world.path_in("default", "v1", "services", "kubernetes")).await?;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut secure = ports.filter(|port| port["name"] == "https" && port["port"] == 443);
    holds("port 443 is named https", secure.next().is_some(), &service)
}

async fn found_among_all(world: World) -> Result<()> {
    let list = world.api.get("/api/v1/services").await?;
    let found = items(&list).iter().any(|service| {
        name_of(service) == "kubernetes" && service["metadata"]["namespace"] == "default"
    });
    holds("kubernetes of default is listed", found, &list)
}

async fn collection_goes(world: World) -> Result<()> {
    for (name, group) in [("one", "go"), ("two", "go"), ("three", "stay")] {
        let mut object = service(name, name);
        object["metadata"]["labels"] = json!({"group": group});
        world.create("v1", "services", &object).await?;
    }
    let path = world.path("v1", "services", "");
    same("how many", &json!(items(&world.api.get(&path).await?).len()), &json!(3))?;
    world.api.delete(&format!("{path}?labelSelector=group%3Dgo")).await?;
    let left = |list: &Value| items(list).iter().map(name_of).collect::<Vec<_>>() == ["three"];
    world.wait("only the other is left", &path, SOON, left).await?;
    let label = json!({"metadata": {"labels": {"group": "go"}}});
    world.api.patch(&world.path("v1", "services", "three"), Patch::Merge, &label).await?;
    world.api.delete(&format!("{path}?labelSelector=group%3Dgo")).await?;
    world.wait("none is left", &path, SOON, |list| items(list).is_empty()).await?;
    Ok(())
}
