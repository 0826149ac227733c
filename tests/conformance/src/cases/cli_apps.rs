//! kubectl with whole applications, logs, and as a proxy.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

use super::cli::{controller, create, ready_pods};
use crate::cases;
use crate::world::{World, holds, same, until};

const SOON: Duration = Duration::from_secs(90);

cases! {
    "[sig-cli] Kubectl client Guestbook application should create and stop a working application [Conformance]"
        => guestbook,
    "[sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]"
        => proxy_at_socket,
    "[sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]"
        => proxy_at_port,
    "[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]"
        => demo_starts_and_stops,
    "[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]"
        => demo_scales,
    "[sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]"
        => logs,
}

/// Each pod of the demo serves its own name.
async fn demo_serves(world: &World, count: usize) -> Result<()> {
    for pod in ready_pods(world, "demo", count).await? {
        let said = world.api.text(&format!("{}:6379/proxy/", world.pod_path(&pod))).await?;
        same("what it serves", &json!(said.trim()), &json!(pod))?;
    }
    Ok(())
}

/// kubectl sees no more of an application.
async fn nothing_left(world: &World, label: &str) -> Result<()> {
    until(SOON, || async {
        let said =
            world.kubectl(&["get", "rc,deployment,svc,pods", "-l", label, "-o", "name"]).await?;
        same("what is left", &json!(said), &json!(""))
    })
    .await
}

async fn demo_starts_and_stops(world: World) -> Result<()> {
    let demo = controller(&world, "demo", 2);
    create(&world, &demo).await?;
    demo_serves(&world, 2).await?;
    let arguments = ["delete", "--grace-period=0", "--force", "-f", "-"];
    world.kubectl_with(&arguments, &demo.to_string()).await?;
    nothing_left(&world, "app=demo").await
}

async fn demo_scales(world: World) -> Result<()> {
    create(&world, &controller(&world, "demo", 2)).await?;
    demo_serves(&world, 2).await?;
    for count in [1_usize, 2] {
        let replicas = format!("--replicas={count}");
        world.kubectl(&["scale", "rc", "demo", &replicas, "--timeout=50s"]).await?;
        demo_serves(&world, count).await?;
    }
    Ok(())
}

/// A Deployment of pods that serve `script`, a CGI program, and a Service before it.
fn tier(world: &World, name: &str, replicas: usize, script: &str) -> [Value; 2] {
    let labels = json!({"app": "guestbook", "tier": name});
    let serve = format!(
        "/bin/busybox mkdir -p /tmp/www/cgi-bin && cat > /tmp/www/cgi-bin/book <<'END'\n{script}\nEND\n\
         /bin/busybox chmod 755 /tmp/www/cgi-bin/book\n\
         echo ready > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"
    );
    let mut pod = world.shell(name, &serve);
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    [deployment, service]
}

/// Keeps what it is told.
const STORE: &str = r#"#!/bin/sh
echo "content-type: text/plain"; echo
case "$QUERY_STRING" in set=*) echo "${QUERY_STRING#set=}" >> /tmp/book ;; esac
cat /tmp/book 2>/dev/null"#;
/// Reads what the primary keeps.
const REPLICA: &str = r#"#!/bin/sh
echo "content-type: text/plain"; echo
wget -q -O - http://primary/cgi-bin/book"#;
/// Writes to the primary and reads from the replicas.
const FRONTEND: &str = r#"#!/bin/sh
echo "content-type: text/plain"; echo
case "$QUERY_STRING" in
set=*) wget -q -O - "http://primary/cgi-bin/book?$QUERY_STRING" > /dev/null && echo updated ;;
*) wget -q -O - http://replica/cgi-bin/book ;;
esac"#;

/// Upstream's has three tiers of its own images; so has this, of small shell programs.
async fn guestbook(world: World) -> Result<()> {
    let tiers = [("primary", 1, STORE), ("replica", 2, REPLICA), ("frontend", 3, FRONTEND)];
    let all: Vec<Value> = tiers
        .iter()
        .flat_map(|(name, replicas, script)| tier(&world, name, *replicas, script))
        .collect();
    let text = all.iter().fold(String::new(), |text, object| text + &format!("---\n{object}\n"));
    world.kubectl_with(&["create", "-f", "-"], &text).await?;
    ready_pods(&world, "guestbook", 6).await?;
    let url = format!("{}:80/proxy/cgi-bin/book", world.path("v1", "services", "frontend"));
    until(SOON, || async {
        let said = world.api.text(&format!("{url}?set=TestEntry")).await?;
        same("what is written", &json!(said.trim()), &json!("updated"))
    })
    .await?;
    until(SOON, || async {
        let said = world.api.text(&url).await?;
        holds("the entry is read", said.lines().any(|line| line == "TestEntry"), &json!(said))
    })
    .await?;
    world.kubectl_with(&["delete", "--grace-period=0", "--force", "-f", "-"], &text).await?;
    nothing_left(&world, "app=guestbook").await
}

