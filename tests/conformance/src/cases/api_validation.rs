//! Validation of fields: what is unknown and what is there twice.

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::crds;
use crate::api::Answer;
use crate::cases;
use crate::world::{World, holds, same};

cases! {
    "[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]"
        => no_schema,
    "[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]"
        => valid,
    "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]"
        => extra_properties,
    "[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]"
        => duplicates,
    "[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]"
        => typed,
    "[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]"
        => embedded_metadata,
    "[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]"
        => typed_metadata,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Creates from text, which may say things twice.
async fn post(world: &World, path: &str, how: &str, kind: &str, text: &str) -> Result<Answer> {
    let headers = [("content-type", kind), ("accept", JSON)];
    let path = format!("{path}?fieldValidation={how}");
    world.api.send(Method::POST, &path, &headers, Some(text.as_bytes().to_vec())).await
}

/// It must be refused as a bad request that says all of that.
fn refused_saying(answer: &Answer, all: &[&str]) -> Result<()> {
    let body = answer.json();
    same("the code", &json!(answer.code), &json!(400))?;
    let message = body["message"].as_str().unwrap_or_default();
    holds("it is strict", message.contains("strict decoding error"), &body)?;
    all.iter().try_for_each(|part| holds(part, message.contains(part), &body))
}

/// It must be done with warnings that say all of that.
fn warned_of(answer: &Answer, all: &[&str]) -> Result<()> {
    same("the code", &json!(answer.code), &json!(201))?;
    let warnings: Vec<_> =
        answer.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
    // The text is quoted once more in the header.
    let text = warnings.join("\n").replace("\\\"", "\"");
    all.iter().try_for_each(|part| holds(part, text.contains(part), &json!(warnings)))
}

fn deployment(name: &str, meta: &str, spec: &str, pod_meta: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "{name}"{meta}, "labels": {{"app": "web"}}}},
            "spec": {{{spec} "replicas": 0, "selector": {{"matchLabels": {{"app": "web"}}}},
                "template": {{"metadata": {{{pod_meta} "labels": {{"app": "web"}}}},
                    "spec": {{"containers": [{{"name": "main", "image": "none"}}]}}}}}}}}"#
    )
}

async fn typed(world: World) -> Result<()> {
    let path = world.path("apps/v1", "deployments", "");
    let spec = r#""unknown1": "val1", "unknownDupe": "a", "unknownDupe": "b", "paused": true, "paused": false,"#;
    let all = [
        r#"unknown field "spec.unknown1""#,
        r#"unknown field "spec.unknownDupe""#,
        r#"duplicate field "spec.paused""#,
    ];
    let strict = post(&world, &path, "Strict", JSON, &deployment("a", "", spec, "")).await?;
    refused_saying(&strict, &all)?;
    let warned = post(&world, &path, "Warn", JSON, &deployment("b", "", spec, "")).await?;
    warned_of(&warned, &all)?;
    let ignored = post(&world, &path, "Ignore", JSON, &deployment("c", "", spec, "")).await?;
    same("it is ignored", &json!(ignored.code), &json!(201))?;
    holds("without a word", ignored.headers.get("warning").is_none(), &ignored.json())
}

async fn typed_metadata(world: World) -> Result<()> {
    let path = world.path("apps/v1", "deployments", "");
    let (meta, pod_meta) = (r#", "unknownMeta": "a""#, r#""unknownSubMeta": "b","#);
    let all = [
        r#"unknown field "metadata.unknownMeta""#,
        r#"unknown field "spec.template.metadata.unknownSubMeta""#,
    ];
    let strict = post(&world, &path, "Strict", JSON, &deployment("a", meta, "", pod_meta)).await?;
    refused_saying(&strict, &all)?;
    let warned = post(&world, &path, "Warn", JSON, &deployment("b", meta, "", pod_meta)).await?;
    warned_of(&warned, &all)
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"spec": {
            "type": "object",
            "properties": {
                "foo": {"type": "string"},
                "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["containerPort"],
                    "items": {
                        "type": "object", "required": ["containerPort"],
                        "properties": {
                            "containerPort": {"type": "integer", "format": "int32"},
                            "name": {"type": "string"},
                        },
                    },
                },
            },
        }},
    })
}

/// Defines a kind with a schema; gives the path of its objects and their version.
async fn define(world: &World, schema: &Value) -> Result<(String, String)> {
    let crd = crds::of(world, "jobs", "Job", &[crds::version("v1", schema, true)]);
    crds::establish(world, &crd).await?;
    let version = format!("{}/v1", crds::group(world));
    Ok((world.path(&version, "jobs", ""), version))
}

fn object(version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": version, "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

/// Server-side apply.
async fn apply(world: &World, path: &str, how: &str, object: &Value) -> Result<Answer> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{path}/{name}?fieldManager=conformance&fieldValidation={how}");
    let headers = [("content-type", "application/apply-patch+yaml"), ("accept", JSON)];
    world.api.send(Method::PATCH, &path, &headers, Some(object.to_string().into_bytes())).await
}

