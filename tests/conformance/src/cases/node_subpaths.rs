//! Folders within volumes, named after variables.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::Patch;
use crate::cases;
use crate::pods::{container, main_of};
use crate::world::{POD_WITHIN, World, holds, same};

cases! {
    "[sig-node] Variable Expansion should allow substituting values in a volume subpath [Conformance]"
        => substituted,
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks [Conformance]"
        => backticks,
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path [Conformance]"
        => absolute,
    "[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow] [Conformance]"
        => mended,
    "[sig-node] Variable Expansion should succeed in writing subpaths in container [Conformance]"
        => written,
}

/// A pod with a volume, whole at `/whole`, and at `/part` what `expression` names in it.
fn with_part(mut pod: Value, env: Value, expression: &str) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
    let main = main_of(&mut pod);
    main["env"] = json!([env]);
    main["volumeMounts"] = json!([
        {"name": "work", "mountPath": "/whole"},
        {"name": "work", "mountPath": "/part", "subPathExpr": expression},
    ]);
    pod
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

async fn substituted(world: World) -> Result<()> {
    let script = "echo hello > /part/file; cat /whole/pod-subpath/file";
    let pod = world.shell("pod-subpath", script);
    let pod = with_part(pod, field("POD_NAME", "metadata.name"), "$(POD_NAME)");
    world.says(&pod, &["hello"]).await
}

/// Expects that the container cannot be made, with that reason, and never runs.
async fn not_made(world: &World) -> Result<Value> {
    let path = world.pod_path("pod");
    let waits = |pod: &Value| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    };
    world.wait("its configuration is wrong", &path, POD_WITHIN, waits).await?;
    let never = |pod: &Value| {
        let main = container(pod, "main");
        pod["status"]["phase"] == "Pending" && main["state"]["running"].is_null()
    };
    world.stays("pod", Duration::from_secs(5), "it does not run", never).await
}

async fn fails(world: &World, value: &str) -> Result<()> {
    let env = json!({"name": "POD_NAME", "value": value});
    let pod = with_part(world.sleeper("pod"), env, "$(POD_NAME)");
    world.create("v1", "pods", &pod).await?;
    not_made(world).await.map(drop)
}

async fn backticks(world: World) -> Result<()> {
    // What a shell would make of it is no matter: the way out of the volume is refused.
    fails(&world, "..").await
}

async fn absolute(world: World) -> Result<()> {
    fails(&world, "/tmp").await
}

async fn mended(world: World) -> Result<()> {
    let env = field("POD_NAME", "metadata.annotations['mysubpath']");
    let mut pod = with_part(world.sleeper("pod"), env, "$(POD_NAME)");
    pod["metadata"]["annotations"] = json!({"notmysubpath": "mypath"});
    world.create("v1", "pods", &pod).await?;
    not_made(&world).await?;
    let patch = json!({"metadata": {"annotations": {"mysubpath": "mypath"}}});
    world.api.patch(&world.pod_path("pod"), Patch::Merge, &patch).await?;
    world.reaches("pod", "main", "running").await?;
    let listing = world.exec("pod", "echo found > /part/file && cat /whole/mypath/file").await?;
    same("through the whole", &json!(listing), &json!("found\n"))
}

async fn written(world: World) -> Result<()> {
    let env = field("ANNOTATION", "metadata.annotations['mysubpath']");
    let mut pod = with_part(world.sleeper("pod"), env, "$(ANNOTATION)/foo");
    pod["metadata"]["annotations"] = json!({"mysubpath": "mypath"});
    world.run(&pod).await?;
    world.exec("pod", "echo one > /whole/mypath/foo/test.log").await?;
    let said = world.exec("pod", "cat /part/test.log").await?;
    same("in the part", &json!(said), &json!("one\n"))?;
    let patch = json!({"metadata": {"annotations": {"mysubpath": "mynewpath"}}});
    world.api.patch(&world.pod_path("pod"), Patch::Merge, &patch).await?;
    let said = world.exec("pod", "cat /whole/mypath/foo/test.log; ls /whole").await?;
    same("a running container keeps its folder", &json!(said), &json!("one\nmypath\n"))?;
    let pod = world.api.get(&world.pod_path("pod")).await?;
    holds("it runs on", container(&pod, "main")["restartCount"] == 0, &pod["status"])
}
