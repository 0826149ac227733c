//! Volumes that begin empty and end with their pod.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::volumes_files::Source::{ConfigMap, Secret};
use super::volumes_files::mount;
use crate::cases;
use crate::world::{World, same};

cases! {
    "[sig-storage] EmptyDir volumes should support (non-root,0644,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "644", ""),
    "[sig-storage] EmptyDir volumes should support (non-root,0644,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "644", "Memory"),
    "[sig-storage] EmptyDir volumes should support (non-root,0666,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "666", ""),
    "[sig-storage] EmptyDir volumes should support (non-root,0666,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "666", "Memory"),
    "[sig-storage] EmptyDir volumes should support (non-root,0777,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "777", ""),
    "[sig-storage] EmptyDir volumes should support (non-root,0777,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(1001, "777", "Memory"),
    "[sig-storage] EmptyDir volumes should support (root,0644,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "644", ""),
    "[sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "644", "Memory"),
    "[sig-storage] EmptyDir volumes should support (root,0666,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "666", ""),
    "[sig-storage] EmptyDir volumes should support (root,0666,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "666", "Memory"),
    "[sig-storage] EmptyDir volumes should support (root,0777,default) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "777", ""),
    "[sig-storage] EmptyDir volumes should support (root,0777,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]"
        => file_keeps_mode(0, "777", "Memory"),
    "[sig-storage] EmptyDir volumes volume on default medium should have the correct mode [LinuxOnly] [NodeConformance] [Conformance]"
        => folder_has_mode(""),
    "[sig-storage] EmptyDir volumes volume on tmpfs should have the correct mode [LinuxOnly] [NodeConformance] [Conformance]"
        => folder_has_mode("Memory"),
    "[sig-storage] EmptyDir volumes pod should support shared volumes between containers [Conformance]"
        => containers_share,
    "[sig-storage] EmptyDir wrapper volumes should not conflict [Conformance]"
        => wrappers_do_not_conflict,
    "[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps [Serial] [Conformance]"
        => many_config_maps,
}

/// Writes what file system is mounted there, where that matters.
const MEDIUM: &str = "/bin/busybox awk '$2 == \"/volume\" {print $3}' /proc/mounts";

fn volume(medium: &str) -> Value {
    json!({"name": "scratch", "emptyDir": {"medium": medium}})
}

/// What the script is to say of the medium: memory is seen, a disk may be of any kind.
fn medium_said(medium: &str, words: &mut Vec<String>) {
    if medium == "Memory" {
        words.push("tmpfs".to_owned());
    }
}

fn script(medium: &str, first: &str) -> String {
    if medium == "Memory" { format!("{first}\n{MEDIUM}") } else { first.to_owned() }
}

async fn file_keeps_mode(world: World, user: u32, mode: &str, medium: &str) -> Result<()> {
    let writes = format!(
        "set -e; umask 0; echo content > /volume/file; /bin/busybox chmod {mode} /volume/file; \
         cat /volume/file; /bin/busybox stat -c '%a %u' /volume/file"
    );
    let mut pod = world.shell("writer", &script(medium, &writes));
    pod["spec"]["securityContext"] = json!({"runAsUser": user});
    mount(&mut pod, volume(medium), "/volume");
    let said = world.output(&pod).await?;
    let mut expected = vec!["content".to_owned(), mode.to_owned(), user.to_string()];
    medium_said(medium, &mut expected);
    let said: Vec<&str> = said.split_whitespace().collect();
    same("content, mode, owner", &json!(said), &json!(expected))
}

async fn folder_has_mode(world: World, medium: &str) -> Result<()> {
    let looks = "/bin/busybox stat -c %a /volume; ls -A /volume";
    let mut pod = world.shell("looker", &script(medium, looks));
    mount(&mut pod, volume(medium), "/volume");
    let said = world.output(&pod).await?;
    let mut expected = vec!["777".to_owned()];
    medium_said(medium, &mut expected);
    let said: Vec<&str> = said.split_whitespace().collect();
    same("mode and what is in it", &json!(said), &json!(expected))
}

async fn containers_share(world: World) -> Result<()> {
    let reads = "until [ -s /volume/from-other ]; do sleep 0.1; done; cat /volume/from-other";
    let mut pod = world.shell("pair", reads);
    mount(&mut pod, volume(""), "/volume");
    let mut other = pod["spec"]["containers"][0].clone();
    other["name"] = json!("other");
    other["command"][2] = json!(
        "sleep 2; echo handed over > /volume/new; /bin/busybox mv /volume/new /volume/from-other"
    );
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(other);
    }
    let said = world.output(&pod).await?;
    same("what was handed over", &json!(said.trim()), &json!("handed over"))
}

async fn wrappers_do_not_conflict(world: World) -> Result<()> {
    let data = json!({"data-1": "value-1"});
    for source in [Secret, ConfigMap] {
        world.create("v1", source.plural(), &source.object("both", &data)).await?;
    }
    let mut pod = world.shell("reader", "cat /etc/secret/data-1 /etc/map/data-1");
    mount(&mut pod, Secret.volume("secret", "both", &json!({})), "/etc/secret");
    mount(&mut pod, ConfigMap.volume("map", "both", &json!({})), "/etc/map");
    let said = world.output(&pod).await?;
    same("what both hold", &json!(said.trim()), &json!("value-1value-1"))
}

/// Five pods of one controller, each with fifty volumes.
async fn many_config_maps(world: World) -> Result<()> {
    let mut pod = world.sleeper("racer");
    for number in 0..50 {
        let name = format!("map-{number}");
        let map = ConfigMap.object(&name, &json!({"data-1": "value-1"}));
        world.create("v1", "configmaps", &map).await?;
        let items = json!({"items": [{"key": "data-1", "path": "data-1"}]});
        mount(&mut pod, ConfigMap.volume(&name, &name, &items), &format!("/etc/config-{number}"));
    }
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    let all_there = "for n in $(seq 0 49); do [ -s /etc/config-$n/data-1 ] || exit 1; done";
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["/bin/sh", "-c", all_there]}, "timeoutSeconds": 10});
    let controller = json!({
        "metadata": {"name": "racers"},
        "spec": {
            "replicas": 5,
            "selector": {"name": "racer"},
            "template": {"metadata": {"labels": {"name": "racer"}}, "spec": spec},
        },
    });
    world.create("v1", "replicationcontrollers", &controller).await?;
    let path = world.path("v1", "replicationcontrollers", "racers");
    let limit = Duration::from_secs(180);
    world.wait("all are ready", &path, limit, |now| now["status"]["readyReplicas"] == 5).await?;
    Ok(())
}
