//! Watches, and lists in parts.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::Api;
use crate::cases;
use crate::watch::Watch;
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
/// How long nothing must come where nothing may.
const QUIET: Duration = Duration::from_secs(3);

cases! {
    "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]"
        => restart,
    "[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]"
        => from_version,
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]"
        => all_notifications,
    "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]"
        => leaves_selector,
    "[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]"
        => same_order,
    "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]"
        => chunks,
    "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]"
        => compacted_chunks,
}

fn config_map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watched": label}}, "data": {"mutation": "0"}})
}

async fn watch(world: &World, query: &str) -> Result<Watch> {
    world.api.watch(&format!("{}?{query}", world.path("v1", "configmaps", ""))).await
}

async fn create(world: &World, name: &str, label: &str) -> Result<Value> {
    world.create("v1", "configmaps", &config_map(name, label)).await
}

async fn mutate(world: &World, name: &str, mutation: u32) -> Result<Value> {
    let path = world.path("v1", "configmaps", name);
    world.api.update(&path, |map| map["data"]["mutation"] = json!(mutation.to_string())).await
}

async fn remove(world: &World, name: &str) -> Result<Value> {
    world.api.delete(&world.path("v1", "configmaps", name)).await
}

fn version_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// The next event must be this one.
async fn next(watch: &mut Watch, kind: &str, name: &str, mutation: &str) -> Result<Value> {
    let event =
        watch.next(SOON).await.with_context(|| format!("no event; {kind} {name} expected"))?;
    let object = &event["object"];
    let found = json!([event["type"], name_of(object), object["data"]["mutation"]]);
    same("the next event", &found, &json!([kind, name, mutation]))?;
    Ok(event)
}

async fn quiet(watch: &mut Watch) -> Result<()> {
    match watch.next(QUIET).await {
        Some(event) => bail!("nothing was expected, and there came {event}"),
        None => Ok(()),
    }
}

async fn all_notifications(world: World) -> Result<()> {
    let mut a = watch(&world, "labelSelector=watched%3Da").await?;
    let mut b = watch(&world, "labelSelector=watched%3Db").await?;
    let mut both = watch(&world, "labelSelector=watched%20in%20(a,b)").await?;
    create(&world, "first", "a").await?;
    mutate(&world, "first", 1).await?;
    mutate(&world, "first", 2).await?;
    remove(&world, "first").await?;
    for watch in [&mut a, &mut both] {
        next(watch, "ADDED", "first", "0").await?;
        next(watch, "MODIFIED", "first", "1").await?;
        next(watch, "MODIFIED", "first", "2").await?;
        next(watch, "DELETED", "first", "2").await?;
    }
    quiet(&mut b).await?;
    create(&world, "second", "b").await?;
    remove(&world, "second").await?;
    for watch in [&mut b, &mut both] {
        next(watch, "ADDED", "second", "0").await?;
        next(watch, "DELETED", "second", "0").await?;
    }
    quiet(&mut a).await
}

async fn from_version(world: World) -> Result<()> {
    create(&world, "map", "a").await?;
    let first = mutate(&world, "map", 1).await?;
    mutate(&world, "map", 2).await?;
    remove(&world, "map").await?;
    let query = format!("labelSelector=watched%3Da&resourceVersion={}", version_of(&first));
    let mut watch = watch(&world, &query).await?;
    next(&mut watch, "MODIFIED", "map", "2").await?;
    next(&mut watch, "DELETED", "map", "2").await?;
    quiet(&mut watch).await
}

async fn restart(world: World) -> Result<()> {
    let mut before = watch(&world, "labelSelector=watched%3Da").await?;
    create(&world, "map", "a").await?;
    mutate(&world, "map", 1).await?;
    next(&mut before, "ADDED", "map", "0").await?;
    let last = next(&mut before, "MODIFIED", "map", "1").await?;
    drop(before);
    mutate(&world, "map", 2).await?;
    remove(&world, "map").await?;
    let seen = version_of(&last["object"]);
    let mut after =
        watch(&world, &format!("labelSelector=watched%3Da&resourceVersion={seen}")).await?;
    next(&mut after, "MODIFIED", "map", "2").await?;
    next(&mut after, "DELETED", "map", "2").await?;
    quiet(&mut after).await
}

async fn leaves_selector(world: World) -> Result<()> {
    let mut watch = watch(&world, "labelSelector=watched%3Da").await?;
    create(&world, "map", "a").await?;
    mutate(&world, "map", 1).await?;
    next(&mut watch, "ADDED", "map", "0").await?;
    next(&mut watch, "MODIFIED", "map", "1").await?;
    let path = world.path("v1", "configmaps", "map");
    let relabel = async |label: &str| {
        world.api.update(&path, |map| map["metadata"]["labels"]["watched"] = json!(label)).await
    };
    relabel("other").await?;
    let left = watch.next(SOON).await.context("no event for what has left")?;
    same("what leaves the selector", &left["type"], &json!("DELETED"))?;
    mutate(&world, "map", 2).await?;
    quiet(&mut watch).await?;
    relabel("a").await?;
    next(&mut watch, "ADDED", "map", "2").await?;
    mutate(&world, "map", 3).await?;
    next(&mut watch, "MODIFIED", "map", "3").await?;
    remove(&world, "map").await?;
    next(&mut watch, "DELETED", "map", "3").await.map(drop)
}

