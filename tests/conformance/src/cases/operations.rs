//! Everything that can be done with a kind of objects, in one story.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);

/// A kind that is in no namespace.
pub(super) struct Kind {
    /// As `apps/v1`.
    pub version: &'static str,
    /// In lower case.
    pub plural: &'static str,
    /// A valid object; names and labels come to it.
    pub object: fn() -> Value,
    /// A merge patch of its spec, to be found again.
    pub patch: fn() -> Value,
    /// A condition for its status, where there is one.
    pub condition: Option<fn() -> Value>,
}

/// Discovers, creates, gets, lists, watches, patches, replaces and deletes objects of a kind.
pub(super) async fn all(world: &World, kind: &Kind) -> Result<()> {
    discovered(world, kind).await?;
    let label = world.unique(kind.plural);
    let list =
        format!("{}?labelSelector=case%3D{label}", world.global(kind.version, kind.plural, ""));
    let mut watch = world.api.watch(&list).await?;
    let mut names = Vec::new();
    for number in 0..3 {
        let mut object = (kind.object)();
        object["metadata"] =
            json!({"name": world.unique(&format!("each-{number}")), "labels": {"case": label}});
        let made = world.create_global(kind.version, kind.plural, &object).await?;
        holds("it has a uid", made["metadata"]["uid"].is_string(), &made)?;
        names.push(name_of(&made).to_owned());
    }
    let path = world.global(kind.version, kind.plural, &names[0]);
    let named = |object: &Value| name_of(object) == names[0];
    watch.expect("ADDED", SOON, named).await?;
    let read = world.api.get(&path).await?;
    same("its name", &read["metadata"]["name"], &json!(names[0]))?;
    same("how many there are", &json!(items(&world.api.get(&list).await?).len()), &json!(3))?;
    changed(world, kind, &path).await?;
    let with = |object: &Value, mark: &str| object["metadata"]["annotations"][mark] == "true";
    watch.expect("MODIFIED", SOON, |o| named(o) && with(o, "patched")).await?;
    watch.expect("MODIFIED", SOON, |o| named(o) && with(o, "updated")).await?;
    if let Some(condition) = kind.condition {
        status(world, &path, condition()).await?;
    }
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound")?;
    watch.expect("DELETED", SOON, named).await?;
    same("how many are left", &json!(items(&world.api.get(&list).await?).len()), &json!(2))?;
    world.api.delete(&list).await?;
    world.wait("all are gone", &list, SOON, |list| items(list).is_empty()).await.map(drop)
}

async fn discovered(world: &World, kind: &Kind) -> Result<()> {
    let (group, version) = kind.version.split_once('/').unwrap_or(("", kind.version));
    let groups = world.api.get("/apis").await?;
    let known = groups["groups"].as_array().is_some_and(|all| {
        all.iter().any(|entry| {
            entry["name"] == group
                && entry["versions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|known| known["version"] == version))
        })
    });
    holds("/apis has the version", known, &groups)?;
    let list = world.api.get(&format!("/apis/{}", kind.version)).await?;
    let resources = list["resources"].as_array().map_or(&[][..], Vec::as_slice);
    let mut wanted = vec![kind.plural.to_owned()];
    wanted.extend(kind.condition.map(|_| format!("{}/status", kind.plural)));
    for name in wanted {
        holds(&name, resources.iter().any(|known| known["name"] == name), &list)?;
    }
    Ok(())
}

async fn changed(world: &World, kind: &Kind, path: &str) -> Result<()> {
    let mut patch = (kind.patch)();
    patch["metadata"] = json!({"annotations": {"patched": "true"}});
    let patched = world.api.patch(path, Patch::Merge, &patch).await?;
    same("patched", &patched["metadata"]["annotations"]["patched"], &json!("true"))?;
    holds("its spec is patched", contains(&patched["spec"], &patch["spec"]), &patched)?;
    let updated = world
        .api
        .update(path, |object| object["metadata"]["annotations"]["updated"] = json!("true"))
        .await?;
    same("updated", &updated["metadata"]["annotations"]["updated"], &json!("true"))
}

/// Whether all of a merge patch is in an object.
fn contains(object: &Value, patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => fields.iter().all(|(name, value)| contains(&object[name], value)),
        other => object == other,
    }
}

/// Gets, patches and replaces the status; the spec stays.
async fn status(world: &World, path: &str, condition: Value) -> Result<()> {
    let status = format!("{path}/status");
    let before = world.api.get(&status).await?;
    let kind = condition["type"].clone();
    let find = |object: &Value, kind: &Value| -> Option<Value> {
        let all = object["status"]["conditions"].as_array()?;
        all.iter().find(|known| known["type"] == *kind).cloned()
    };
    let patch = json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"conditions": [condition]},
    });
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    holds("the condition is patched", find(&patched, &kind).is_some(), &patched)?;
    same("the spec", &patched["spec"], &before["spec"])?;
    let updated = world
        .api
        .update(&status, |object| {
            for known in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                if known["type"] == kind {
                    known["message"] = json!("updated");
                }
            }
        })
        .await?;
    let message = find(&updated, &kind).map(|known| known["message"].clone());
    same("the condition is updated", &json!(message), &json!("updated"))
}
