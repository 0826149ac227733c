//! Files that follow their ConfigMaps and Secrets while pods use them; objects that nobody may change.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::volumes_files::Source::{self, ConfigMap, ProjectedConfigMap, ProjectedSecret, Secret};
use super::volumes_files::mount;
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, name_of, same};

/// A change may take a node's whole period and the time that its cache lives.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(200);

cases! {
    "[sig-storage] ConfigMap updates should be reflected in volume [NodeConformance] [Conformance]"
        => update_is_seen(ConfigMap),
    "[sig-storage] Projected configMap updates should be reflected in volume [NodeConformance] [Conformance]"
        => update_is_seen(ProjectedConfigMap),
    "[sig-storage] ConfigMap optional updates should be reflected in volume [NodeConformance] [Conformance]"
        => optional_updates_are_seen(ConfigMap),
    "[sig-storage] Projected configMap optional updates should be reflected in volume [NodeConformance] [Conformance]"
        => optional_updates_are_seen(ProjectedConfigMap),
    "[sig-storage] Secrets optional updates should be reflected in volume [NodeConformance] [Conformance]"
        => optional_updates_are_seen(Secret),
    "[sig-storage] Projected secret optional updates should be reflected in volume [NodeConformance] [Conformance]"
        => optional_updates_are_seen(ProjectedSecret),
    "[sig-storage] ConfigMap binary data should be reflected in volume [NodeConformance] [Conformance]"
        => binary_data,
    "[sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]"
        => immutable(ConfigMap),
    "[sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]"
        => immutable(Secret),
}

/// Waits until the container `main` of a pod has written `text`.
pub(super) async fn has_said(world: &World, pod: &str, text: &str, limit: Duration) -> Result<()> {
    let until = std::time::Instant::now() + limit;
    loop {
        let logs = world.logs(pod, "main").await;
        if logs.as_ref().is_ok_and(|logs| logs.contains(text)) {
            return Ok(());
        }
        if std::time::Instant::now() >= until {
            let pod = world.api.get(&world.pod_path(pod)).await?;
            bail!("not said within {limit:?}: {text:?}, but {logs:?}; {}", pod["status"]);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A script that waits until each of `tests` holds, and then writes the word beside it.
pub(super) fn awaiting(tests: &[(&str, &str)]) -> String {
    let steps = tests
        .iter()
        .map(|(test, word)| format!("until {test} 2>/dev/null; do sleep 0.2; done; echo {word}"));
    steps.collect::<Vec<_>>().join("\n")
}

async fn update_is_seen(world: World, source: Source) -> Result<()> {
    let object = source.object("files", &json!({"data-1": "value-1"}));
    world.create("v1", source.plural(), &object).await?;
    let script = awaiting(&[
        ("[ \"$(cat /etc/volume/data-1)\" = value-1 ]", "first"),
        ("[ \"$(cat /etc/volume/data-1)\" = value-2 ]", "second"),
    ]);
    let mut pod = world.shell("reader", &script);
    mount(&mut pod, source.volume("files", "files", &json!({})), "/etc/volume");
    world.create("v1", "pods", &pod).await?;
    has_said(&world, "reader", "first", FOLLOWS_WITHIN).await?;
    let change = source.object("files", &json!({"data-1": "value-2"}));
    let path = world.path("v1", source.plural(), "files");
    world.api.patch(&path, Patch::Merge, &change).await?;
    has_said(&world, "reader", "second", FOLLOWS_WITHIN).await
}

async fn optional_updates_are_seen(world: World, source: Source) -> Result<()> {
    let optional = json!({"optional": true});
    let script = awaiting(&[
        ("[ \"$(cat /etc/removed/data-1)$(cat /etc/changed/data-1)\" = value-1value-1 ]", "there"),
        ("[ ! -e /etc/made/data-1 ]", "missing"),
        ("[ ! -e /etc/removed/data-1 ]", "removed"),
        ("[ \"$(cat /etc/changed/data-3)\" = value-3 ]", "changed"),
        ("[ ! -e /etc/changed/data-1 ]", "without"),
        ("[ \"$(cat /etc/made/data-1)\" = value-1 ]", "made"),
    ]);
    let mut pod = world.shell("reader", &script);
    for name in ["made", "removed", "changed"] {
        mount(&mut pod, source.volume(name, name, &optional), &format!("/etc/{name}"));
        if name != "made" {
            let object = source.object(name, &json!({"data-1": "value-1"}));
            world.create("v1", source.plural(), &object).await?;
        }
    }
    world.create("v1", "pods", &pod).await?;
    has_said(&world, "reader", "missing", FOLLOWS_WITHIN).await?;
    world.api.delete(&world.path("v1", source.plural(), "removed")).await?;
    let mut changed = source.object("changed", &json!({"data-3": "value-3"}));
    changed["data"]["data-1"] = Value::Null;
    let path = world.path("v1", source.plural(), "changed");
    world.api.patch(&path, Patch::Merge, &changed).await?;
    let made = source.object("made", &json!({"data-1": "value-1"}));
    world.create("v1", source.plural(), &made).await?;
    has_said(&world, "reader", "made", FOLLOWS_WITHIN).await
}

async fn binary_data(world: World) -> Result<()> {
    let object = json!({
        "metadata": {"name": "files"},
        "data": {"text": "value-1"},
        "binaryData": {"dump.bin": "3q2+7wAB/w=="},
    });
    world.create("v1", "configmaps", &object).await?;
    let script = "cat /etc/volume/text; echo; /bin/busybox od -An -tx1 /etc/volume/dump.bin";
    let mut pod = world.shell("reader", script);
    mount(&mut pod, ConfigMap.volume("files", "files", &json!({})), "/etc/volume");
    let said = world.output(&pod).await?;
    let words: Vec<&str> = said.split_whitespace().collect();
    same("text and bytes", &json!(words.join(" ")), &json!("value-1 de ad be ef 00 01 ff"))
}

async fn immutable(world: World, source: Source) -> Result<()> {
    let plural = source.plural();
    let object = source.object("still", &json!({"data-1": "value-1"}));
    let made = world.create("v1", plural, &object).await?;
    let path = world.path("v1", plural, name_of(&made));
    let other = source.object("still", &json!({"data-1": "value-2"}));
    world.api.patch(&path, Patch::Merge, &other).await?;
    world.api.patch(&path, Patch::Merge, &json!({"immutable": true})).await?;

    let third = source.object("still", &json!({"data-1": "value-3"}));
    refused(world.api.patch(&path, Patch::Merge, &third).await, 422, "Invalid")?;
    let mutable = json!({"immutable": false});
    refused(world.api.patch(&path, Patch::Merge, &mutable).await, 422, "Invalid")?;
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let now = world.api.patch(&path, Patch::Merge, &labelled).await?;
    same("labels change", &now["metadata"]["labels"]["a"], &json!("b"))?;
    world.api.delete(&path).await?;
    world.wait_gone(&path, Duration::from_secs(60)).await
}
