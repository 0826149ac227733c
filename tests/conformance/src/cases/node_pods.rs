//! Pods as objects of the API: their life, their status, and streams from them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::api::{Api, Patch};
use crate::cases;
use crate::pods::main_of;
use crate::world::{POD_WITHIN, World, condition, holds, items, same};

cases! {
    "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu [Conformance]"
        => quality,
    "[sig-node] Pods should allow activeDeadlineSeconds to be updated [NodeConformance] [Conformance]"
        => deadline,
    "[sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]"
        => submitted_and_removed,
    "[sig-node] Pods should be updated [NodeConformance] [Conformance]"
        => updated,
    "[sig-node] Pods should delete a collection of pods [Conformance]"
        => collection,
    "[sig-node] Pods should get a host IP [NodeConformance] [Conformance]"
        => host_address,
    "[sig-node] Pods should patch a pod status [Conformance]"
        => patched_status,
    "[sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]"
        => life,
    "[sig-node] Pods should support remote command execution over websockets [NodeConformance] [Conformance]"
        => exec_over_websocket,
    "[sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance] [Conformance]"
        => logs_over_websocket,
}

async fn quality(world: World) -> Result<()> {
    let resources = json!({
        "requests": {"cpu": "100m", "memory": "100Mi"},
        "limits": {"cpu": "100m", "memory": "100Mi"},
    });
    let mut pod = world.sleeper("pod");
    main_of(&mut pod)["resources"] = resources;
    world.create("v1", "pods", &pod).await?;
    let made = world.api.get(&world.pod_path("pod")).await?;
    same("class", &made["status"]["qosClass"], &json!("Guaranteed"))
}

async fn deadline(world: World) -> Result<()> {
    let mut pod = world.sleeper("pod");
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["activeDeadlineSeconds"] = json!(300);
    world.run(&pod).await?;
    let path = world.pod_path("pod");
    world.api.update(&path, |pod| pod["spec"]["activeDeadlineSeconds"] = json!(5)).await?;
    let over = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = world.wait("it has failed", &path, POD_WITHIN, over).await?;
    same("reason", &pod["status"]["reason"], &json!("DeadlineExceeded"))
}

/// The pods with `label=value`.
async fn labelled(world: &World, selector: &str) -> Result<usize> {
    let path = format!("{}?labelSelector={selector}", world.path("v1", "pods", ""));
    Ok(items(&world.api.get(&path).await?).len())
}

async fn submitted_and_removed(world: World) -> Result<()> {
    let selected = format!("{}?labelSelector=time%3Dnow", world.path("v1", "pods", ""));
    let before = world.api.get(&selected).await?;
    same("before", &json!(items(&before).len()), &json!(0))?;
    let version = before["metadata"]["resourceVersion"].as_str().context("a version")?;
    let mut watch = world.api.watch(&format!("{selected}&resourceVersion={version}")).await?;
    let mut pod = world.sleeper("pod");
    pod["metadata"]["labels"] = json!({"time": "now"});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    world.create("v1", "pods", &pod).await?;
    watch.expect("ADDED", POD_WITHIN, |pod| pod["metadata"]["name"] == "pod").await?;
    let is_ready = |pod: &Value| condition(pod, "Ready") == Some("True");
    watch.expect("MODIFIED", POD_WITHIN, is_ready).await?;
    same("listed", &json!(labelled(&world, "time%3Dnow").await?), &json!(1))?;
    world.api.delete(&world.pod_path("pod")).await?;
    let ending = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    let pod = watch.expect("MODIFIED", POD_WITHIN, ending).await?;
    same("grace", &pod["metadata"]["deletionGracePeriodSeconds"], &json!(30))?;
    let gone = watch.expect("DELETED", POD_WITHIN, |_| true).await?;
    let name = &gone["metadata"]["name"];
    same("deleted", name, &json!("pod"))?;
    same("deleted with a time", &json!(ending(&gone)), &json!(true))?;
    same("after", &json!(labelled(&world, "time%3Dnow").await?), &json!(0))
}

async fn updated(world: World) -> Result<()> {
    let mut pod = world.sleeper("pod");
    pod["metadata"]["labels"] = json!({"time": "1"});
    world.run(&pod).await?;
    same("listed", &json!(labelled(&world, "time%3D1").await?), &json!(1))?;
    let path = world.pod_path("pod");
    world.api.update(&path, |pod| pod["metadata"]["labels"]["time"] = json!("2")).await?;
    same("under the new label", &json!(labelled(&world, "time%3D2").await?), &json!(1))?;
    same("under the old label", &json!(labelled(&world, "time%3D1").await?), &json!(0))
}

async fn collection(world: World) -> Result<()> {
    let chosen = format!("{}?labelSelector=type%3DTesting", world.path("v1", "pods", ""));
    for (name, kind) in
        [("one", "Testing"), ("two", "Testing"), ("three", "Testing"), ("other", "No")]
    {
        let mut pod = world.sleeper(name);
        pod["metadata"]["labels"] = json!({"type": kind});
        world.create("v1", "pods", &pod).await?;
    }
    same("listed", &json!(items(&world.api.get(&chosen).await?).len()), &json!(3))?;
    world.api.delete(&chosen).await?;
    let empty = |list: &Value| items(list).is_empty();
    world.wait("they are gone", &chosen, POD_WITHIN, empty).await?;
    let other = world.api.get(&world.pod_path("other")).await?;
    holds("the other is left", other["metadata"]["deletionTimestamp"].is_null(), &other)
}

