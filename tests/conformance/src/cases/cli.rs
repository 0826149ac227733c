//! What kubectl does with objects.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cases;
use crate::world::{World, holds, items, name_of, same, until};

const SOON: Duration = Duration::from_secs(90);

cases! {
    "[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]"
        => api_versions,
    "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]"
        => cluster_info,
    "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]"
        => describe,
    "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]"
        => diff,
    "[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]"
        => expose,
    "[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]"
        => label,
    "[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]"
        => patch,
    "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]"
        => replace,
    "[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]"
        => run_pod,
    "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]"
        => dry_run,
    "[sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]"
        => version,
}

/// A replication controller of servers that answer with their names.
pub(super) fn controller(world: &World, name: &str, replicas: usize) -> Value {
    let mut spec = world.server(name, 6379)["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas, "selector": {"app": name},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

/// Waits until that many pods of an app are ready, and returns their names.
pub(super) async fn ready_pods(world: &World, app: &str, count: usize) -> Result<Vec<String>> {
    let path = format!("{}?labelSelector=app%3D{app}", world.path("v1", "pods", ""));
    let all_ready = |list: &Value| {
        items(list).len() == count
            && items(list).iter().all(|pod| crate::world::condition(pod, "Ready") == Some("True"))
    };
    let what = format!("{count} pods of {app} are ready");
    let list = world.wait(&what, &path, SOON, all_ready).await?;
    Ok(items(&list).iter().map(|pod| name_of(pod).to_owned()).collect())
}

/// Creates something with kubectl.
pub(super) async fn create(world: &World, object: &Value) -> Result<String> {
    world.kubectl_with(&["create", "-f", "-"], &object.to_string()).await
}

fn says(said: &str, all: &[&str]) -> Result<()> {
    all.iter().try_for_each(|part| holds(part, said.contains(part), &json!(said)))
}

async fn api_versions(world: World) -> Result<()> {
    let said = world.kubectl(&["api-versions"]).await?;
    holds("v1 is there", said.lines().any(|line| line == "v1"), &json!(said))
}

async fn cluster_info(world: World) -> Result<()> {
    let said = world.kubectl(&["cluster-info"]).await?;
    says(&said, &["Kubernetes control plane", "is running at", "https://"])
}

async fn version(world: World) -> Result<()> {
    let said = world.kubectl(&["version"]).await?;
    says(&said, &["Client Version: v", "Server Version: v"])?;
    let said: Value = serde_json::from_str(&world.kubectl(&["version", "-o", "json"]).await?)?;
    for part in ["major", "minor", "gitVersion", "buildDate", "platform"] {
        for side in ["clientVersion", "serverVersion"] {
            holds(part, said[side][part].as_str().is_some_and(|text| !text.is_empty()), &said)?;
        }
    }
    Ok(())
}

async fn describe(world: World) -> Result<()> {
    create(&world, &controller(&world, "primary", 1)).await?;
    let pods = ready_pods(&world, "primary", 1).await?;
    let image = format!("Image:         {}", world.image);
    let said = world.kubectl(&["describe", "pod", &pods[0]]).await?;
    let ns = format!("Namespace:        {}", world.ns);
    let all = [
        "Name:             primary-",
        &ns,
        "Labels:           app=primary",
        "Annotations:",
        "Node:",
        "Status:           Running",
        "IP:",
        "Controlled By:  ReplicationController/primary",
        &image,
        "State:          Running",
        "QoS Class:",
    ];
    says(&said, &all)?;
    let said = world.kubectl(&["describe", "rc", "primary"]).await?;
    let all = [
        "Name:         primary",
        "Namespace:",
        "Selector:",
        "Labels:",
        "Annotations:",
        "Replicas:     1 current / 1 desired",
        "Pods Status:  1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        "Pod Template:",
        "Image:",
        "Events:",
    ];
    says(&said, &all)?;
    world.kubectl(&["expose", "rc", "primary", "--name=front", "--port=1234"]).await?;
    let said = world.kubectl(&["describe", "service", "front"]).await?;
    let all = [
        "Name:                     front",
        "Namespace:",
        "Labels:",
        "app=primary",
        "Selector:",
        "Type:                     ClusterIP",
        "IP:",
        "Port:",
        "1234/TCP",
        "Endpoints:",
        "Session Affinity:         None",
    ];
    says(&said, &all)?;
    let nodes = world.nodes().await?;
    let node = nodes.first().map_or("", String::as_str);
    let said = world.kubectl(&["describe", "node", node]).await?;
    let all = [
        "Name:",
        "Labels:",
        "Annotations:",
        "CreationTimestamp:",
        "Conditions:",
        "Type",
        "LastHeartbeatTime",
        "Reason",
        "Message",
        "Addresses:",
        "Capacity:",
        "System Info:",
        "Kubelet Version:",
        "Non-terminated Pods:",
    ];
    says(&said, &all)?;
    let said = world.kubectl(&["describe", "namespace", &world.ns]).await?;
    says(&said, &["Name:", "Labels:", "Annotations:", "Status:       Active", "No resource quota"])
}

fn deployment(world: &World, image: &str) -> Value {
    let mut pod = world.sleeper("httpd");
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0]["image"] = json!(image);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "httpd"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "httpd"}},
            "template": {"metadata": {"labels": {"app": "httpd"}}, "spec": pod["spec"]},
        },
    })
}

