//! What a pod knows of itself as files: the downward API, by itself and within a projected volume.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::volumes_files::mount;
use super::volumes_updates::{awaiting, has_said};
use crate::api::Patch;
use crate::cases;
use crate::world::{World, same};

use Shape::{Plain, Projected};

const FOLLOWS_WITHIN: Duration = Duration::from_secs(200);

cases! {
    "[sig-storage] Downward API volume should provide podname only [NodeConformance] [Conformance]"
        => pod_name(Plain, NO_MODES, "644"),
    "[sig-storage] Downward API volume should set DefaultMode on files [LinuxOnly] [NodeConformance] [Conformance]"
        => pod_name(Plain, DEFAULT_MODE, "400"),
    "[sig-storage] Downward API volume should set mode on item file [LinuxOnly] [NodeConformance] [Conformance]"
        => pod_name(Plain, ITEM_MODE, "400"),
    "[sig-storage] Downward API volume should update labels on modification [NodeConformance] [Conformance]"
        => change_is_seen(Plain, "labels"),
    "[sig-storage] Downward API volume should update annotations on modification [NodeConformance] [Conformance]"
        => change_is_seen(Plain, "annotations"),
    "[sig-storage] Downward API volume should provide container's cpu limit [NodeConformance] [Conformance]"
        => resource(Plain, "limits.cpu", "2"),
    "[sig-storage] Downward API volume should provide container's cpu request [NodeConformance] [Conformance]"
        => resource(Plain, "requests.cpu", "1"),
    "[sig-storage] Downward API volume should provide container's memory limit [NodeConformance] [Conformance]"
        => resource(Plain, "limits.memory", "67108864"),
    "[sig-storage] Downward API volume should provide container's memory request [NodeConformance] [Conformance]"
        => resource(Plain, "requests.memory", "33554432"),
    "[sig-storage] Downward API volume should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance] [Conformance]"
        => allocatable(Plain, "cpu"),
    "[sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance] [Conformance]"
        => allocatable(Plain, "memory"),
    "[sig-storage] Projected downwardAPI should provide podname only [NodeConformance] [Conformance]"
        => pod_name(Projected, NO_MODES, "644"),
    "[sig-storage] Projected downwardAPI should set DefaultMode on files [LinuxOnly] [NodeConformance] [Conformance]"
        => pod_name(Projected, DEFAULT_MODE, "400"),
    "[sig-storage] Projected downwardAPI should set mode on item file [LinuxOnly] [NodeConformance] [Conformance]"
        => pod_name(Projected, ITEM_MODE, "400"),
    "[sig-storage] Projected downwardAPI should update labels on modification [NodeConformance] [Conformance]"
        => change_is_seen(Projected, "labels"),
    "[sig-storage] Projected downwardAPI should update annotations on modification [NodeConformance] [Conformance]"
        => change_is_seen(Projected, "annotations"),
    "[sig-storage] Projected downwardAPI should provide container's cpu limit [NodeConformance] [Conformance]"
        => resource(Projected, "limits.cpu", "2"),
    "[sig-storage] Projected downwardAPI should provide container's cpu request [NodeConformance] [Conformance]"
        => resource(Projected, "requests.cpu", "1"),
    "[sig-storage] Projected downwardAPI should provide container's memory limit [NodeConformance] [Conformance]"
        => resource(Projected, "limits.memory", "67108864"),
    "[sig-storage] Projected downwardAPI should provide container's memory request [NodeConformance] [Conformance]"
        => resource(Projected, "requests.memory", "33554432"),
    "[sig-storage] Projected downwardAPI should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance] [Conformance]"
        => allocatable(Projected, "cpu"),
    "[sig-storage] Projected downwardAPI should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance] [Conformance]"
        => allocatable(Projected, "memory"),
    "[sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance] [Conformance]"
        => all_components,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Plain,
    Projected,
}

/// The default mode, and the item's.
type Modes = [Option<u32>; 2];

const NO_MODES: Modes = [None, None];
const DEFAULT_MODE: Modes = [Some(0o400), None];
const ITEM_MODE: Modes = [None, Some(0o400)];

impl Shape {
    fn volume(self, items: &Value, default_mode: Option<u32>) -> Value {
        let mut source = match self {
            Plain => json!({"items": items}),
            Projected => json!({"sources": [{"downwardAPI": {"items": items}}]}),
        };
        if let Some(mode) = default_mode {
            source["defaultMode"] = json!(mode);
        }
        let field = match self {
            Plain => "downwardAPI",
            Projected => "projected",
        };
        json!({"name": "self", field: source})
    }
}

fn field(path: &str) -> Value {
    json!({"path": "file", "fieldRef": {"fieldPath": path}})
}

