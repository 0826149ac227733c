//! What a case has: a namespace of its own, the API, and ways to run pods.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, Patch, code_of};
use crate::kubeconfig::Kubeconfig;
use crate::leftovers::Leftovers;

/// How long a pod may take to run, or to end.
pub const POD_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(250);

/// What a case may use.
#[derive(Debug, Clone)]
pub struct World {
    /// An administrator's client.
    pub api: Api,
    /// The case's namespace.
    pub ns: String,
    /// An image with busybox.
    pub image: String,
    /// For kubectl and clients of other users.
    pub kubeconfig_file: PathBuf,
    /// What it says.
    pub kubeconfig: Kubeconfig,
    /// What is not the case's own and goes back with it.
    pub leftovers: Leftovers,
}

/// The path of a group and version, as `v1` or `apps/v1`.
fn root(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}

fn join(path: String, name: &str) -> String {
    if name.is_empty() { path } else { format!("{path}/{name}") }
}

/// How often a stream is opened again.
const BROKEN_MAX: u32 = 3;

/// Whether kubectl complains of its connection, and not of what it was told.
fn is_broken(error: &anyhow::Error) -> bool {
    let said = error.to_string();
    ["unexpected EOF", "connection reset by peer", "connection refused", "error: EOF"]
        .iter()
        .any(|words| said.contains(words))
}

impl World {
    /// Path of an object, or of the collection where `name` is empty, in this namespace.
    pub fn path(&self, version: &str, plural: &str, name: &str) -> String {
        self.path_in(&self.ns, version, plural, name)
    }

    /// The same in another namespace.
    pub fn path_in(&self, ns: &str, version: &str, plural: &str, name: &str) -> String {
        join(format!("{}/namespaces/{ns}/{plural}", root(version)), name)
    }

    /// Path of what is in no namespace, or of a collection over all.
    pub fn global(&self, version: &str, plural: &str, name: &str) -> String {
        join(format!("{}/{plural}", root(version)), name)
    }

