//! Definitions of custom resources, for the cases that need some.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::world::{World, condition, name_of, until};

const SOON: Duration = Duration::from_secs(60);
/// Version of definitions.
pub(super) const VERSION: &str = "apiextensions.k8s.io/v1";
/// Plural of definitions.
pub(super) const PLURAL: &str = "customresourcedefinitions";

/// A group that no other case has.
pub(super) fn group(world: &World) -> String {
    format!("{}.example.com", world.ns)
}

/// A version with a schema, served; one is to be the `stored` one.
pub(super) fn version(name: &str, schema: &Value, stored: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": stored,
        "schema": {"openAPIV3Schema": schema},
    })
}

/// A definition in the case's group.
pub(super) fn of(world: &World, plural: &str, kind: &str, versions: &[Value]) -> Value {
    in_group(&group(world), plural, kind, versions)
}

/// A definition in any group.
pub(super) fn in_group(group: &str, plural: &str, kind: &str, versions: &[Value]) -> Value {
    json!({
        "apiVersion": VERSION, "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {
                "plural": plural, "singular": kind.to_lowercase(),
                "kind": kind, "listKind": format!("{kind}List"),
            },
            "versions": versions,
        },
    })
}

/// A definition whose objects may have any fields.
pub(super) fn open(world: &World, plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    of(world, plural, kind, &[version("v1", &schema, true)])
}

/// Path of a definition.
pub(super) fn path(world: &World, crd: &Value) -> String {
    world.global(VERSION, PLURAL, name_of(crd))
}

/// Creates a definition and waits until its objects can be listed; it goes away with the case.
pub(super) async fn establish(world: &World, crd: &Value) -> Result<Value> {
    world.create_global(VERSION, PLURAL, crd).await?;
    established(world, crd).await
}

/// Waits until a definition is in force.
pub(super) async fn established(world: &World, crd: &Value) -> Result<Value> {
    let made = world
        .wait("the definition is established", &path(world, crd), SOON, |crd| {
            condition(crd, "Established") == Some("True")
        })
        .await?;
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let list = format!(
        "/apis/{}/{}/{}",
        text("/spec/group"),
        text("/spec/versions/0/name"),
        text("/spec/names/plural"),
    );
    until(SOON, || world.api.get(&list)).await?;
    Ok(made)
}
