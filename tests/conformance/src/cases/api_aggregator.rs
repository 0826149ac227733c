//! An aggregated API server. The runner plays it: upstream's sample server in a pod would do the
//! same by the same way, a Service that an APIService names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::serve::{Request, Server};
use crate::world::{World, condition, holds, items, name_of, same, until};

const SOON: Duration = Duration::from_secs(60);
const REGISTRATION: &str = "apiregistration.k8s.io/v1";
const VERSION: &str = "v1alpha1";

cases! {
    "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [Conformance]"
        => sample,
}

/// Objects of one kind, by their paths; the names of who asked.
#[derive(Default)]
struct Sample {
    group: String,
    flunders: BTreeMap<String, Value>,
    users: Vec<String>,
}

impl Sample {
    fn answer(&mut self, request: Request) -> (u16, Value) {
        self.users.extend(request.user.clone());
        let root = format!("/apis/{}", self.group);
        let version = format!("{root}/{VERSION}");
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", path) if path == root => (200, self.group_document()),
            ("GET", path) if path == version => (200, self.version_document()),
            (method, path) if path.starts_with(&version) => {
                self.flunder(method, path.to_owned(), request.body)
            }
            _ => (404, not_found()),
        }
    }

    fn group_document(&self) -> Value {
        let version =
            json!({"groupVersion": format!("{}/{VERSION}", self.group), "version": VERSION});
        json!({
            "apiVersion": "v1", "kind": "APIGroup", "name": self.group,
            "versions": [version], "preferredVersion": version,
        })
    }

    fn version_document(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "APIResourceList",
            "groupVersion": format!("{}/{VERSION}", self.group),
            "resources": [{
                "name": "flunders", "singularName": "flunder", "namespaced": true,
                "kind": "Flunder", "verbs": ["create", "delete", "get", "list", "update"],
            }],
        })
    }

    fn flunder(&mut self, method: &str, path: String, body: Value) -> (u16, Value) {
        let is_list = path.ends_with("/flunders");
        match method {
            "POST" if is_list => {
                let mut made = body;
                made["metadata"]["resourceVersion"] = json!("1");
                self.flunders.insert(format!("{path}/{}", name_of(&made)), made.clone());
                (201, made)
            }
            "GET" if is_list => {
                let all: Vec<_> = self.flunders.values().collect();
                let version = format!("{}/{VERSION}", self.group);
                let metadata = json!({"resourceVersion": "1"});
                let list = json!({"apiVersion": version, "kind": "FlunderList", "metadata": metadata, "items": all});
                (200, list)
            }
            "GET" => self.flunders.get(&path).map_or((404, not_found()), |one| (200, one.clone())),
            "PUT" => {
                self.flunders.insert(path, body.clone());
                (200, body)
            }
            "DELETE" => match self.flunders.remove(&path) {
                Some(_) => {
                    (200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}))
                }
                None => (404, not_found()),
            },
            _ => (405, not_found()),
        }
    }
}

fn not_found() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound",
        "code": 404, "message": "there is no such thing",
    })
}

async fn register(world: &World, server: &Server, group: &str) -> Result<String> {
    let object = json!({
        "apiVersion": REGISTRATION, "kind": "APIService",
        "metadata": {"name": format!("{VERSION}.{group}"), "labels": {"case": world.ns}},
        "spec": {
            "group": group, "version": VERSION, "service": server.service(None),
            "groupPriorityMinimum": 2000, "versionPriority": 200,
            "caBundle": server.ca_bundle(),
        },
    });
    let made = world.create_global(REGISTRATION, "apiservices", &object).await?;
    let path = world.global(REGISTRATION, "apiservices", name_of(&made));
    let what = "it is available";
    let is_available = |service: &Value| condition(service, "Available") == Some("True");
    world.wait(what, &path, SOON, is_available).await?;
    Ok(path)
}

async fn sample(world: World) -> Result<()> {
    let group = format!("{}.sample.example.com", world.ns);
    let sample = Arc::new(Mutex::new(Sample { group: group.clone(), ..Sample::default() }));
    let answering = sample.clone();
    let server = Server::start(
        &world,
        Arc::new(move |request| {
            let answer = answering.lock().unwrap_or_else(PoisonError::into_inner).answer(request);
            Box::pin(std::future::ready(answer))
        }),
    )
    .await?;
    let service = register(&world, &server, &group).await?;
    discovered(&world, &group).await?;
    flunders(&world, &group).await?;
    let users = sample.lock().unwrap_or_else(PoisonError::into_inner).users.clone();
    holds("it learns who asks", !users.is_empty(), &json!(users))?;
    status(&world, &service).await?;
    let list = world.global(REGISTRATION, "apiservices", "");
    world.api.delete(&format!("{list}?labelSelector=case%3D{}", world.ns)).await?;
    world.wait_gone(&service, SOON).await?;
    let flunders = world.path(&format!("{group}/{VERSION}"), "flunders", "");
    world.wait_gone(&flunders, SOON).await
}

async fn discovered(world: &World, group: &str) -> Result<()> {
    until(SOON, || async {
        let groups = world.api.get("/apis").await?;
        let known = groups["groups"]
            .as_array()
            .is_some_and(|all| all.iter().any(|known| known["name"] == group));
        holds("the group is there", known, &json!(group))?;
        let list = world.api.get(&format!("/apis/{group}/{VERSION}")).await?;
        same("its resource", &list["resources"][0]["name"], &json!("flunders"))
    })
    .await
}

/// Through the cluster's API, by hand and by kubectl.
async fn flunders(world: &World, group: &str) -> Result<()> {
    let version = format!("{group}/{VERSION}");
    let object = |name: &str| json!({"apiVersion": version, "kind": "Flunder", "metadata": {"name": name, "namespace": world.ns}, "spec": {}});
    let made = world.create(&version, "flunders", &object("one")).await?;
    same("its name", &made["metadata"]["name"], &json!("one"))?;
    let all = world.path(&version, "flunders", "");
    same("how many", &json!(items(&world.api.get(&all).await?).len()), &json!(1))?;
    world
        .kubectl_with(&["create", "--validate=false", "-f", "-"], &object("two").to_string())
        .await?;
    same("how many", &json!(items(&world.api.get(&all).await?).len()), &json!(2))?;
    let path = world.path(&version, "flunders", "two");
    same("what is read", &world.api.get(&path).await?["metadata"]["name"], &json!("two"))?;
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound")?;
    world.api.delete(&world.path(&version, "flunders", "one")).await?;
    same("how many", &json!(items(&world.api.get(&all).await?).len()), &json!(0))
}

/// An APIService and its status can be changed.
async fn status(world: &World, path: &str) -> Result<()> {
    let status = format!("{path}/status");
    let read = world.api.get(&status).await?;
    same("available", &json!(condition(&read, "Available")), &json!("True"))?;
    let mut all = read["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.push(json!({
        "type": "StatusPatched", "status": "True", "reason": "E2E", "message": "set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    let patch = json!({"status": {"conditions": all}});
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("as patched", &json!(condition(&patched, "StatusPatched")), &json!("True"))?;
    let patch = json!({"spec": {"versionPriority": 400}});
    let patched = world.api.patch(path, Patch::Strategic, &patch).await?;
    same("its priority", &patched["spec"]["versionPriority"], &json!(400))?;
    let updated = world
        .api
        .update(path, |service| service["metadata"]["labels"]["updated"] = json!("yes"))
        .await?;
    same("its label", &updated["metadata"]["labels"]["updated"], &json!("yes"))
}