async fn pod_name(world: World, shape: Shape, modes: Modes, expected: &str) -> Result<()> {
    let script = "echo $(cat /etc/self/file) $(/bin/busybox stat -L -c %a /etc/self/file)";
    let mut pod = world.shell("knows-itself", script);
    let mut item = field("metadata.name");
    if let Some(mode) = modes[1] {
        item["mode"] = json!(mode);
    }
    mount(&mut pod, shape.volume(&json!([item]), modes[0]), "/etc/self");
    let said = world.output(&pod).await?;
    same("name and mode", &json!(said.trim()), &json!(format!("knows-itself {expected}")))
}

async fn change_is_seen(world: World, shape: Shape, what: &str) -> Result<()> {
    let grep = |text: &str| format!("/bin/busybox grep -qxF '{text}' /etc/self/file");
    let script = awaiting(&[(&grep("one=\"1\""), "first"), (&grep("two=\"2\""), "second")]);
    let mut pod = world.shell("knows-itself", &script);
    pod["metadata"][what]["one"] = json!("1");
    let item = field(&format!("metadata.{what}"));
    mount(&mut pod, shape.volume(&json!([item]), None), "/etc/self");
    world.create("v1", "pods", &pod).await?;
    has_said(&world, "knows-itself", "first", FOLLOWS_WITHIN).await?;
    let change = json!({"metadata": {what: {"two": "2"}}});
    world.api.patch(&world.pod_path("knows-itself"), Patch::Merge, &change).await?;
    has_said(&world, "knows-itself", "second", FOLLOWS_WITHIN).await
}

/// A pod that writes what its file says of that resource of its container.
fn pod_of_resource(world: &World, shape: Shape, resource: &str) -> Value {
    let mut pod = world.shell("knows-itself", "cat /etc/self/file");
    let reference = json!({"containerName": "main", "resource": resource});
    let item = json!({"path": "file", "resourceFieldRef": reference});
    mount(&mut pod, shape.volume(&json!([item]), None), "/etc/self");
    pod
}

async fn resource(world: World, shape: Shape, resource: &str, expected: &str) -> Result<()> {
    let mut pod = pod_of_resource(&world, shape, resource);
    pod["spec"]["containers"][0]["resources"] = json!({
        "requests": {"cpu": "250m", "memory": "32Mi"},
        "limits": {"cpu": "1250m", "memory": "64Mi"},
    });
    let said = world.output(&pod).await?;
    same(resource, &json!(said.trim()), &json!(expected))
}

async fn allocatable(world: World, shape: Shape, resource: &str) -> Result<()> {
    let pod = pod_of_resource(&world, shape, &format!("limits.{resource}"));
    let said = world.output(&pod).await?;
    let pod = world.api.get(&world.pod_path("knows-itself")).await?;
    let node = pod["spec"]["nodeName"].as_str().context("it has run on a node")?;
    let node = world.api.get(&world.global("v1", "nodes", node)).await?;
    let quantity = node["status"]["allocatable"][resource].as_str().context("a quantity")?;
    let expected = rounded_up(quantity).with_context(|| format!("read {quantity}"))?;
    same(resource, &json!(said.trim()), &json!(expected.to_string()))
}

/// A quantity in whole units.
fn rounded_up(quantity: &str) -> Option<u64> {
    let digits = quantity.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let number: u64 = digits.parse().ok()?;
    let unit = &quantity[digits.len()..];
    Some(match unit {
        "" => number,
        "m" => number.div_ceil(1000),
        "k" => number * 1000,
        "Ki" => number << 10,
        "Mi" => number << 20,
        "Gi" => number << 30,
        _ => return None,
    })
}

async fn all_components(world: World) -> Result<()> {
    let map = json!({"metadata": {"name": "map"}, "data": {"data-1": "of the map"}});
    world.create("v1", "configmaps", &map).await?;
    let secret = json!({"metadata": {"name": "secret"}, "stringData": {"data-1": "of the secret"}});
    world.create("v1", "secrets", &secret).await?;
    let script = "cd /etc/all; for file in name map secret; do cat $file; echo; done; \
                  [ $(cat token | /bin/busybox wc -c) -gt 100 ] && echo a token";
    let mut pod = world.shell("knows-all", script);
    let item = |path| json!([{"key": "data-1", "path": path}]);
    let name = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}});
    let volume = json!({"name": "all", "projected": {"sources": [
        {"downwardAPI": {"items": [name]}},
        {"configMap": {"name": "map", "items": item("map")}},
        {"secret": {"name": "secret", "items": item("secret")}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
    ]}});
    mount(&mut pod, volume, "/etc/all");
    let said = world.output(&pod).await?;
    let expected = "knows-all\nof the map\nof the secret\na token";
    same("all of them", &json!(said.trim()), &json!(expected))
}
