//! Definitions of custom resources.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::crds;
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, condition, holds, items, name_of, same, until};

const SOON: Duration = Duration::from_secs(60);

cases! {
    "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]"
        => watch,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]"
        => create_and_delete,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]"
        => status,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]"
        => list,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]"
        => defaulting,
}

/// Objects of a definition, all or one.
fn objects(world: &World, plural: &str, name: &str) -> String {
    world.path(&format!("{}/v1", crds::group(world)), plural, name)
}

fn gadget(world: &World, name: &str) -> Value {
    json!({
        "apiVersion": format!("{}/v1", crds::group(world)), "kind": "Gadget",
        "metadata": {"name": name}, "spec": {"size": 1},
    })
}

async fn create_and_delete(world: World) -> Result<()> {
    let crd = crds::open(&world, "gadgets", "Gadget");
    crds::establish(&world, &crd).await?;
    world.api.create(&objects(&world, "gadgets", ""), &gadget(&world, "one")).await?;
    let path = crds::path(&world, &crd);
    world.api.delete(&path).await?;
    world.wait_gone(&path, SOON).await?;
    let all = objects(&world, "gadgets", "");
    world.wait_gone(&all, SOON).await
}

/// The watch is of a kind's objects, in the order in which they are made.
async fn watch(world: World) -> Result<()> {
    let crd = crds::open(&world, "gadgets", "Gadget");
    crds::establish(&world, &crd).await?;
    let all = objects(&world, "gadgets", "");
    let mut watch = world.api.watch(&all).await?;
    let list = format!(
        "{}?fieldSelector=metadata.name%3D{}",
        world.global(crds::VERSION, crds::PLURAL, ""),
        name_of(&crd),
    );
    let mut definitions = world.api.watch(&list).await?;
    definitions.expect("ADDED", SOON, |seen| name_of(seen) == name_of(&crd)).await?;
    for name in ["a", "b"] {
        world.api.create(&all, &gadget(&world, name)).await?;
        watch.expect("ADDED", SOON, |seen| name_of(seen) == name).await?;
    }
    for name in ["a", "b"] {
        let patch = json!({"spec": {"size": 2}});
        world.api.patch(&objects(&world, "gadgets", name), Patch::Merge, &patch).await?;
        watch
            .expect("MODIFIED", SOON, |seen| name_of(seen) == name && seen["spec"]["size"] == 2)
            .await?;
    }
    for name in ["a", "b"] {
        world.api.delete(&objects(&world, "gadgets", name)).await?;
        watch.expect("DELETED", SOON, |seen| name_of(seen) == name).await?;
    }
    let patch = json!({"metadata": {"labels": {"seen": "yes"}}});
    world.api.patch(&crds::path(&world, &crd), Patch::Merge, &patch).await?;
    let labelled = |seen: &Value| seen["metadata"]["labels"]["seen"] == "yes";
    definitions.expect("MODIFIED", SOON, labelled).await?;
    world.api.delete(&crds::path(&world, &crd)).await?;
    definitions.expect("DELETED", SOON, labelled).await.map(drop)
}

async fn list(world: World) -> Result<()> {
    let label = world.ns.clone();
    for (plural, kind) in [("gadgets", "Gadget"), ("widgets", "Widget"), ("gizmos", "Gizmo")] {
        let mut crd = crds::open(&world, plural, kind);
        crd["metadata"]["labels"] = json!({"case": label});
        crds::establish(&world, &crd).await?;
    }
    let path = world.global(crds::VERSION, crds::PLURAL, "");
    let some = format!("{path}?labelSelector=case%3D{label}");
    let listed = world.api.get(&some).await?;
    same("how many there are", &json!(items(&listed).len()), &json!(3))?;
    world.api.delete(&some).await?;
    world.wait("all are gone", &some, SOON, |list| items(list).is_empty()).await.map(drop)
}

async fn status(world: World) -> Result<()> {
    let crd = crds::open(&world, "gadgets", "Gadget");
    crds::establish(&world, &crd).await?;
    let path = crds::path(&world, &crd);
    let status = format!("{path}/status");
    let read = world.api.get(&status).await?;
    same("its name", &read["metadata"]["name"], &crd["metadata"]["name"])?;
    same("its condition", &json!(condition(&read, "Established")), &json!("True"))?;
    let one = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "E2E", "message": "set by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let updated = world
        .api
        .update(&status, |crd| {
            if let Some(all) = crd["status"]["conditions"].as_array_mut() {
                all.push(one("StatusUpdate"));
            }
        })
        .await?;
    same("as updated", &json!(condition(&updated, "StatusUpdate")), &json!("True"))?;
    let mut all = updated["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.push(one("StatusPatch"));
    let patch = json!({"status": {"conditions": all}, "spec": {"group": "ignored.example.com"}});
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("as patched", &json!(condition(&patched, "StatusPatch")), &json!("True"))?;
    same("the spec", &patched["spec"], &read["spec"])?;
    let read = world.api.get(&path).await?;
    for kind in ["StatusUpdate", "StatusPatch", "Established"] {
        same(kind, &json!(condition(&read, kind)), &json!("True"))?;
    }
    Ok(())
}

async fn defaulting(world: World) -> Result<()> {
    let schema = |properties: Value| json!({"type": "object", "properties": properties});
    let text = json!({"type": "string"});
    let first = schema(json!({"a": {"type": "string", "default": "A"}, "b": text}));
    let crd = crds::of(&world, "gadgets", "Gadget", &[crds::version("v1", &first, true)]);
    crds::establish(&world, &crd).await?;
    let mut object = gadget(&world, "one");
    object["spec"] = Value::Null;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("spec");
    }
    // For requests.
    let made = world.api.create(&objects(&world, "gadgets", ""), &object).await?;
    same("a, defaulted", &made["a"], &json!("A"))?;
    holds("b is not there", made["b"].is_null(), &made)?;
    // From storage: another default, none for the first any more.
    let second = schema(json!({"a": text, "b": {"type": "string", "default": "B"}}));
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": second},
    ]);
    world.api.patch(&crds::path(&world, &crd), Patch::Json, &patch).await?;
    let path = objects(&world, "gadgets", "one");
    world.wait("b is defaulted", &path, SOON, |object| object["b"] == "B").await?;
    let read = world.api.get(&path).await?;
    same("a, as stored", &read["a"], &json!("A"))?;
    object["metadata"]["name"] = json!("two");
    let made = until(SOON, || async {
        let made = world.api.create(&objects(&world, "gadgets", ""), &object).await?;
        world.api.delete(&objects(&world, "gadgets", "two")).await?;
        same("b, defaulted", &made["b"], &json!("B"))?;
        Ok(made)
    })
    .await?;
    holds("a is not defaulted any more", made["a"].is_null(), &made)?;
    refused(world.api.get(&objects(&world, "gadgets", "two")).await, 404, "NotFound").map(drop)
}
