//! Liveness and readiness probes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cases;
use crate::pods::{container, main_of, restarts};
use crate::world::{POD_WITHIN, World, condition, holds, items, same};

cases! {
    "[sig-node] Probing container should be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]"
        => http_fails,
    "[sig-node] Probing container should be restarted with a exec \"cat /tmp/health\" liveness probe [NodeConformance] [Conformance]"
        => exec_fails,
    "[sig-node] Probing container should be restarted with a GRPC liveness probe [NodeConformance] [Conformance]"
        => grpc_fails,
    "[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]"
        => http_holds,
    "[sig-node] Probing container should *not* be restarted with a exec \"cat /tmp/health\" liveness probe [NodeConformance] [Conformance]"
        => exec_holds,
    "[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe [NodeConformance] [Conformance]"
        => tcp_holds,
    "[sig-node] Probing container should *not* be restarted with a GRPC liveness probe [NodeConformance] [Conformance]"
        => grpc_holds,
    "[sig-node] Probing container should have monotonically increasing restart count [NodeConformance] [Conformance]"
        => counts,
    "[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart [NodeConformance] [Conformance]"
        => not_before_delay,
    "[sig-node] Probing container with readiness probe that fails should never be ready and never restart [NodeConformance] [Conformance]"
        => never_ready,
}

/// How long a container that is well is watched.
const WATCHED: Duration = Duration::from_secs(25);
/// When a container that is to fail begins to.
const FAILS_AFTER: &str = "sleep 6";

/// A pod that is killed at the first probe that fails.
fn live(world: &World, script: &str, action: (&str, Value)) -> Value {
    let mut pod = world.shell("probed", script);
    pod["spec"]["restartPolicy"] = json!("Always");
    let mut probe = json!({
        "initialDelaySeconds": 3, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1,
    });
    probe[action.0] = action.1;
    main_of(&mut pod)["livenessProbe"] = probe;
    pod
}

/// Expects that it runs, is killed for its health, and started again.
async fn restarted(world: &World, pod: &Value) -> Result<()> {
    world.create("v1", "pods", pod).await?;
    let path = world.pod_path("probed");
    let once = |pod: &Value| restarts(pod) > 0;
    let pod = world.wait("it is restarted", &path, 2 * POD_WITHIN, once).await?;
    let last = &container(&pod, "main")["lastState"]["terminated"];
    // It would go on for ever, and is killed: a signal's exit code.
    let code = last["exitCode"].as_u64();
    holds("it was killed", code >= Some(128), last)?;
    let events = world.path("v1", "events", "");
    let killing = |list: &Value| {
        items(list).iter().any(|event| {
            event["reason"] == "Unhealthy" && event["involvedObject"]["name"] == "probed"
        })
    };
    world.wait("an event tells why", &events, POD_WITHIN, killing).await.map(drop)
}

/// Expects that it runs on.
async fn stays_up(world: &World, pod: &Value) -> Result<()> {
    world.create("v1", "pods", pod).await?;
    world.reaches("probed", "main", "running").await?;
    let well =
        |pod: &Value| restarts(pod) == 0 && !container(pod, "main")["state"]["running"].is_null();
    world.stays("probed", WATCHED, "it runs and was not restarted", well).await.map(drop)
}

fn http() -> (&'static str, Value) {
    ("httpGet", json!({"path": "/healthz", "port": 8080}))
}

fn exec() -> (&'static str, Value) {
    ("exec", json!({"command": ["cat", "/tmp/health"]}))
}

fn grpc() -> (&'static str, Value) {
    ("grpc", json!({"port": 5000}))
}

/// Serves `/healthz` for a while, or for ever.
fn web(after: &str) -> String {
    format!(
        "mkdir -p /tmp/www && echo ok > /tmp/www/healthz && httpd -p 8080 -h /tmp/www
        {after}
        sleep 100000"
    )
}

async fn http_fails(world: World) -> Result<()> {
    let script = web(&format!("{FAILS_AFTER}; /bin/busybox rm /tmp/www/healthz"));
    restarted(&world, &live(&world, &script, http())).await
}

async fn http_holds(world: World) -> Result<()> {
    stays_up(&world, &live(&world, &web(""), http())).await
}

/// The socket stays open when what it serves is gone.
async fn tcp_holds(world: World) -> Result<()> {
    let script = web(&format!("{FAILS_AFTER}; /bin/busybox rm /tmp/www/healthz"));
    stays_up(&world, &live(&world, &script, ("tcpSocket", json!({"port": 8080})))).await
}

async fn exec_fails(world: World) -> Result<()> {
    let script = format!(
        "echo ok > /tmp/health; {FAILS_AFTER}; /bin/busybox rm /tmp/health
        sleep 100000"
    );
    restarted(&world, &live(&world, &script, exec())).await
}

