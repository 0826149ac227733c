//! A part of a volume whose files are renewed as a whole, mounted by `subPath`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::volumes_files::Source::{ConfigMap, ProjectedConfigMap, Secret};
use super::volumes_files::mount;
use super::volumes_updates::has_said;
use crate::api::Patch;
use crate::cases;
use crate::world::{World, same};

const SOON: Duration = Duration::from_secs(90);

cases! {
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod [Conformance]"
        => subpath("configmap"),
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with secret pod [Conformance]"
        => subpath("secret"),
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with projected pod [Conformance]"
        => subpath("projected"),
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with downward pod [Conformance]"
        => subpath("downward"),
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file [Conformance]"
        => over_existing_file,
}

/// A volume of that kind whose file `folder/file` says `first`, and what changes it.
async fn volume_of(world: &World, kind: &str) -> Result<Value> {
    let items = json!({"items": [{"key": "data", "path": "folder/file"}]});
    let source = match kind {
        "secret" => Secret,
        "projected" => ProjectedConfigMap,
        "configmap" => ConfigMap,
        _ => {
            let label = json!({"fieldPath": "metadata.labels['says']"});
            let items = json!([{"path": "folder/file", "fieldRef": label}]);
            return Ok(json!({"name": "source", "downwardAPI": {"items": items}}));
        }
    };
    let object = source.object("source", &json!({"data": "first"}));
    world.create("v1", source.plural(), &object).await?;
    Ok(source.volume("source", "source", &items))
}

async fn change(world: &World, kind: &str) -> Result<()> {
    let (path, patch) = match kind {
        "downward" => {
            (world.pod_path("reader"), json!({"metadata": {"labels": {"says": "second"}}}))
        }
        "secret" => {
            (world.path("v1", "secrets", "source"), json!({"stringData": {"data": "second"}}))
        }
        _ => (world.path("v1", "configmaps", "source"), json!({"data": {"data": "second"}})),
    };
    world.api.patch(&path, Patch::Merge, &patch).await?;
    Ok(())
}

/// One container sees a file of the volume alone, the other the whole; the volume's files are renewed
/// while both read: the file stays readable and as it was, for it is mounted itself.
async fn subpath(world: World, kind: &str) -> Result<()> {
    let volume = volume_of(&world, kind).await?;
    let reads = "set -e; [ -f /part ]; cat /part; echo; cat /whole/folder/file; echo
        until [ \"$(cat /whole/folder/file)\" = second ]; do cat /part > /dev/null; sleep 0.1; done
        for n in $(seq 20); do cat /part > /dev/null; done; cat /part; echo; echo renewed";
    let mut pod = world.shell("reader", reads);
    pod["metadata"]["labels"]["says"] = json!("first");
    mount(&mut pod, volume, "/whole");
    let part = json!({"name": "source", "mountPath": "/part", "subPath": "folder/file"});
    if let Some(mounts) = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut() {
        mounts.push(part);
    }
    world.create("v1", "pods", &pod).await?;
    has_said(&world, "reader", "first\nfirst", SOON).await?;
    change(&world, kind).await?;
    has_said(&world, "reader", "renewed", Duration::from_secs(200)).await?;
    let ended = world.ended("reader").await?;
    same("phase", &ended["status"]["phase"], &json!("Succeeded"))?;
    let said = world.logs("reader", "main").await?;
    same("what was read", &json!(said.trim()), &json!("first\nfirst\nfirst\nrenewed"))
}

async fn over_existing_file(world: World) -> Result<()> {
    let volume = volume_of(&world, "configmap").await?;
    let mut pod = world.shell("reader", "cat /etc/resolv.conf; echo; ls -d /etc/passwd");
    mount(&mut pod, volume, "/etc/resolv.conf");
    pod["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = json!("folder/file");
    let said = world.output(&pod).await?;
    same("the file", &json!(said.trim()), &json!("first\n/etc/passwd"))
}
