//! Custom objects in another version than the stored one, converted by a webhook.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::crds;
use crate::api::Patch;
use crate::cases;
use crate::serve::{Request, Server};
use crate::world::{World, items, same, until};

const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs [Conformance]"
        => mixed_list,
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2 [Conformance]"
        => one,
}

/// In the first version host and port are one text, in the second two.
fn convert(request: &Request) -> (u16, Value) {
    let asked = &request.body["request"];
    let wanted = asked["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = asked["objects"].as_array().map_or(&[][..], Vec::as_slice);
    let converted: Vec<_> = objects.iter().map(|object| converted(object, wanted)).collect();
    let response = json!({
        "uid": asked["uid"], "convertedObjects": converted, "result": {"status": "Success"},
    });
    let version = &request.body["apiVersion"];
    (200, json!({"apiVersion": version, "kind": "ConversionReview", "response": response}))
}

fn converted(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(wanted);
    let Some(fields) = object.as_object_mut() else { return object };
    if wanted.ends_with("/v2") {
        if let Some(both) = fields.remove("hostPort")
            && let Some((host, port)) = both.as_str().and_then(|both| both.split_once(':'))
        {
            fields.insert("host".to_owned(), json!(host));
            fields.insert("port".to_owned(), json!(port));
        }
    } else if let (Some(host), Some(port)) = (fields.remove("host"), fields.remove("port")) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let both = format!("{}:{}", text(&host), text(&port));
        fields.insert("hostPort".to_owned(), json!(both));
    }
    object
}

async fn define(world: &World) -> Result<(Server, Value)> {
    let server =
        Server::start(world, Arc::new(|request| Box::pin(ready(convert(&request))))).await?;
    let text = json!({"type": "string"});
    let first = json!({"type": "object", "properties": {"hostPort": text}});
    let second = json!({"type": "object", "properties": {"host": text, "port": text}});
    let versions = [crds::version("v1", &first, true), crds::version("v2", &second, false)];
    let mut crd = crds::of(world, "places", "Place", &versions);
    crd["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": server.client_config("/convert"),
            "conversionReviewVersions": ["v1"],
        },
    });
    crds::establish(world, &crd).await?;
    Ok((server, crd))
}

/// Path of objects in a version.
fn places(world: &World, version: &str, name: &str) -> String {
    world.path(&format!("{}/{version}", crds::group(world)), "places", name)
}

async fn create(world: &World, version: &str, name: &str, fields: &Value) -> Result<()> {
    let mut object = fields.clone();
    object["apiVersion"] = json!(format!("{}/{version}", crds::group(world)));
    object["kind"] = json!("Place");
    object["metadata"] = json!({"name": name});
    let path = places(world, version, "");
    until(SOON, || world.api.create(&path, &object)).await.map(drop)
}

fn is_second(place: &Value, host: &str, port: &str) -> Result<()> {
    same("host, port", &json!([place["host"], place["port"]]), &json!([host, port]))?;
    same("no field of the first version", &place["hostPort"], &Value::Null)
}

async fn one(world: World) -> Result<()> {
    let (_server, _) = define(&world).await?;
    create(&world, "v1", "one", &json!({"hostPort": "localhost:8080"})).await?;
    let path = places(&world, "v2", "one");
    let read = until(SOON, || world.api.get(&path)).await?;
    let version = format!("{}/v2", crds::group(&world));
    same("its version", &read["apiVersion"], &json!(version))?;
    is_second(&read, "localhost", "8080")?;
    let first = world.api.get(&places(&world, "v1", "one")).await?;
    same("as it was made", &first["hostPort"], &json!("localhost:8080"))
}

async fn mixed_list(world: World) -> Result<()> {
    let (_server, crd) = define(&world).await?;
    create(&world, "v1", "one", &json!({"hostPort": "localhost:8080"})).await?;
    let stored = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let path = crds::path(&world, &crd);
    world.api.patch(&path, Patch::Json, &stored).await?;
    let both = |crd: &Value| crd["status"]["storedVersions"] == json!(["v1", "v2"]);
    world.wait("both versions are stored", &path, SOON, both).await?;
    create(&world, "v2", "two", &json!({"host": "example.com", "port": "80"})).await?;
    let second = world.api.get(&places(&world, "v2", "")).await?;
    same("how many", &json!(items(&second).len()), &json!(2))?;
    is_second(&items(&second)[0], "localhost", "8080")?;
    is_second(&items(&second)[1], "example.com", "80")?;
    let first = world.api.get(&places(&world, "v1", "")).await?;
    let found: Vec<_> = items(&first).iter().map(|place| place["hostPort"].clone()).collect();
    same("in the first version", &json!(found), &json!(["localhost:8080", "example.com:80"]))
}
