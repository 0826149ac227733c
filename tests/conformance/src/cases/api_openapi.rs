//! Custom resources in the published OpenAPI, and what kubectl makes of it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::crds;
use crate::api::Patch;
use crate::cases;
use crate::world::{World, holds, same, until};

const SOON: Duration = Duration::from_secs(90);

cases! {
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]"
        => not_served,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]"
        => renamed,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]"
        => open_root,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]"
        => open_part,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]"
        => with_schema,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]"
        => without_schema,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]"
        => groups,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]"
        => kinds,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]"
        => versions,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Foo CRD for Testing",
        "properties": {
            "spec": {
                "type": "object", "description": "Specification of Foo",
                "properties": {"bars": {
                    "type": "array", "description": "List of Bars and their specs.",
                    "items": {
                        "type": "object", "required": ["name"],
                        "properties": {
                            "name": {"type": "string", "description": "Name of Bar."},
                            "age": {"type": "string", "description": "Age of Bar."},
                            "bazs": {
                                "type": "array", "description": "List of Bazs.",
                                "items": {"type": "string"},
                            },
                        },
                    },
                }},
            },
            "status": {
                "type": "object", "description": "Status of Foo",
                "properties": {"available": {"type": "boolean"}},
            },
        },
    })
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The definition of a kind in the document of version 2, as it is published now.
async fn published(world: &World, group: &str, version: &str, kind: &str) -> Result<Value> {
    let document = world.api.get("/openapi/v2").await?;
    let definitions = document["definitions"].as_object().context("it has definitions")?;
    let wanted = json!([{"group": group, "kind": kind, "version": version}]);
    let found = definitions
        .values()
        .find(|known| known["x-kubernetes-group-version-kind"] == wanted)
        .with_context(|| format!("{group}/{version} {kind} is not published"))?;
    Ok(found.clone())
}

async fn appears(world: &World, group: &str, version: &str, kind: &str) -> Result<Value> {
    let found = until(SOON, || published(world, group, version, kind)).await?;
    until(SOON, || third(world, group, version, kind)).await?;
    Ok(found)
}

/// The same in the document of version 3.
async fn third(world: &World, group: &str, version: &str, kind: &str) -> Result<Value> {
    let document = world.api.get(&format!("/openapi/v3/apis/{group}/{version}")).await?;
    let schemas = document["components"]["schemas"].as_object().context("it has schemas")?;
    let wanted = json!([{"group": group, "kind": kind, "version": version}]);
    let found = schemas.values().find(|known| known["x-kubernetes-group-version-kind"] == wanted);
    found.cloned().with_context(|| format!("{group}/{version} {kind} is not in version 3"))
}

async fn disappears(world: &World, group: &str, version: &str, kind: &str) -> Result<()> {
    until(SOON, || async {
        if published(world, group, version, kind).await.is_ok() {
            bail!("{version} is still published")
        }
        if third(world, group, version, kind).await.is_ok() {
            bail!("{version} is still published in version 3")
        }
        Ok(())
    })
    .await
}

async fn define(world: &World, schema: &Value) -> Result<String> {
    let crd = crds::of(world, "foos", "Foo", &[crds::version("v1", schema, true)]);
    crds::establish(world, &crd).await?;
    let group = crds::group(world);
    appears(world, &group, "v1", "Foo").await?;
    Ok(group)
}

fn foo(group: &str, name: &str, fields: &Value) -> String {
    let mut object = fields.clone();
    object["apiVersion"] = json!(format!("{group}/v1"));
    object["kind"] = json!("Foo");
    object["metadata"] = json!({"name": name});
    object.to_string()
}

/// kubectl creates, applies and deletes it.
async fn accepted(world: &World, group: &str, fields: &Value) -> Result<()> {
    let text = foo(group, "good", fields);
    world.kubectl_with(&["create", "--validate=true", "-f", "-"], &text).await?;
    world.kubectl(&["delete", &format!("foos.{group}"), "good"]).await?;
    world.kubectl_with(&["apply", "--validate=true", "-f", "-"], &text).await?;
    world.kubectl(&["delete", &format!("foos.{group}"), "good"]).await.map(drop)
}

/// kubectl neither creates nor applies it, and says that.
async fn rejected(world: &World, group: &str, fields: &Value, words: &str) -> Result<()> {
    let text = foo(group, "bad", fields);
    for verb in ["create", "apply"] {
        let done = world.kubectl_with(&[verb, "--validate=true", "-f", "-"], &text).await;
        let said = done.map_or_else(|error| format!("{error:#}"), |said| format!("done: {said}"));
        holds(verb, !said.starts_with("done") && said.contains(words), &json!(said))?;
    }
    Ok(())
}

/// kubectl explains it with these words.
async fn explained(world: &World, what: &str, words: &[&str]) -> Result<()> {
    until(SOON, || async {
        let said = world.kubectl(&["explain", what]).await?;
        let squeezed = said.split_whitespace().collect::<Vec<_>>().join(" ");
        words.iter().try_for_each(|part| holds(part, squeezed.contains(part), &json!(said)))
    })
    .await
}

