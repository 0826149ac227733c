//! What an image says and what a container overrides; how containers end.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cases;
use crate::pods::{container, main_of, restarts};
use crate::world::{POD_WITHIN, World, condition, holds, name_of, same};

cases! {
    "[sig-node] Containers should be able to override the image's default arguments (container cmd) [NodeConformance] [Conformance]"
        => arguments,
    "[sig-node] Containers should be able to override the image's default command (container entrypoint) [NodeConformance] [Conformance]"
        => command,
    "[sig-node] Containers should be able to override the image's default command and arguments [NodeConformance] [Conformance]"
        => command_and_arguments,
    "[sig-node] Containers should use the image defaults if command and args are blank [NodeConformance] [Conformance]"
        => neither,
    "[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]"
        => message_empty,
    "[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]"
        => message_from_file,
    "[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]"
        => message_from_logs,
    "[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path [NodeConformance] [Conformance]"
        => message_elsewhere,
    "[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance] [Conformance]"
        => exits,
}

/// A pod whose container says nothing of what it runs.
fn blank(world: &World, name: &str) -> Value {
    let mut pod = world.pod(name, &[]);
    if let Some(container) = main_of(&mut pod).as_object_mut() {
        container.remove("command");
    }
    pod
}

/// Busybox images have a default command (`sh`) and no entrypoint: what takes the command's place is
/// run itself.
async fn arguments(world: World) -> Result<()> {
    let mut pod = blank(&world, "override");
    main_of(&mut pod)["args"] = json!(["echo", "override", "arguments"]);
    let said = world.output(&pod).await?;
    same("output", &json!(said), &json!("override arguments\n"))
}

async fn command(world: World) -> Result<()> {
    let said = world.output(&world.pod("override", &["echo", "override"])).await?;
    same("output, without the image's arguments", &json!(said), &json!("override\n"))
}

async fn command_and_arguments(world: World) -> Result<()> {
    let mut pod = world.pod("override", &["echo", "override"]);
    main_of(&mut pod)["args"] = json!(["arguments", "too"]);
    let said = world.output(&pod).await?;
    same("output", &json!(said), &json!("override arguments too\n"))
}

/// The image's shell waits for its input, so that its command line can be looked at.
async fn neither(world: World) -> Result<()> {
    let mut pod = blank(&world, "defaults");
    main_of(&mut pod)["stdin"] = json!(true);
    let pod = world.run(&pod).await?;
    let line = world.exec(name_of(&pod), "cat /proc/1/cmdline").await?;
    same("command line", &json!(line), &json!("sh\0"))
}

/// Runs `script` with changes to its container, and compares phase and message of its end.
async fn message(
    world: &World,
    script: &str,
    change: Value,
    phase: &str,
    expected: &str,
) -> Result<()> {
    let mut pod = world.shell("message", script);
    if let (Some(container), Value::Object(change)) = (main_of(&mut pod).as_object_mut(), change) {
        container.extend(change);
    }
    world.create("v1", "pods", &pod).await?;
    let ended = world.ended("message").await?;
    same("phase", &ended["status"]["phase"], &json!(phase))?;
    let end = &container(&ended, "main")["state"]["terminated"];
    let message = end["message"].as_str().unwrap_or_default();
    same("message", &json!(message), &json!(expected))
}

async fn message_empty(world: World) -> Result<()> {
    let change = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    message(&world, "echo DONE", change, "Succeeded", "").await
}

async fn message_from_file(world: World) -> Result<()> {
    let change = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let script = "echo -n OK > /dev/termination-log; echo no";
    message(&world, script, change, "Succeeded", "OK").await
}

async fn message_from_logs(world: World) -> Result<()> {
    let change = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    message(&world, "echo -n DONE; exit 1", change, "Failed", "DONE").await
}

async fn message_elsewhere(world: World) -> Result<()> {
    let change = json!({
        "terminationMessagePath": "/dev/termination-custom-log",
        "securityContext": {"runAsUser": 1000},
    });
    let script = "echo -n DONE > /dev/termination-custom-log";
    message(&world, script, change, "Succeeded", "DONE").await
}

/// Fails at the first run, succeeds at the second and goes on at the third: what a folder of the
/// pod remembers.
const RUNS: &str = "
n=$(ls /restart-count | /bin/busybox wc -l); echo > /restart-count/$n
[ $n = 0 ] && exit 1
[ $n = 1 ] && exit 0
sleep 100000";

/// What became of a pod after all its runs.
async fn settled(world: &World, policy: &str, script: &str) -> Result<Value> {
    let name = format!("exits-{}", policy.to_lowercase());
    let mut pod = world.shell(&name, script);
    pod["spec"]["restartPolicy"] = json!(policy);
    pod["spec"]["volumes"] = json!([{"name": "count", "emptyDir": {}}]);
    main_of(&mut pod)["volumeMounts"] = json!([{"name": "count", "mountPath": "/restart-count"}]);
    world.create("v1", "pods", &pod).await?;
    let done = |pod: &Value| match policy {
        "Always" => restarts(pod) == 2 && container(pod, "main")["ready"] == true,
        "OnFailure" => pod["status"]["phase"] == "Succeeded",
        _ => pod["status"]["phase"] == "Failed",
    };
    let what = format!("pod with {policy} has settled");
    world.wait(&what, &world.pod_path(&name), 3 * POD_WITHIN, done).await
}

async fn exits(world: World) -> Result<()> {
    let expected = [("Always", 2, "Running", true), ("OnFailure", 1, "Succeeded", false)];
    let never = ("Never", 0, "Failed", false);
    for (policy, count, phase, ready) in expected.into_iter().chain([never]) {
        let pod = settled(&world, policy, RUNS).await?;
        same(&format!("{policy}: restarts"), &json!(restarts(&pod)), &json!(count))?;
        same(&format!("{policy}: phase"), &pod["status"]["phase"], &json!(phase))?;
        let is_ready = condition(&pod, "Ready") == Some("True");
        holds(&format!("{policy}: Ready"), is_ready == ready, &pod["status"])?;
        let state = if ready { "running" } else { "terminated" };
        let now = &container(&pod, "main")["state"];
        holds(&format!("{policy}: {state}"), !now[state].is_null(), now)?;
    }
    Ok(())
}