fn done(answer: &Answer) -> Result<Value> {
    if matches!(answer.code, 200 | 201) {
        return Ok(answer.json());
    }
    bail!("{}: {}", answer.code, answer.text())
}

async fn created_and_applied(world: &World, path: &str, version: &str, spec: &Value) -> Result<()> {
    let text = object(version, "created", spec).to_string();
    let made = done(&post(world, path, "Strict", JSON, &text).await?)?;
    same("as created", &made["spec"], spec)?;
    let made = done(&apply(world, path, "Strict", &object(version, "applied", spec)).await?)?;
    same("as applied", &made["spec"], spec)?;
    let by_hand = object(version, "by-hand", spec).to_string();
    world.kubectl_with(&["create", "--validate=true", "-f", "-"], &by_hand).await?;
    world.kubectl_with(&["apply", "--validate=true", "-f", "-"], &by_hand).await.map(drop)
}

async fn no_schema(world: World) -> Result<()> {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let (path, version) = define(&world, &open).await?;
    let spec = json!({"unknown1": "val1", "deep": {"more": [{"a": 1}]}});
    created_and_applied(&world, &path, &version, &spec).await
}

async fn valid(world: World) -> Result<()> {
    let (path, version) = define(&world, &schema()).await?;
    let spec = json!({"foo": "foo1", "cronSpec": "* * * * */5", "ports": [{"containerPort": 80, "name": "x"}]});
    created_and_applied(&world, &path, &version, &spec).await
}

async fn extra_properties(world: World) -> Result<()> {
    let (path, version) = define(&world, &schema()).await?;
    let spec = json!({
        "foo": "foo1", "cronSpec": "* * * * */5", "extraProperty": "arbitrary-value",
        "ports": [{"containerPort": 80, "extraPort": 1}],
    });
    let extra = object(&version, "extra", &spec);
    let all =
        [r#"unknown field "spec.extraProperty""#, r#"unknown field "spec.ports[0].extraPort""#];
    let text = extra.to_string();
    refused_saying(&post(&world, &path, "Strict", JSON, &text).await?, &all)?;
    let applied = apply(&world, &path, "Strict", &extra).await?;
    let says = applied.text().contains(".spec.extraProperty: field not declared in schema");
    holds("it cannot be applied", applied.code >= 400 && says, &applied.json())?;
    for verb in ["create", "apply"] {
        let by_hand = world.kubectl_with(&[verb, "--validate=true", "-f", "-"], &text).await;
        let said = by_hand.as_ref().err().map(ToString::to_string).unwrap_or_default();
        holds(verb, said.contains("spec.extraProperty"), &json!(said))?;
    }
    let warned = post(&world, &path, "Warn", JSON, &text).await?;
    warned_of(&warned, &all)?;
    same("it is dropped", &warned.json()["spec"]["extraProperty"], &Value::Null)
}

async fn duplicates(world: World) -> Result<()> {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let (path, version) = define(&world, &open).await?;
    let text = |name: &str| {
        format!(
            r#"{{"apiVersion": "{version}", "kind": "Job", "metadata": {{"name": "{name}"}},
                "spec": {{"unknown1": "a", "foo": "b", "foo": "c", "deep": {{"x": 1, "x": 2}}}}}}"#
        )
    };
    let all = [r#"duplicate field "spec.foo""#, r#"duplicate field "spec.deep.x""#];
    refused_saying(&post(&world, &path, "Strict", JSON, &text("a")).await?, &all)?;
    warned_of(&post(&world, &path, "Warn", JSON, &text("b")).await?, &all)?;
    let yaml = format!(
        "apiVersion: {version}\nkind: Job\nmetadata:\n  name: c\nspec:\n  foo: b\n  foo: c\n"
    );
    let all = [r#"key "foo" already set in map"#];
    refused_saying(&post(&world, &path, "Strict", YAML, &yaml).await?, &all)?;
    // What is only unknown is none of it.
    let once = object(&version, "d", &json!({"unknown1": "a"})).to_string();
    done(&post(&world, &path, "Strict", JSON, &once).await?).map(drop)
}

async fn embedded_metadata(world: World) -> Result<()> {
    let schema = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"spec": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"template": {
                "type": "object",
                "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"metadata": {"type": "object"}},
            }},
        }},
    });
    let (path, version) = define(&world, &schema).await?;
    let mut both = object(&version, "both", &json!({}));
    both["metadata"]["unknownMeta"] = json!("a");
    both["spec"]["template"] = json!({
        "apiVersion": "foo/v1", "kind": "Sub",
        "metadata": {"name": "inner", "unknownSubMeta": "b"},
    });
    let all = [
        r#"unknown field "metadata.unknownMeta""#,
        r#"unknown field "spec.template.metadata.unknownSubMeta""#,
    ];
    refused_saying(&post(&world, &path, "Strict", JSON, &both.to_string()).await?, &all)?;
    warned_of(&post(&world, &path, "Warn", JSON, &both.to_string()).await?, &all)
}