async fn host_address(world: World) -> Result<()> {
    let pod = world.run(&world.sleeper("pod")).await?;
    let address = pod["status"]["hostIP"].as_str().context("it has one")?;
    address.parse::<IpAddr>().with_context(|| format!("{address} is no address"))?;
    same("the first of all", &pod["status"]["hostIPs"][0]["ip"], &json!(address))?;
    let node = pod["spec"]["nodeName"].as_str().context("it runs on a node")?;
    let node = world.api.get(&world.global("v1", "nodes", node)).await?;
    let addresses = node["status"]["addresses"].as_array().context("the node has addresses")?;
    let is_of_node = addresses.iter().any(|known| known["address"] == address);
    holds("it is the node's", is_of_node, &node["status"]["addresses"])
}

async fn patched_status(world: World) -> Result<()> {
    world.run(&world.sleeper("pod")).await?;
    let path = format!("{}/status", world.pod_path("pod"));
    let patch = json!({"status": {"message": "Patched by a test", "reason": "Patched"}});
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("message", &patched["status"]["message"], &json!("Patched by a test"))?;
    same("reason", &patched["status"]["reason"], &json!("Patched"))?;
    same("phase", &patched["status"]["phase"], &json!("Running"))
}

async fn life(world: World) -> Result<()> {
    let selected = format!("{}?labelSelector=static%3Dtrue", world.path("v1", "pods", ""));
    let mut watch = world.api.watch(&selected).await?;
    let mut pod = world.sleeper("pod");
    pod["metadata"]["labels"] = json!({"static": "true", "state": "new"});
    world.create("v1", "pods", &pod).await?;
    watch.expect("ADDED", POD_WITHIN, |_| true).await?;
    let is_ready = |pod: &Value| condition(pod, "Ready") == Some("True");
    watch.expect("MODIFIED", POD_WITHIN, is_ready).await?;
    let path = world.pod_path("pod");
    let patch = json!({
        "metadata": {"labels": {"state": "patched"}},
        "spec": {"activeDeadlineSeconds": 3600},
    });
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let is_patched = |pod: &Value| pod["metadata"]["labels"]["state"] == "patched";
    let pod = watch.expect("MODIFIED", POD_WITHIN, is_patched).await?;
    same("deadline", &pod["spec"]["activeDeadlineSeconds"], &json!(3600))?;
    let status = format!("{path}/status");
    same("kind", &world.api.get(&status).await?["kind"], &json!("Pod"))?;
    let replaced = world
        .api
        .update(&status, |pod| {
            for known in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
                if known["type"] == "Ready" {
                    known["status"] = json!("False");
                }
            }
        })
        .await?;
    same("Ready", &json!(condition(&replaced, "Ready")), &json!("False"))?;
    world.api.delete(&selected).await?;
    watch.expect("DELETED", POD_WITHIN, |pod| pod["metadata"]["name"] == "pod").await.map(drop)
}

/// Opens a WebSocket in a subprotocol, and returns its binary messages until `fits` or its end.
async fn messages(
    api: &Api,
    path: &str,
    protocol: &str,
    fits: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    let upgraded = api.upgrade(path, protocol).await?;
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    let mut all = Vec::new();
    let reading = async {
        while let Some(message) = socket.next().await {
            let message = message?;
            if message.is_close() {
                break;
            }
            if message.is_ping() || message.is_pong() {
                continue;
            }
            holds("messages are binary", message.is_binary(), &json!(format!("{message:?}")))?;
            let data = message.into_data();
            match (protocol.starts_with("channel"), data.first()) {
                // Channel 1 is what is written to stdout; empty messages open the channels.
                (true, Some(1)) => all.extend_from_slice(&data[1..]),
                (true, Some(_)) if data.len() > 1 => bail!("on another channel: {data:?}"),
                (true, _) => {}
                (false, _) => all.extend_from_slice(&data),
            }
            if fits(&all) {
                break;
            }
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(30), reading).await.context("too long")??;
    Ok(all)
}

async fn exec_over_websocket(world: World) -> Result<()> {
    world.run(&world.sleeper("pod")).await?;
    let path = format!(
        "{}/exec?command=echo&command=remote%20execution%20test&stdout=1&stderr=1&container=main",
        world.pod_path("pod")
    );
    let expected = b"remote execution test\n";
    let said = messages(&world.api, &path, "channel.k8s.io", |all| all == expected).await?;
    same("output", &json!(String::from_utf8_lossy(&said)), &json!("remote execution test\n"))
}

async fn logs_over_websocket(world: World) -> Result<()> {
    let script = "echo container is alive; sleep 100000";
    world.run(&world.shell("pod", script)).await?;
    let path = format!("{}/log?container=main", world.pod_path("pod"));
    let expected = b"container is alive\n";
    let said = messages(&world.api, &path, "binary.k8s.io", |all| all == expected).await?;
    same("log", &json!(String::from_utf8_lossy(&said)), &json!("container is alive\n"))
}
