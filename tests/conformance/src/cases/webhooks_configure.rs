//! Configurations of webhooks: listed, changed, with conditions.

use anyhow::Result;
use serde_json::{Value, json};

use super::hooks::{
    MUTATING, SOON, VALIDATING, VERSION, config_map, configuration, in_force, register, rule,
    start, webhook,
};
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, holds, items, same};

cases! {
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work [Conformance]"
        => list_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work [Conformance]"
        => list_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work [Conformance]"
        => change_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work [Conformance]"
        => change_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook configurations with match conditions [Conformance]"
        => mutating_conditions,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with match conditions [Conformance]"
        => validating_conditions,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions [Conformance]"
        => mutating_invalid,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions [Conformance]"
        => validating_invalid,
}

/// What a webhook of that kind does to a config map: it labels or denies it.
fn done_by(plural: &str) -> (&'static str, fn(&Result<Value>) -> bool) {
    if plural == MUTATING {
        ("/label", |result| {
            result.as_ref().is_ok_and(|map| map["metadata"]["labels"]["added-by-webhook"] == "yes")
        })
    } else {
        ("/deny", |result| {
            result.as_ref().is_err_and(|error| error.to_string().contains("denied the request"))
        })
    }
}

/// An object is let through as it is.
fn untouched(result: &Result<Value>) -> bool {
    result.as_ref().is_ok_and(|map| map["metadata"]["labels"]["added-by-webhook"].is_null())
}

async fn list_mutating(world: World) -> Result<()> {
    listed(&world, MUTATING).await
}

async fn list_validating(world: World) -> Result<()> {
    listed(&world, VALIDATING).await
}

async fn listed(world: &World, plural: &str) -> Result<()> {
    const COUNT: usize = 10;
    let server = start(world).await?;
    let (path, done) = done_by(plural);
    for number in 0..COUNT {
        let hook = webhook(world, &server, path, &rule("", "v1", "configmaps", &["CREATE"]));
        let mut one = configuration(world, &format!("many-{number}"), &[hook]);
        one["metadata"]["labels"] = json!({"case": world.ns});
        world.create_global(VERSION, plural, &one).await?;
    }
    let list = format!("{}?labelSelector=case%3D{}", world.global(VERSION, plural, ""), world.ns);
    let all = world.api.get(&list).await?;
    same("how many there are", &json!(items(&all).len()), &json!(COUNT))?;
    let object = config_map("map", &json!({}));
    in_force(world, &object, done).await?;
    world.api.delete(&list).await?;
    world.wait("all are gone", &list, SOON, |list| items(list).is_empty()).await?;
    in_force(world, &object, untouched).await?;
    world.create("v1", "configmaps", &object).await.map(drop)
}

async fn change_mutating(world: World) -> Result<()> {
    changed(&world, MUTATING).await
}

async fn change_validating(world: World) -> Result<()> {
    changed(&world, VALIDATING).await
}

async fn changed(world: &World, plural: &str) -> Result<()> {
    let server = start(world).await?;
    let (path, done) = done_by(plural);
    let hook = webhook(world, &server, path, &rule("", "v1", "configmaps", &["CREATE"]));
    let configuration = register(world, plural, &[hook]).await?;
    let object = config_map("map", &json!({}));
    in_force(world, &object, done).await?;
    world
        .api
        .update(&configuration, |one| {
            one["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        })
        .await?;
    in_force(world, &object, untouched).await?;
    let patch = json!([
        {"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]},
    ]);
    world.api.patch(&configuration, Patch::Json, &patch).await?;
    in_force(world, &object, done).await
}

async fn mutating_conditions(world: World) -> Result<()> {
    conditions(&world, MUTATING).await
}

async fn validating_conditions(world: World) -> Result<()> {
    conditions(&world, VALIDATING).await
}

fn condition(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

async fn conditions(world: &World, plural: &str) -> Result<()> {
    let server = start(world).await?;
    let (path, done) = done_by(plural);
    let mut hook = webhook(world, &server, path, &rule("", "v1", "configmaps", &["CREATE"]));
    let first = json!([condition("named", "object.metadata.name == 'first'")]);
    hook["matchConditions"] = first.clone();
    let configuration = register(world, plural, &[hook]).await?;
    let read = world.api.get(&configuration).await?;
    same("its conditions", &read["webhooks"][0]["matchConditions"], &first)?;
    let maps = [config_map("first", &json!({})), config_map("second", &json!({}))];
    in_force(world, &maps[0], done).await?;
    in_force(world, &maps[1], untouched).await?;
    let second = json!([
        condition("made", "request.operation == 'CREATE'"),
        condition("named", "object.metadata.name == 'second'"),
    ]);
    world
        .api
        .update(&configuration, |one| one["webhooks"][0]["matchConditions"] = second.clone())
        .await?;
    let read = world.api.get(&configuration).await?;
    same("its new conditions", &read["webhooks"][0]["matchConditions"], &second)?;
    in_force(world, &maps[1], done).await?;
    in_force(world, &maps[0], untouched).await
}

async fn mutating_invalid(world: World) -> Result<()> {
    invalid(&world, MUTATING).await
}

async fn validating_invalid(world: World) -> Result<()> {
    invalid(&world, VALIDATING).await
}

async fn invalid(world: &World, plural: &str) -> Result<()> {
    let server = start(world).await?;
    let rule = rule("", "v1", "configmaps", &["CREATE"]);
    // What an object has at some field may be of any type: only what is no expression is refused.
    for expression in ["... [] bad expression", "undeclared == 1"] {
        let mut hook = webhook(world, &server, "/deny", &rule);
        hook["matchConditions"] = json!([condition("bad", expression)]);
        let one = configuration(world, "invalid", &[hook]);
        world.leftovers.note(world.global(VERSION, plural, &world.unique("invalid")));
        let made = world.api.create(&world.global(VERSION, plural, ""), &one).await;
        let status = refused(made, 422, "Invalid")?;
        let field = &status["details"]["causes"][0]["field"];
        same("the field", field, &json!("webhooks[0].matchConditions[0].expression"))?;
        let message = status["message"].as_str().unwrap_or_default();
        holds("it says what is wrong", message.contains("compilation failed"), &status)?;
    }
    Ok(())
}