async fn logs(world: World) -> Result<()> {
    let script = "i=0; while [ $i -lt 20 ]; do echo \"line $i of the log\"; i=$((i+1)); done; sleep 3; echo last; sleep 600";
    world.create("v1", "pods", &world.shell("logger", script)).await?;
    let all = until(SOON, || async {
        let said = world.kubectl(&["logs", "logger", "main"]).await?;
        holds("all is written", said.ends_with("last\n"), &json!(said))?;
        Ok(said)
    })
    .await?;
    same("how many lines", &json!(all.lines().count()), &json!(21))?;
    let one = world.kubectl(&["logs", "logger", "main", "--tail=1"]).await?;
    same("the last line", &json!(one), &json!("last\n"))?;
    let byte = world.kubectl(&["logs", "logger", "main", "--limit-bytes=1"]).await?;
    same("the first byte", &json!(byte), &json!("l"))?;
    let stamped = world.kubectl(&["logs", "logger", "main", "--tail=1", "--timestamps"]).await?;
    let (stamp, rest) = stamped.split_once(' ').context("a time, and the line")?;
    same("the line", &json!(rest), &json!("last\n"))?;
    let is_time = stamp.len() > 20 && stamp.contains('T') && stamp.starts_with("20");
    holds("the time", is_time, &json!(stamp))?;
    recent(&world, stamp).await
}

/// Only what is young enough, by age and by time.
async fn recent(world: &World, last: &str) -> Result<()> {
    let said = world.kubectl(&["logs", "logger", "main", "--since=24h"]).await?;
    same("of a day", &json!(said.lines().count()), &json!(21))?;
    let since = format!("--since-time={last}");
    let said = world.kubectl(&["logs", "logger", "main", &since]).await?;
    same("since the last", &json!(said), &json!("last\n"))?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = world.kubectl(&["logs", "logger", "main", "--since=1s"]).await?;
    same("of a second", &json!(said), &json!(""))
}

/// kubectl as a proxy; gives what it says first.
async fn proxy(world: &World, arguments: &[&str]) -> Result<(Child, String)> {
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&world.kubeconfig_file)
        .arg("proxy")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start kubectl")?;
    let stdout = child.stdout.take().context("it is piped")?;
    let mut line = String::new();
    tokio::time::timeout(SOON, BufReader::new(stdout).read_line(&mut line)).await??;
    if line.is_empty() {
        bail!("kubectl proxy says nothing");
    }
    Ok((child, line))
}

/// Asks for `/api/` in plain HTTP.
async fn api_versions(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> Result<Value> {
    let request = "GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head and a body")?;
    holds("it is fine", head.split_whitespace().nth(1) == Some("200"), &json!(head))?;
    Ok(serde_json::from_str(body)?)
}

fn has_versions(answer: &Value) -> Result<()> {
    same("its kind", &answer["kind"], &json!("APIVersions"))?;
    same("its versions", &answer["versions"], &json!(["v1"]))
}

async fn proxy_at_port(world: World) -> Result<()> {
    let (_child, line) = proxy(&world, &["--port=0", "--disable-filter=true"]).await?;
    let address = line.trim().rsplit(' ').next().unwrap_or_default();
    let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let port = port.with_context(|| format!("a port in {line:?}"))?;
    holds("a port of its own", port != 0, &json!(port))?;
    has_versions(&api_versions(TcpStream::connect(("127.0.0.1", port)).await?).await?)
}

async fn proxy_at_socket(world: World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("proxy.sock");
    let argument = format!("--unix-socket={}", path.display());
    let (_child, _) = proxy(&world, &[&argument]).await?;
    let stream = until(SOON, || async { Ok(UnixStream::connect(&path).await?) }).await?;
    has_versions(&api_versions(stream).await?)
}