    /// A name for what is in no namespace, unlike that of any other case.
    pub fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.ns)
    }

    /// Path of a pod of this namespace.
    pub fn pod_path(&self, name: &str) -> String {
        self.path("v1", "pods", name)
    }

    /// A pod that runs `command` once. Change what it says before it is created.
    pub fn pod(&self, name: &str, command: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"name": name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent",
                    "command": command,
                }],
            },
        })
    }

    /// A pod whose shell runs `script`.
    pub fn shell(&self, name: &str, script: &str) -> Value {
        self.pod(name, &["/bin/sh", "-c", script])
    }

    /// A pod that waits until it is ended.
    pub fn sleeper(&self, name: &str) -> Value {
        self.shell(name, "trap exit TERM; sleep 100000 & wait")
    }

    /// A pod that answers HTTP on `port` with its name at `/`.
    pub fn server(&self, name: &str, port: u16) -> Value {
        let script = format!(
            "mkdir -p /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p {port} -h /tmp/www"
        );
        let mut pod = self.shell(name, &script);
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
        pod["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/", "port": port}, "periodSeconds": 1});
        pod
    }

    /// Creates something in this namespace.
    pub async fn create(&self, version: &str, plural: &str, object: &Value) -> Result<Value> {
        self.api.create(&self.path(version, plural, ""), object).await
    }

    /// Creates something that is in no namespace; it goes away with the case.
    pub async fn create_global(
        &self,
        version: &str,
        plural: &str,
        object: &Value,
    ) -> Result<Value> {
        let made = self.api.create(&self.global(version, plural, ""), object).await?;
        self.leftovers.note(self.global(version, plural, name_of(&made)));
        Ok(made)
    }

    /// Patches what is not the case's own; `undo` takes that back when the case is over.
    pub async fn change(&self, path: String, patch: &Value, undo: Value) -> Result<Value> {
        self.leftovers.note_change(path.clone(), undo);
        self.api.patch(&path, Patch::Strategic, patch).await
    }

    /// Waits until what is at `path` fits, and returns it.
    pub async fn wait(
        &self,
        what: &str,
        path: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let until = Instant::now() + limit;
        loop {
            let now = self.api.get(path).await;
            if let Ok(object) = &now
                && fits(object)
            {
                return now;
            }
            if Instant::now() >= until {
                let seen =
                    now.map_or_else(|error| format!("{error:#}"), |now| brief(now).to_string());
                bail!("not within {limit:?}: {what}; last seen: {seen}");
            }
            sleep(POLL).await;
        }
    }

    /// Waits until there is nothing at `path`.
    pub async fn wait_gone(&self, path: &str, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let now = self.api.get(path).await;
            match &now {
                Err(error) if code_of(error) == Some(404) => return Ok(()),
                _ if Instant::now() >= until => bail!("{path} is there after {limit:?}: {now:?}"),
                _ => sleep(POLL).await,
            }
        }
    }

    /// Creates a pod and waits until it is ready.
    pub async fn run(&self, pod: &Value) -> Result<Value> {
        let made = self.create("v1", "pods", pod).await?;
        self.ready(name_of(&made)).await
    }

    /// Waits until a pod is ready.
    pub async fn ready(&self, name: &str) -> Result<Value> {
        let what = format!("pod {name} is ready");
        self.wait(&what, &self.pod_path(name), POD_WITHIN, |pod| {
            condition(pod, "Ready") == Some("True")
        })
        .await
    }

    /// Waits until a pod has ended, and returns it.
    pub async fn ended(&self, name: &str) -> Result<Value> {
        let what = format!("pod {name} has ended");
        self.wait(&what, &self.pod_path(name), POD_WITHIN, |pod| {
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        })
        .await
    }

    /// Creates a pod, waits until it has succeeded, and returns what its container `main` wrote.
    pub async fn output(&self, pod: &Value) -> Result<String> {
        let made = self.create("v1", "pods", pod).await?;
        let name = name_of(&made);
        let ended = self.ended(name).await?;
        let logs = self.logs(name, "main").await?;
        if ended["status"]["phase"] != "Succeeded" {
            bail!("pod {name} has failed: {}; it said: {logs}", ended["status"]);
        }
        Ok(logs)
    }

    /// What a container has written.
    pub async fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.api.text(&format!("{}/log?container={container}", self.pod_path(pod))).await
    }

    /// Runs a shell's `script` in a container of a pod, and returns what it writes.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "/bin/sh", "-c", script]).await
    }

    /// Runs kubectl in this namespace, and returns what it prints; what it complains of is an error. A
    /// stream dies with the server that it goes through: it is opened again, as a person would do.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let is_stream = arguments.first().is_some_and(|verb| matches!(*verb, "exec" | "logs"));
        for _ in 0..BROKEN_MAX {
            match self.kubectl_with(arguments, "").await {
                Err(error) if is_stream && is_broken(&error) => {
                    eprintln!("again, as the connection broke: {error:#}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                other => return other,
            }
        }
        self.kubectl_with(arguments, "").await
    }

    /// The same with an input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        use tokio::io::AsyncWriteExt as _;
        let mut child = tokio::process::Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig_file)
            .args(["--namespace", &self.ns])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = tokio::time::timeout(POD_WITHIN, child.wait_with_output())
            .await
            .with_context(|| format!("kubectl {arguments:?} takes too long"))??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        bail!("kubectl {arguments:?}: {}{text}", String::from_utf8_lossy(&output.stderr))
    }

    /// Another namespace; it goes away with the case.
    pub async fn namespace(&self, suffix: &str) -> Result<String> {
        let name = format!("{}-{suffix}", self.ns);
        self.leftovers.note(self.global("v1", "namespaces", &name));
        let object = json!({"metadata": {"name": name, "labels": {"conformance": self.ns}}});
        self.api.create("/api/v1/namespaces", &object).await?;
        Ok(name)
    }

    /// Names of the nodes that are ready and take any pod.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let list = self.api.get("/api/v1/nodes").await?;
        let usable = |node: &&Value| {
            condition(node, "Ready") == Some("True")
                && node["spec"]["unschedulable"] != true
                && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
        };
        Ok(items(&list).iter().filter(usable).map(|node| name_of(node).to_owned()).collect())
    }
}

/// An object without what only tells who wrote which field.
fn brief(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

/// Tries again until `attempt` succeeds, or gives its last error after `limit`.
pub async fn until<T, F: Future<Output = Result<T>>>(
    limit: Duration,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt().await {
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("not within {limit:?}")));
            }
            Err(_) => sleep(POLL).await,
            done => return done,
        }
    }
}

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What a list holds.
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|known| known["type"] == kind)?["status"].as_str()
}

/// Fails with both where they differ.
pub fn same(what: &str, found: &Value, expected: &Value) -> Result<()> {
    if found == expected { Ok(()) } else { bail!("{what}: found {found}, expected {expected}") }
}

/// Fails with `found` where something does not hold.
pub fn holds(what: &str, is_so: bool, found: &Value) -> Result<()> {
    if is_so { Ok(()) } else { bail!("{what}: {found}") }
}
