//! Hooks after the start and before the end of a container.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cases;
use crate::pods::main_of;
use crate::world::{POD_WITHIN, World, holds, name_of};

cases! {
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly [NodeConformance] [Conformance]"
        => post_start_exec,
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly [NodeConformance] [Conformance]"
        => post_start_http,
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly [NodeConformance] [Conformance]"
        => pre_stop_exec,
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly [NodeConformance] [Conformance]"
        => pre_stop_http,
    "[sig-node] PreStop should call prestop when killing a pod [Conformance]"
        => pre_stop_on_kill,
}

/// Starts a server that logs what it is asked for, and returns its address.
async fn listener(world: &World) -> Result<String> {
    let script = "mkdir -p /tmp/www/echo && cd /tmp/www/echo
        for file in ../index.html poststart prestop alive term; do echo ok > $file; done
        exec httpd -f -vv -p 8080 -h /tmp/www";
    let mut pod = world.server("listener", 8080);
    main_of(&mut pod)["command"] = json!(["/bin/sh", "-c", script]);
    let pod = world.run(&pod).await?;
    Ok(pod["status"]["podIP"].as_str().context("it has an address")?.to_owned())
}

/// A hook that asks the server for `/echo/what`.
fn exec_hook(address: &str, what: &str) -> Value {
    let script = format!("wget -q -O /dev/null 'http://{address}:8080/echo/{what}'");
    json!({"exec": {"command": ["/bin/sh", "-c", script]}})
}

fn http_hook(address: &str, what: &str) -> Value {
    json!({"httpGet": {"host": address, "port": 8080, "path": format!("/echo/{what}")}})
}

/// Waits until the server was asked for `/echo/what`.
async fn heard(world: &World, what: &str) -> Result<()> {
    let request = format!("url:/echo/{what}");
    world.wait_logs("listener", "main", &request, |said| said.contains(&request)).await.map(drop)
}

/// Expects that a pod with the hook runs, and that the hook was.
async fn after_start(world: &World, hook: Value) -> Result<()> {
    let mut pod = world.sleeper("hooked");
    main_of(&mut pod)["lifecycle"] = json!({"postStart": hook});
    world.run(&pod).await?;
    heard(world, "poststart").await
}

/// Expects that the hook runs when the pod is removed, and not before.
async fn before_stop(world: &World, hook: Value) -> Result<()> {
    let mut pod = world.sleeper("hooked");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    main_of(&mut pod)["lifecycle"] = json!({"preStop": hook});
    world.run(&pod).await?;
    let before = world.logs("listener", "main").await?;
    holds("too early", !before.contains("/echo/prestop"), &json!(before))?;
    world.api.delete(&world.pod_path("hooked")).await?;
    heard(world, "prestop").await?;
    world.wait_gone(&world.pod_path("hooked"), POD_WITHIN).await
}

async fn post_start_exec(world: World) -> Result<()> {
    let address = listener(&world).await?;
    after_start(&world, exec_hook(&address, "poststart")).await
}

async fn post_start_http(world: World) -> Result<()> {
    let address = listener(&world).await?;
    after_start(&world, http_hook(&address, "poststart")).await
}

async fn pre_stop_exec(world: World) -> Result<()> {
    let address = listener(&world).await?;
    before_stop(&world, exec_hook(&address, "prestop")).await
}

async fn pre_stop_http(world: World) -> Result<()> {
    let address = listener(&world).await?;
    before_stop(&world, http_hook(&address, "prestop")).await
}

/// The hook runs while the container still does: it sees what only the running container has, and
/// the container's process hears of its end only afterwards.
async fn pre_stop_on_kill(world: World) -> Result<()> {
    let address = listener(&world).await?;
    let ask = |what: &str| format!("wget -q -O /dev/null 'http://{address}:8080/echo/{what}'");
    let script = format!(
        "echo alive > /tmp/state; trap '{}; exit 0' TERM; sleep 100000 & wait",
        ask("term").replace('\'', "\"")
    );
    let mut pod = world.shell("tester", &script);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let hook = format!("{}; sleep 1", ask("$(cat /tmp/state)").replace('\'', "\""));
    main_of(&mut pod)["lifecycle"] =
        json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", hook]}}});
    let pod = world.run(&pod).await?;
    world.api.delete(&world.pod_path(name_of(&pod))).await?;
    heard(&world, "alive").await?;
    heard(&world, "term").await?;
    let said = world.logs("listener", "main").await?;
    let in_order = said.find("/echo/alive") < said.find("/echo/term");
    holds("the hook is first", in_order, &json!(said))?;
    world.wait_gone(&world.pod_path("tester"), POD_WITHIN).await
}
