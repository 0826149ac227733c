//! The way of an object through all verbs, for kinds that are only kept.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::api::{Api, Patch, refused};
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A kind by where it is.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As `apps/v1`.
    pub version: &'static str,
    /// In lower case.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// Path of an object, or of the collection where `name` is empty.
    pub fn path(&self, world: &World, name: &str) -> String {
        if self.namespaced {
            world.path(self.version, self.plural, name)
        } else {
            world.global(self.version, self.plural, name)
        }
    }
}

/// Finds a resource in the discovery documents, from the root on.
pub async fn discovered(api: &Api, version: &str, resource: &str, verbs: &[&str]) -> Result<()> {
    if let Some((group, _)) = version.split_once('/') {
        let groups = api.get("/apis").await?;
        let mut known = groups["groups"].as_array().into_iter().flatten();
        holds("the group is known", known.any(|known| known["name"] == group), &groups)?;
        let one = api.get(&format!("/apis/{group}")).await?;
        let mut known = one["versions"].as_array().into_iter().flatten();
        let is_it = known.any(|known| known["groupVersion"] == version);
        holds("the version is known", is_it, &one)?;
    }
    let root = if version.contains('/') { "apis" } else { "api" };
    let list = api.get(&format!("/{root}/{version}")).await?;
    let mut known = list["resources"].as_array().into_iter().flatten();
    let found = known.find(|known| known["name"] == resource);
    let found = found.with_context(|| format!("{version} has no {resource}"))?;
    let has = |verb: &&str| found["verbs"].as_array().is_some_and(|all| all.contains(&json!(verb)));
    holds("it has the verbs", verbs.iter().all(has), found)
}

/// Takes objects that `make` makes through every verb, and leaves none behind.
pub async fn every_verb(
    world: &World,
    kind: Kind,
    make: impl Fn(&str) -> Value + Send + Sync,
) -> Result<()> {
    discovered(&world.api, kind.version, kind.plural, &VERBS).await?;
    let selector = format!("?labelSelector=lifecycle%3D{}", world.ns);
    let selected = format!("{}{selector}", kind.path(world, ""));
    let result = async {
        let names = ["a", "b", "c"].map(|name| world.unique(name));
        one_by_one(world, kind, &selected, &names, &make).await?;
        world.api.delete(&selected).await?;
        world.wait("none is left", &selected, SOON, |list| items(list).is_empty()).await?;
        Ok(())
    };
    let result = result.await;
    world.api.delete(&selected).await?;
    result
}

async fn one_by_one(
    world: &World,
    kind: Kind,
    selected: &str,
    names: &[String; 3],
    make: impl Fn(&str) -> Value + Send + Sync,
) -> Result<()> {
    let api = &world.api;
    let revision = api.get(selected).await?["metadata"]["resourceVersion"].clone();
    let revision = revision.as_str().context("a list has a revision")?;
    let mut watch = api.watch(&format!("{selected}&resourceVersion={revision}")).await?;
    for name in names {
        let mut object = make(name);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"]["lifecycle"] = json!(world.ns);
        api.create(&kind.path(world, ""), &object).await?;
        watch.expect("ADDED", SOON, |seen| name_of(seen) == name).await?;
    }
    let path = kind.path(world, &names[0]);
    same("name", &api.get(&path).await?["metadata"]["name"], &json!(names[0]))?;
    let everywhere = world.global(kind.version, kind.plural, "");
    for list in [selected.to_owned(), selected.replace(&kind.path(world, ""), &everywhere)] {
        let list = api.get(&list).await?;
        let found: Vec<&str> = items(&list).iter().map(name_of).collect();
        same("listed", &json!(found), &json!(names))?;
    }

    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}});
    let now = api.patch(&path, Patch::Merge, &patch).await?;
    same("patched", &now["metadata"]["annotations"]["patched"], &json!("yes"))?;
    let patched = |seen: &Value| seen["metadata"]["annotations"]["patched"] == "yes";
    watch.expect("MODIFIED", SOON, patched).await?;
    let change = |object: &mut Value| object["metadata"]["annotations"]["updated"] = json!("yes");
    let now = api.update(&path, change).await?;
    same("updated", &now["metadata"]["annotations"]["updated"], &json!("yes"))?;
    let updated = |seen: &Value| seen["metadata"]["annotations"]["updated"] == "yes";
    watch.expect("MODIFIED", SOON, updated).await?;

    api.delete(&path).await?;
    watch.expect("DELETED", SOON, |seen| name_of(seen) == names[0]).await?;
    refused(api.get(&path).await, 404, "NotFound")?;
    let list = api.get(selected).await?;
    let found: Vec<&str> = items(&list).iter().map(name_of).collect();
    same("listed after that", &json!(found), &json!(names[1..]))
}