async fn exec_holds(world: World) -> Result<()> {
    let script = "echo ok > /tmp/health; sleep 100000";
    stays_up(&world, &live(&world, script, exec())).await
}

/// A gRPC health service from what a shell has: it reads HTTP/2 frames up to the request's message,
/// and writes frames that answer the first stream with the status in `/tmp/status` (1 serving, 2 not).
const GRPC_ANSWER: &str = r#"
dd() { /bin/busybox dd bs=1 count=$1 2>/dev/null; }
dd 24 > /dev/null
printf '\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0'
while true; do
  set -- $(dd 9 | /bin/busybox od -An -tu1)
  [ $# = 9 ] || exit
  dd $(( $1 * 65536 + $2 * 256 + $3 )) > /dev/null
  [ $4 = 0 ] && break
done
printf '\0\0\24\1\4\0\0\0\1\210\17\20\20application/grpc'
printf "\\0\\0\\7\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0\\2\\10\\$(cat /tmp/status)"
printf '\0\0\17\1\5\0\0\0\1\100\13grpc-status\0010'
cat > /dev/null
"#;

/// Serves health over gRPC.
fn health(after: &str) -> String {
    format!(
        "echo 1 > /tmp/status
        cat > /tmp/answer <<'END'{GRPC_ANSWER}END
        /bin/busybox nc -ll -p 5000 -e /bin/sh /tmp/answer &
        {after}
        sleep 100000"
    )
}

async fn grpc_fails(world: World) -> Result<()> {
    let script = health(&format!("{FAILS_AFTER}; echo 2 > /tmp/status"));
    restarted(&world, &live(&world, &script, grpc())).await?;
    let events = world.api.get(&world.path("v1", "events", "")).await?;
    let told = events.to_string().contains("service unhealthy");
    holds("it was the service's own word", told, &events)
}

async fn grpc_holds(world: World) -> Result<()> {
    stays_up(&world, &live(&world, &health(""), grpc())).await
}

/// Five restarts, the last ones with the delays that come with them.
async fn counts(world: World) -> Result<()> {
    let script = web(&format!("{FAILS_AFTER}; /bin/busybox rm /tmp/www/healthz"));
    world.create("v1", "pods", &live(&world, &script, http())).await?;
    let until = Instant::now() + Duration::from_secs(550);
    let mut last = 0;
    while last < 5 {
        let pod = world.api.get(&world.pod_path("probed")).await?;
        let now = restarts(&pod);
        holds("it does not fall", now >= last, &json!([last, now]))?;
        last = now;
        if Instant::now() > until {
            bail!("only {last} restarts: {}", pod["status"]);
        }
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

fn ready_probe(pod: &mut Value, probe: Value) {
    main_of(pod)["readinessProbe"] = probe;
    pod["spec"]["restartPolicy"] = json!("Always");
}

/// When a time of the API was, in seconds of its day.
fn second_of_day(time: &Value) -> Result<i64> {
    let text = time.as_str().context("a time")?;
    let clock = text.split('T').nth(1).context("it has a clock")?;
    clock
        .trim_end_matches('Z')
        .split(':')
        .try_fold(0, |sum, part| Ok(sum * 60 + part.parse::<i64>()?))
}

async fn not_before_delay(world: World) -> Result<()> {
    let delay = 10;
    let mut pod = world.server("probed", 8080);
    let probe = json!({
        "httpGet": {"path": "/", "port": 8080},
        "initialDelaySeconds": delay, "periodSeconds": 1,
    });
    ready_probe(&mut pod, probe);
    let pod = world.run(&pod).await?;
    let ready = pod["status"]["conditions"].as_array().context("conditions")?;
    let ready = ready.iter().find(|known| known["type"] == "Ready").context("Ready")?;
    let started = second_of_day(&container(&pod, "main")["state"]["running"]["startedAt"])?;
    let waited = (second_of_day(&ready["lastTransitionTime"])? - started).rem_euclid(86_400);
    holds("it is ready only after the delay", waited >= delay, &pod["status"])?;
    same("restarts", &json!(restarts(&pod)), &json!(0))
}

async fn never_ready(world: World) -> Result<()> {
    let mut pod = world.sleeper("probed");
    ready_probe(
        &mut pod,
        json!({"exec": {"command": ["/bin/test", "-e", "/no"]}, "periodSeconds": 1}),
    );
    world.create("v1", "pods", &pod).await?;
    world.reaches("probed", "main", "running").await?;
    let unready = |pod: &Value| {
        restarts(pod) == 0
            && container(pod, "main")["ready"] == false
            && condition(pod, "Ready") == Some("False")
            && condition(pod, "ContainersReady") == Some("False")
    };
    world.stays("probed", WATCHED, "it is never ready nor restarted", unready).await.map(drop)
}