async fn versions(watch: &mut Watch, count: usize) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = watch.next(SOON).await.with_context(|| format!("no event after {seen:?}"))?;
        seen.push(version_of(&event["object"]).to_owned());
    }
    Ok(seen)
}

/// Creates, changes and removes config maps, `rounds` times; three events each.
async fn produce(world: &World, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        let name = format!("map-{round}");
        create(world, &name, "a").await?;
        mutate(world, &name, 1).await?;
        remove(world, &name).await?;
    }
    Ok(())
}

async fn same_order(world: World) -> Result<()> {
    const ROUNDS: usize = 20;
    let query = |version: &str| format!("labelSelector=watched%3Da&resourceVersion={version}");
    let list = world.api.get(&world.path("v1", "configmaps", "")).await?;
    let start = version_of(&list).to_owned();
    let mut first = watch(&world, &query(&start)).await?;
    let writer = tokio::spawn({
        let world = world.clone();
        async move { produce(&world, ROUNDS).await }
    });
    // A watch from each event on, while more are written.
    let mut others = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..3 * ROUNDS {
        let version = versions(&mut first, 1).await?.remove(0);
        others.push(watch(&world, &query(&version)).await?);
        seen.push(version);
    }
    writer.await??;
    for (number, watch) in others.iter_mut().enumerate() {
        let rest = &seen[number + 1..];
        same("the rest of the events", &json!(versions(watch, rest.len()).await?), &json!(rest))?;
    }
    Ok(())
}

/// Creates forty templates in the case's namespace.
async fn templates(world: &World) -> Result<usize> {
    const COUNT: usize = 40;
    for number in 0..COUNT {
        let object = json!({
            "metadata": {"name": format!("template-{number:04}")},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "main", "image": "none"}]}},
        });
        world.create("v1", "podtemplates", &object).await?;
    }
    Ok(COUNT)
}

async fn page(api: &Api, path: &str, limit: usize, token: &str) -> Result<Value> {
    let token = token.replace('+', "%2B").replace('=', "%3D").replace('/', "%2F");
    let more = if token.is_empty() { String::new() } else { format!("&continue={token}") };
    api.get(&format!("{path}?limit={limit}{more}")).await
}

fn token_of(list: &Value) -> &str {
    list["metadata"]["continue"].as_str().unwrap_or_default()
}

async fn chunks(world: World) -> Result<()> {
    let count = templates(&world).await?;
    let path = world.path("v1", "podtemplates", "");
    for limit in [1, 7, 17, 40] {
        let mut found: Vec<String> = Vec::new();
        let (mut token, mut version) = (String::new(), String::new());
        loop {
            let list = page(&world.api, &path, limit, &token).await?;
            holds(
                "no more than asked for",
                items(&list).len() <= limit,
                &json!(items(&list).len()),
            )?;
            if version.is_empty() {
                version_of(&list).clone_into(&mut version);
            }
            same("the version of each part", &json!(version_of(&list)), &json!(version))?;
            found.extend(items(&list).iter().map(|object| name_of(object).to_owned()));
            let left = &list["metadata"]["remainingItemCount"];
            token_of(&list).clone_into(&mut token);
            if token.is_empty() {
                holds("nothing remains", left.is_null() || *left == 0, left)?;
                break;
            }
            same("what remains", left, &json!(count - found.len()))?;
        }
        let all: Vec<String> = (0..count).map(|number| format!("template-{number:04}")).collect();
        same("what the parts had", &json!(found), &json!(all))?;
    }
    let whole = world.api.get(&path).await?;
    same("the whole list", &json!(items(&whole).len()), &json!(count))
}

/// Waits until what the token stands for is compacted away, and returns the token to go on with.
async fn expired(world: &World, path: &str, token: &str) -> Result<String> {
    loop {
        let token = token.replace('=', "%3D");
        let query = format!("{path}?limit=10&continue={token}");
        let answer = world.api.send(Method::GET, &query, &[], None).await?;
        let body = answer.json();
        match answer.code {
            200 => sleep(Duration::from_secs(5)).await,
            410 => {
                same("the reason", &body["reason"], &json!("Expired"))?;
                holds("it says how to go on", !token_of(&body).is_empty(), &body)?;
                return Ok(token_of(&body).to_owned());
            }
            _ => bail!("{}: {body}", answer.code),
        }
    }
}

async fn compacted_chunks(world: World) -> Result<()> {
    let count = templates(&world).await?;
    let path = world.path("v1", "podtemplates", "");
    let first = page(&world.api, &path, 10, "").await?;
    let token = expired(&world, &path, token_of(&first)).await?;
    let rest = page(&world.api, &path, 0, &token).await?;
    holds("it is of another version", version_of(&rest) != version_of(&first), &rest["metadata"])?;
    same("what is left", &json!(items(&rest).len()), &json!(count - 10))?;
    let next = items(&rest).first().map(name_of);
    same("where it goes on", &json!(next), &json!("template-0010"))
}
