//! A webhook server and its configurations, for the cases that need some.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::api::code_of;
use crate::serve::{Request, Server};
use crate::world::{World, until};

pub(super) const SOON: Duration = Duration::from_secs(60);
/// Version of configurations.
pub(super) const VERSION: &str = "admissionregistration.k8s.io/v1";
/// Plural of configurations of webhooks that only look.
pub(super) const VALIDATING: &str = "validatingwebhookconfigurations";
/// Plural of configurations of webhooks that change objects.
pub(super) const MUTATING: &str = "mutatingwebhookconfigurations";
/// What marks an object to be denied, as key and value of data or labels.
pub(super) const MARK: (&str, &str) = ("webhook-e2e-test", "webhook-disallow");

/// What a webhook says.
enum Verdict {
    Allow,
    Deny(&'static str),
    Patch(Value),
    /// Allowed, but late.
    Late(Duration),
}

/// Starts a server of webhooks; see [`verdict`] for the paths.
pub(super) async fn start(world: &World) -> Result<Server> {
    Server::start(world, Arc::new(|request| Box::pin(answer(request)))).await
}

async fn answer(request: Request) -> (u16, Value) {
    let asked = &request.body["request"];
    let mut response = json!({"uid": asked["uid"], "allowed": true});
    match verdict(&request.path, asked) {
        Verdict::Allow => {}
        Verdict::Deny(why) => {
            response["allowed"] = json!(false);
            response["status"] = json!({"message": why});
        }
        Verdict::Patch(patch) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64.encode(patch.to_string()));
        }
        Verdict::Late(delay) => tokio::time::sleep(delay).await,
    }
    let version = &request.body["apiVersion"];
    (200, json!({"apiVersion": version, "kind": "AdmissionReview", "response": response}))
}

fn verdict(path: &str, asked: &Value) -> Verdict {
    let object = &asked["object"];
    let labels = &object["metadata"]["labels"];
    match path {
        "/deny" => Verdict::Deny("this webhook denies all requests"),
        "/delay-5s" => Verdict::Late(Duration::from_secs(5)),
        "/pods" if labels["hang"] == "yes" => Verdict::Late(Duration::from_secs(100)),
        "/pods" if labels[MARK.0] == MARK.1 => Verdict::Deny("the pod contains an unwanted label"),
        "/configmaps" if object["data"][MARK.0] == MARK.1 => {
            Verdict::Deny("the configmap contains unwanted key and value")
        }
        // Only what is deleted has no new object.
        "/custom" if marked(object) || (object.is_null() && marked(&asked["oldObject"])) => {
            Verdict::Deny("the custom resource contains unwanted data")
        }
        "/crd" if labels[MARK.0] == MARK.1 => Verdict::Deny("the crd contains an unwanted label"),
        "/attach" => Verdict::Deny("attaching to this pod is not allowed"),
        "/stages" => stage(&object["data"]),
        "/label" => Verdict::Patch(json!([
            {"op": "add", "path": "/metadata/labels/added-by-webhook", "value": "yes"},
        ])),
        "/init-container" => Verdict::Patch(json!([
            {"op": "add", "path": "/spec/initContainers", "value": [
                {"name": "webhook-added", "image": "webhook-added-image"},
            ]},
        ])),
        _ => Verdict::Allow,
    }
}

/// Whether an object's data bear the mark.
fn marked(object: &Value) -> bool {
    object["data"][MARK.0] == MARK.1
}

/// Each stage needs what the one before it adds.
fn stage(data: &Value) -> Verdict {
    let add = |key: &str| {
        Verdict::Patch(json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]))
    };
    if data["mutation-stage-1"] == "yes" {
        add("mutation-stage-2")
    } else if data["mutation-start"] == "yes" {
        add("mutation-stage-1")
    } else {
        Verdict::Allow
    }
}

/// A rule for what is made and changed of a resource.
pub(super) fn rule(group: &str, version: &str, resource: &str, operations: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "apiVersions": [version], "resources": [resource],
        "operations": operations,
    })
}

/// A webhook for the case's namespace, whose calls must succeed.
pub(super) fn webhook(world: &World, server: &Server, path: &str, rule: &Value) -> Value {
    json!({
        "name": format!("{}.conformance.example.com", path.trim_start_matches('/')),
        "clientConfig": server.client_config(path),
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"conformance": world.ns}},
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 20,
    })
}

/// A webhook for objects in no namespace that have the case's label.
pub(super) fn global_webhook(world: &World, server: &Server, path: &str, rule: &Value) -> Value {
    let mut webhook = webhook(world, server, path, rule);
    webhook["namespaceSelector"] = json!({});
    webhook["objectSelector"] = json!({"matchLabels": {"conformance": world.ns}});
    webhook
}

/// A configuration of these webhooks, not yet registered.
pub(super) fn configuration(world: &World, name: &str, webhooks: &[Value]) -> Value {
    json!({"metadata": {"name": world.unique(name)}, "webhooks": webhooks})
}

/// Registers webhooks; gives the configuration's path. They go away with the case.
pub(super) async fn register(world: &World, plural: &str, webhooks: &[Value]) -> Result<String> {
    let configuration = configuration(world, "hooks", webhooks);
    let made = world.create_global(VERSION, plural, &configuration).await?;
    Ok(world.global(VERSION, plural, crate::world::name_of(&made)))
}

/// A config map with these data.
pub(super) fn config_map(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"made-by": "conformance"}}, "data": data,
    })
}

/// Tries to create something, to see what admission says.
pub(super) async fn attempt(
    world: &World,
    version: &str,
    plural: &str,
    object: &Value,
) -> Result<Value> {
    let path = format!("{}?dryRun=All", world.path(version, plural, ""));
    match world.api.create(&path, object).await {
        // Its server has died meanwhile, and a dry run can be had twice.
        Err(error) if code_of(&error).is_none() => world.api.create(&path, object).await,
        other => other,
    }
}

/// Waits until an attempt to create a config map shows what `fits` wants.
pub(super) async fn in_force(
    world: &World,
    object: &Value,
    fits: impl Fn(&Result<Value>) -> bool,
) -> Result<()> {
    until(SOON, || async {
        let result = attempt(world, "v1", "configmaps", object).await;
        if fits(&result) {
            return Ok(());
        }
        anyhow::bail!("not yet in force: {result:?}")
    })
    .await
}
