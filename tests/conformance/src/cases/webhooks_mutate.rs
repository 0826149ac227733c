//! Webhooks that change objects.

use anyhow::Result;
use serde_json::{Value, json};

use super::crds;
use super::hooks::{MUTATING, SOON, attempt, config_map, in_force, register, rule, start, webhook};
use crate::api::Patch;
use crate::cases;
use crate::serve::Server;
use crate::world::{World, holds, same, until};

cases! {
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]"
        => config_maps,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource [Conformance]"
        => custom_resource,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version [Conformance]"
        => other_stored_version,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning [Conformance]"
        => with_pruning,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps [Conformance]"
        => all_but_one,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation [Conformance]"
        => pods,
}

/// Two webhooks, the second of which needs what the first adds.
fn stages(world: &World, server: &Server, rule: &Value) -> [Value; 2] {
    let first = webhook(world, server, "/stages", rule);
    let mut second = first.clone();
    second["name"] = json!("more-stages.conformance.example.com");
    [first, second]
}

fn started() -> Value {
    json!({"mutation-start": "yes"})
}

fn finished() -> Value {
    json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"})
}

fn is_finished(result: &Result<Value>) -> bool {
    result.as_ref().is_ok_and(|object| object["data"] == finished())
}

async fn config_maps(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("", "v1", "configmaps", &["CREATE"]);
    register(&world, MUTATING, &stages(&world, &server, &rule)).await?;
    let object = config_map("map", &started());
    in_force(&world, &object, is_finished).await?;
    let made = world.create("v1", "configmaps", &object).await?;
    same("its data", &made["data"], &finished())?;
    let other = world.create("v1", "configmaps", &config_map("other", &json!({"a": "b"}))).await?;
    same("others' data", &other["data"], &json!({"a": "b"}))
}

async fn pods(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("", "v1", "pods", &["CREATE"]);
    register(&world, MUTATING, &[webhook(&world, &server, "/init-container", &rule)]).await?;
    let mut pod = world.sleeper("changed");
    let made = until(SOON, || async {
        let made = attempt(&world, "v1", "pods", &pod).await?;
        let first = &made["spec"]["initContainers"][0];
        same("what is added", &first["name"], &json!("webhook-added"))?;
        Ok(made)
    });
    made.await?;
    pod["metadata"]["name"] = json!("really-changed");
    let made = world.create("v1", "pods", &pod).await?;
    let added = &made["spec"]["initContainers"][0];
    same("its policy", &added["terminationMessagePolicy"], &json!("File"))?;
    same("its path", &added["terminationMessagePath"], &json!("/dev/termination-log"))?;
    let count = made["spec"]["initContainers"].as_array().map(Vec::len);
    same("how many there are", &json!(count), &json!(1))
}

async fn all_but_one(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("", "v1", "configmaps", &["CREATE"]);
    let mut hooks = stages(&world, &server, &rule);
    for hook in &mut hooks {
        hook["matchConditions"] =
            json!([{"name": "not-that-one", "expression": "object.metadata.name != 'skip-me'"}]);
    }
    register(&world, MUTATING, &hooks).await?;
    let object = config_map("map", &started());
    in_force(&world, &object, is_finished).await?;
    let skipped = world.create("v1", "configmaps", &config_map("skip-me", &started())).await?;
    same("what is skipped", &skipped["data"], &started())?;
    let made = world.create("v1", "configmaps", &object).await?;
    same("what is not", &made["data"], &finished())
}

/// Custom objects of a version of the case's group.
fn version(world: &World, name: &str) -> String {
    format!("{}/{name}", crds::group(world))
}

fn gadget(world: &World, in_version: &str, name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": version(world, in_version), "kind": "Gadget", "metadata": {"name": name},
        "data": data,
    })
}

async fn changes_gadgets(world: &World, server: &Server, operations: &[&str]) -> Result<()> {
    let rule = rule(&crds::group(world), "*", "gadgets", operations);
    register(world, MUTATING, &stages(world, server, &rule)).await?;
    until(SOON, || async {
        let object = gadget(world, "v1", "trial", &started());
        let made = attempt(world, &version(world, "v1"), "gadgets", &object).await?;
        same("the first stage", &made["data"]["mutation-stage-1"], &json!("yes"))
    })
    .await
}

async fn custom_resource(world: World) -> Result<()> {
    let server = start(&world).await?;
    crds::establish(&world, &crds::open(&world, "gadgets", "Gadget")).await?;
    changes_gadgets(&world, &server, &["CREATE"]).await?;
    let object = gadget(&world, "v1", "one", &started());
    let made = world.create(&version(&world, "v1"), "gadgets", &object).await?;
    same("its data", &made["data"], &finished())
}

async fn with_pruning(world: World) -> Result<()> {
    let server = start(&world).await?;
    let text = json!({"type": "string"});
    // The second stage's field is not in the schema.
    let schema = json!({"type": "object", "properties": {"data": {
        "type": "object", "properties": {"mutation-start": text, "mutation-stage-1": text},
    }}});
    let crd = crds::of(&world, "gadgets", "Gadget", &[crds::version("v1", &schema, true)]);
    crds::establish(&world, &crd).await?;
    changes_gadgets(&world, &server, &["CREATE"]).await?;
    let object = gadget(&world, "v1", "one", &started());
    let made = world.create(&version(&world, "v1"), "gadgets", &object).await?;
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    same("its data", &made["data"], &expected)
}

async fn other_stored_version(world: World) -> Result<()> {
    let server = start(&world).await?;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let versions = [crds::version("v1", &open, true), crds::version("v2", &open, false)];
    let crd = crds::of(&world, "gadgets", "Gadget", &versions);
    crds::establish(&world, &crd).await?;
    changes_gadgets(&world, &server, &["CREATE", "UPDATE"]).await?;
    let object = gadget(&world, "v1", "one", &json!({"a": "b"}));
    world.create(&version(&world, "v1"), "gadgets", &object).await?;
    let stored = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let crd_path = crds::path(&world, &crd);
    world.api.patch(&crd_path, Patch::Json, &stored).await?;
    let both = |crd: &Value| crd["status"]["storedVersions"] == json!(["v1", "v2"]);
    world.wait("both versions are stored", &crd_path, SOON, both).await?;
    let path = world.path(&version(&world, "v1"), "gadgets", "one");
    let patch = json!({"data": {"mutation-start": "yes"}});
    let patched = world.api.patch(&path, Patch::Merge, &patch).await?;
    same("it starts", &patched["data"]["mutation-start"], &json!("yes"))?;
    same("it is changed", &patched["data"]["mutation-stage-1"], &json!("yes"))?;
    let read = world.api.get(&world.path(&version(&world, "v2"), "gadgets", "one")).await?;
    holds("it is stored so", read["data"]["mutation-stage-1"] == "yes", &read)?;
    same("its version", &read["apiVersion"], &json!(version(&world, "v2")))
}