async fn diff(world: World) -> Result<()> {
    create(&world, &deployment(&world, "httpd.example.com/before:1")).await?;
    let other = deployment(&world, "httpd.example.com/after:1").to_string();
    // A difference is an error of it.
    let found = world.kubectl_with(&["diff", "-f", "-"], &other).await;
    let said = found.map_or_else(|error| format!("{error:#}"), |said| format!("none: {said}"));
    let all = [
        "-        image: httpd.example.com/before:1",
        "-      - image: httpd.example.com/before:1",
        "+        image: httpd.example.com/after:1",
        "+      - image: httpd.example.com/after:1",
    ];
    let has = |sign: char| all.iter().any(|part| part.starts_with(sign) && said.contains(part));
    holds("the old image", has('-'), &json!(said))?;
    holds("the new image", has('+'), &json!(said))?;
    let same_one = deployment(&world, "httpd.example.com/before:1").to_string();
    let said = world.kubectl_with(&["diff", "-f", "-"], &same_one).await?;
    same("where there is no difference", &json!(said), &json!(""))
}

async fn expose(world: World) -> Result<()> {
    create(&world, &controller(&world, "primary", 1)).await?;
    ready_pods(&world, "primary", 1).await?;
    let first = ["expose", "rc", "primary", "--name=rm2", "--port=1234", "--target-port=6379"];
    world.kubectl(&first).await?;
    leads(&world, "rm2", 1234).await?;
    let second = ["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"];
    world.kubectl(&second).await?;
    leads(&world, "rm3", 2345).await
}

/// A Service has that port and leads to the pods' one.
async fn leads(world: &World, name: &str, port: u16) -> Result<()> {
    let service = world.api.get(&world.path("v1", "services", name)).await?;
    let ports = &service["spec"]["ports"];
    same("its ports", &json!(ports.as_array().map(Vec::len)), &json!(1))?;
    same("its port", &ports[0]["port"], &json!(port))?;
    same("where it leads", &ports[0]["targetPort"], &json!(6379))?;
    let endpoints = world.path("v1", "endpoints", name);
    world
        .wait("it has an endpoint", &endpoints, SOON, |endpoints| {
            endpoints["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 1)
                && endpoints["subsets"][0]["ports"][0]["port"] == 6379
        })
        .await?;
    let url = format!("{}:{port}/proxy/", world.path("v1", "services", name));
    until(SOON, || async {
        let said = world.api.text(&url).await?;
        holds("it is served", said.starts_with("primary-"), &json!(said))
    })
    .await
}

async fn label(world: World) -> Result<()> {
    world.create("v1", "pods", &world.sleeper("pause")).await?;
    world.ready("pause").await?;
    let shown = async || world.kubectl(&["get", "pod", "pause", "-L", "testing-label"]).await;
    world.kubectl(&["label", "pods", "pause", "testing-label=testing-label-value"]).await?;
    says(&shown().await?, &["TESTING-LABEL", "testing-label-value"])?;
    world.kubectl(&["label", "pods", "pause", "testing-label-"]).await?;
    let said = shown().await?;
    holds("it is gone", !said.contains("testing-label-value"), &json!(said))
}

async fn patch(world: World) -> Result<()> {
    create(&world, &controller(&world, "primary", 2)).await?;
    for pod in ready_pods(&world, "primary", 2).await? {
        let patch = r#"{"metadata":{"annotations":{"x":"y"}}}"#;
        world.kubectl(&["patch", "pod", &pod, "-p", patch]).await?;
        let read = world.api.get(&world.pod_path(&pod)).await?;
        same("its annotation", &read["metadata"]["annotations"]["x"], &json!("y"))?;
    }
    Ok(())
}

async fn run(world: &World, name: &str) -> Result<()> {
    let image = format!("--image={}", world.image);
    let arguments =
        ["run", name, &image, "--restart=Never", "--labels=run=by-kubectl", "--command", "--"];
    let command = ["/bin/sh", "-c", "trap exit TERM; while true; do sleep 0.1; done"];
    world.kubectl(&[&arguments[..], &command[..]].concat()).await.map(drop)
}

async fn run_pod(world: World) -> Result<()> {
    run(&world, "httpd").await?;
    let pod = world.ready("httpd").await?;
    same("its policy", &pod["spec"]["restartPolicy"], &json!("Never"))?;
    same("its image", &pod["spec"]["containers"][0]["image"], &json!(world.image))?;
    same("its containers", &json!(pod["spec"]["containers"].as_array().map(Vec::len)), &json!(1))
}

async fn replace(world: World) -> Result<()> {
    run(&world, "httpd").await?;
    world.ready("httpd").await?;
    let text = world.kubectl(&["get", "pod", "httpd", "-o", "json"]).await?;
    let other = "docker.io/library/busybox:of-another-tag";
    let changed = text.replace(&world.image, other);
    world.kubectl_with(&["replace", "-f", "-"], &changed).await?;
    let read = world.api.get(&world.pod_path("httpd")).await?;
    same("its image", &read["spec"]["containers"][0]["image"], &json!(other))
}

async fn dry_run(world: World) -> Result<()> {
    run(&world, "httpd").await?;
    world.ready("httpd").await?;
    let other = "docker.io/library/busybox:of-another-tag";
    let patch = json!({"spec": {"containers": [{"name": "httpd", "image": other}]}}).to_string();
    let arguments = ["patch", "pod", "httpd", "-p", &patch, "--dry-run=server", "-o", "json"];
    let said: Value = serde_json::from_str(&world.kubectl(&arguments).await?)?;
    same("what it would be", &said["spec"]["containers"][0]["image"], &json!(other))?;
    let read = world.api.get(&world.pod_path("httpd")).await?;
    same("what it is", &read["spec"]["containers"][0]["image"], &json!(world.image))
}
