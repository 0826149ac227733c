//! Admission policies.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::api::{code_of, refused};
use crate::cases;
use crate::world::{World, holds, until};

const SOON: Duration = Duration::from_secs(60);
const VERSION: &str = "admissionregistration.k8s.io/v1";

cases! {
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]"
        => variables,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]"
        => deployments,
}

/// Puts a policy about Deployments of the case's namespace in force.
async fn enforce(world: &World, spec: &Value) -> Result<()> {
    let selector = json!({"matchLabels": {"conformance": world.ns}});
    let name = world.unique("policy");
    let mut policy = json!({
        "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": spec,
    });
    policy["spec"]["matchConstraints"] = json!({
        "namespaceSelector": selector,
        "resourceRules": [{
            "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
            "operations": ["CREATE", "UPDATE"],
        }],
    });
    world.create_global(VERSION, "validatingadmissionpolicies", &policy).await?;
    let binding = json!({
        "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        },
    });
    world.create_global(VERSION, "validatingadmissionpolicybindings", &binding).await?;
    // One that it denies shows that it is in force.
    until(SOON, || async {
        match try_out(world, "deployments", "Deployment", 1).await {
            Err(error) if code_of(&error) == Some(422) => Ok(()),
            other => bail!("not denied yet: {other:?}"),
        }
    })
    .await
}

/// What comes of creating a workload.
async fn try_out(world: &World, plural: &str, kind: &str, replicas: u32) -> Result<Value> {
    let object = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": "tried", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    });
    let path = format!("{}?dryRun=All", world.path("apps/v1", plural, ""));
    world.api.create(&path, &object).await
}

async fn expect(world: &World, message: &str) -> Result<()> {
    let denied = try_out(world, "deployments", "Deployment", 1).await;
    let status = refused(denied, 422, "Invalid")?;
    let said = status["message"].as_str().unwrap_or_default();
    holds("it says why", said.contains(message), &status)?;
    try_out(world, "deployments", "Deployment", 2).await?;
    // Other kinds are none of its business.
    try_out(world, "replicasets", "ReplicaSet", 1).await.map(drop)
}

async fn deployments(world: World) -> Result<()> {
    let spec = json!({"validations": [{
        "expression": "object.spec.replicas > 1",
        "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)",
    }]});
    enforce(&world, &spec).await?;
    expect(&world, "wants replicas > 1, got 1").await
}

async fn variables(world: World) -> Result<()> {
    let spec = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1", "message": "more than one, please"},
            {"expression": "!variables.oddReplicas", "message": "no odd numbers, please"},
        ],
    });
    enforce(&world, &spec).await?;
    expect(&world, "more than one, please").await?;
    let odd = refused(try_out(&world, "deployments", "Deployment", 3).await, 422, "Invalid")?;
    let said = odd["message"].as_str().unwrap_or_default();
    holds("it says why", said.contains("no odd numbers, please"), &odd)
}