async fn with_schema(world: World) -> Result<()> {
    let group = define(&world, &schema()).await?;
    let good = json!({"spec": {"bars": [{"name": "a", "age": "10", "bazs": ["x"]}]}});
    accepted(&world, &group, &good).await?;
    let unknown = json!({"spec": {"foo": true}});
    rejected(&world, &group, &unknown, r#"unknown field "spec.foo""#).await?;
    let missing = json!({"spec": {"bars": [{"age": "10"}]}});
    rejected(&world, &group, &missing, "spec.bars[0].name").await?;
    let foos = format!("foos.{group}");
    explained(&world, &foos, &["KIND: Foo", "VERSION: v1", "Foo CRD for Testing"]).await?;
    let words = ["Specification of Foo", "List of Bars and their specs"];
    explained(&world, &format!("{foos}.spec"), &words).await?;
    let words = ["Name of Bar", "Age of Bar", "List of Bazs", "-required-"];
    explained(&world, &format!("{foos}.spec.bars"), &words).await?;
    let wrong = world.kubectl(&["explain", &format!("{foos}.spec.bars2")]).await;
    let said = wrong.map_or_else(|error| format!("{error:#}"), |said| format!("done: {said}"));
    holds("what there is not", said.contains(r#"field "bars2" does not exist"#), &json!(said))
}

async fn without_schema(world: World) -> Result<()> {
    // In this version of definitions every one has a schema; this says nothing.
    let group = define(&world, &open()).await?;
    accepted(&world, &group, &json!({"a": 1, "b": {"c": [true]}})).await?;
    let words = ["KIND: Foo", "DESCRIPTION: <empty>"];
    explained(&world, &format!("foos.{group}"), &words).await
}

async fn open_root(world: World) -> Result<()> {
    let mut schema = schema();
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let group = define(&world, &schema).await?;
    accepted(&world, &group, &json!({"x": {"y": "z"}, "spec": {"bars": []}})).await?;
    explained(&world, &format!("foos.{group}"), &["KIND: Foo", "Foo CRD for Testing"]).await
}

async fn open_part(world: World) -> Result<()> {
    let mut schema = schema();
    schema["properties"]["spec"] = json!({
        "type": "object", "description": "Specification of Foo",
        "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true,
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}},
    });
    let group = define(&world, &schema).await?;
    let fields = json!({"spec": {
        "apiVersion": "v1", "kind": "Inner", "metadata": {"name": "inner"}, "any": {"thing": 1},
    }});
    accepted(&world, &group, &fields).await?;
    let words = ["KIND: Foo", "Specification of Foo", "Status of Foo"];
    explained(&world, &format!("foos.{group}"), &words).await
}

async fn groups(world: World) -> Result<()> {
    let names = ["first", "second"].map(|name| format!("{name}-{}.example.com", world.ns));
    for group in &names {
        let versions = [crds::version("v1", &schema(), true)];
        crds::establish(&world, &crds::in_group(group, "foos", "Foo", &versions)).await?;
    }
    for group in &names {
        has_schema(&appears(&world, group, "v1", "Foo").await?)?;
    }
    Ok(())
}

fn has_schema(found: &Value) -> Result<()> {
    let expected = "Foo CRD for Testing";
    same("its description", &found["description"], &json!(expected))?;
    let age = &found["properties"]["spec"]["properties"]["bars"]["items"]["properties"]["age"];
    same("a field's type", &age["type"], &json!("string"))?;
    let metadata = &found["properties"]["metadata"];
    holds("it has metadata", metadata.is_object(), found)
}

async fn kinds(world: World) -> Result<()> {
    let version = [crds::version("v1", &schema(), true)];
    crds::establish(&world, &crds::of(&world, "foos", "Foo", &version)).await?;
    crds::establish(&world, &crds::of(&world, "bars", "Bar", &version)).await?;
    let group = crds::group(&world);
    for kind in ["Foo", "Bar"] {
        has_schema(&appears(&world, &group, "v1", kind).await?)?;
    }
    Ok(())
}

async fn two_versions(world: &World) -> Result<Value> {
    let versions = [crds::version("v1", &schema(), true), crds::version("v2", &schema(), false)];
    let crd = crds::of(world, "foos", "Foo", &versions);
    crds::establish(world, &crd).await?;
    for version in ["v1", "v2"] {
        has_schema(&appears(world, &crds::group(world), version, "Foo").await?)?;
    }
    Ok(crd)
}

async fn versions(world: World) -> Result<()> {
    two_versions(&world).await?;
    // Two definitions may have a version each, too.
    let version = [crds::version("v3", &schema(), true)];
    crds::establish(&world, &crds::of(&world, "bars", "Bar", &version)).await?;
    has_schema(&appears(&world, &crds::group(&world), "v3", "Bar").await?)
}

async fn renamed(world: World) -> Result<()> {
    let crd = two_versions(&world).await?;
    let patch = json!([
        {"op": "test", "path": "/spec/versions/1/name", "value": "v2"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"},
    ]);
    world.api.patch(&crds::path(&world, &crd), Patch::Json, &patch).await?;
    let group = crds::group(&world);
    has_schema(&appears(&world, &group, "v4", "Foo").await?)?;
    disappears(&world, &group, "v2", "Foo").await?;
    has_schema(&published(&world, &group, "v1", "Foo").await?)
}

async fn not_served(world: World) -> Result<()> {
    let crd = two_versions(&world).await?;
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    world.api.patch(&crds::path(&world, &crd), Patch::Json, &patch).await?;
    let group = crds::group(&world);
    disappears(&world, &group, "v2", "Foo").await?;
    has_schema(&published(&world, &group, "v1", "Foo").await?)
}
