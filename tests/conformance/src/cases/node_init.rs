//! Containers that run before the others, and those that join later.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::pods::container;
use crate::world::{POD_WITHIN, World, condition, holds, same};

cases! {
    "[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod [Conformance]"
        => init_always,
    "[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod [Conformance]"
        => init_never,
    "[sig-node] InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod [Conformance]"
        => failing_never,
    "[sig-node] InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod [Conformance]"
        => failing_always,
    "[sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod [Conformance]"
        => ephemeral,
    "[sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod [Conformance]"
        => more_ephemeral,
}

/// A pod with two init containers that run these scripts.
fn with_init(world: &World, policy: &str, script: &str, first: &str, second: &str) -> Value {
    let mut pod = world.shell("init", script);
    pod["spec"]["restartPolicy"] = json!(policy);
    let init = |name: &str, script: &str| json!({"name": name, "image": world.image, "command": ["/bin/sh", "-c", script]});
    pod["spec"]["initContainers"] = json!([init("init1", first), init("init2", second)]);
    pod
}

/// Both have run once, one after the other, and before the container.
fn initialized(pod: &Value) -> Result<()> {
    same("Initialized", &json!(condition(pod, "Initialized")), &json!("True"))?;
    let mut before = String::new();
    for name in ["init1", "init2"] {
        let status = container(pod, name);
        same("exit code", &status["state"]["terminated"]["exitCode"], &json!(0))?;
        same("ready", &status["ready"], &json!(true))?;
        same("restarts", &status["restartCount"], &json!(0))?;
        let started = status["state"]["terminated"]["startedAt"].as_str().unwrap_or_default();
        holds("in order", *started >= *before, status)?;
        started.clone_into(&mut before);
    }
    Ok(())
}

const WAIT: &str = "sleep 100000";

async fn init_always(world: World) -> Result<()> {
    let pod = with_init(&world, "Always", WAIT, "exit 0", "exit 0");
    let pod = world.run(&pod).await?;
    same("phase", &pod["status"]["phase"], &json!("Running"))?;
    initialized(&pod)?;
    holds("running", !container(&pod, "main")["state"]["running"].is_null(), &pod["status"])
}

async fn init_never(world: World) -> Result<()> {
    let pod = with_init(&world, "Never", "exit 0", "exit 0", "exit 0");
    world.create("v1", "pods", &pod).await?;
    let pod = world.ended("init").await?;
    same("phase", &pod["status"]["phase"], &json!("Succeeded"))?;
    initialized(&pod)?;
    let main = container(&pod, "main");
    same("exit code", &main["state"]["terminated"]["exitCode"], &json!(0))?;
    same("restarts", &main["restartCount"], &json!(0))
}

/// The container was never started, and says why.
fn not_started(pod: &Value) -> Result<()> {
    let main = container(pod, "main");
    same("why it waits", &main["state"]["waiting"]["reason"], &json!("PodInitializing"))?;
    same("restarts", &main["restartCount"], &json!(0))?;
    same("Initialized", &json!(condition(pod, "Initialized")), &json!("False"))
}

async fn failing_never(world: World) -> Result<()> {
    let pod = with_init(&world, "Never", "exit 0", "exit 0", "exit 1");
    world.create("v1", "pods", &pod).await?;
    let pod = world.ended("init").await?;
    same("phase", &pod["status"]["phase"], &json!("Failed"))?;
    not_started(&pod)?;
    let (first, second) = (container(&pod, "init1"), container(&pod, "init2"));
    same("init1", &first["state"]["terminated"]["exitCode"], &json!(0))?;
    same("init2", &second["state"]["terminated"]["exitCode"], &json!(1))
}

async fn failing_always(world: World) -> Result<()> {
    let pod = with_init(&world, "Always", WAIT, "exit 1", "exit 0");
    world.create("v1", "pods", &pod).await?;
    let path = world.pod_path("init");
    let tried = |pod: &Value| container(pod, "init1")["restartCount"].as_u64() >= Some(3);
    let pod = world.wait("three more tries", &path, 3 * POD_WITHIN, tried).await?;
    same("phase", &pod["status"]["phase"], &json!("Pending"))?;
    let second = container(&pod, "init2");
    holds("init2 waits", !second["state"]["waiting"].is_null(), second)?;
    not_started(&pod)
}

/// An ephemeral container that says a word and waits.
fn joining(world: &World, name: &str) -> Value {
    let script = format!("echo polo-{name}; sleep 100000");
    json!({"name": name, "image": world.image, "command": ["/bin/sh", "-c", script]})
}

async fn ephemeral(world: World) -> Result<()> {
    world.run(&world.sleeper("host")).await?;
    let path = format!("{}/ephemeralcontainers", world.pod_path("host"));
    let patch = json!({"spec": {"ephemeralContainers": [joining(&world, "debugger")]}});
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("name", &patched["spec"]["ephemeralContainers"][0]["name"], &json!("debugger"))?;
    let pod = world.reaches("host", "debugger", "running").await?;
    same("main is left alone", &container(&pod, "main")["restartCount"], &json!(0))?;
    world.wait_logs("host", "debugger", "polo", |said| said.contains("polo-debugger")).await?;
    let said =
        world.kubectl(&["exec", "host", "-c", "debugger", "--", "/bin/echo", "marco"]).await?;
    same("exec", &json!(said.trim()), &json!("marco"))
}

async fn more_ephemeral(world: World) -> Result<()> {
    world.run(&world.sleeper("host")).await?;
    let path = format!("{}/ephemeralcontainers", world.pod_path("host"));
    let patch = json!({"spec": {"ephemeralContainers": [joining(&world, "first")]}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    world.reaches("host", "first", "running").await?;
    let shown = world.api.get(&path).await?;
    same("kind", &shown["kind"], &json!("Pod"))?;
    let second = joining(&world, "second");
    let updated = world
        .api
        .update(&path, |pod| {
            if let Some(list) = pod["spec"]["ephemeralContainers"].as_array_mut() {
                list.push(second.clone());
            }
        })
        .await?;
    let list = updated["spec"]["ephemeralContainers"].as_array().context("a list")?;
    same("how many", &json!(list.len()), &json!(2))?;
    let pod = world.reaches("host", "second", "running").await?;
    let first = container(&pod, "first");
    holds("the first goes on", !first["state"]["running"].is_null(), first)?;
    let said = |said: &str| said.contains("polo-second");
    world.wait_logs("host", "second", "polo", said).await?;
    let same_pod = |pod: &Value| container(pod, "main")["restartCount"] == 0;
    world.stays("host", Duration::from_secs(1), "main is left alone", same_pod).await.map(drop)
}
