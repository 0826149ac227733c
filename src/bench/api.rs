//! Loads through the Kubernetes API: ConfigMaps created, read, listed.

use std::time::Duration;

use anyhow::Context;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::load::Request;
use crate::client;
use crate::kubeconfig::Kubeconfig;

/// Where the objects are; made for a run, deleted after it.
pub const NAMESPACE: &str = "kontiki-bench";
/// How long one request may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How many objects reads have to choose from.
const OBJECTS: u64 = 500;
/// Connections at most, whatever the number of clients: as clients of one machine share them.
pub const CONNECTIONS_MAX: usize = 8;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Create ConfigMaps.
    Write,
    /// Get one ConfigMap of many.
    Get,
    /// List five hundred ConfigMaps.
    List,
    /// Watch ConfigMaps that one client changes: from its request to each watcher.
    Watch,
}

impl Workload {
    /// Its name in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "create ConfigMap",
            Self::Get => "get ConfigMap",
            Self::List => "list 500 ConfigMaps",
            Self::Watch => "watch ConfigMap",
        }
    }
}

/// The servers that are loaded, over a few connections to each.
#[derive(Clone)]
pub struct Api {
    https: Vec<reqwest::Client>,
    servers: Vec<String>,
    /// A ConfigMap's value.
    value: String,
}

impl Api {
    /// For the servers at these URLs.
    pub fn new(
        kubeconfig: &Kubeconfig,
        servers: Vec<String>,
        value_bytes: usize,
    ) -> anyhow::Result<Self> {
        // One client holds one HTTP/2 connection to each server.
        let count = (CONNECTIONS_MAX / servers.len().max(1)).max(1);
        let https = (0..count).map(|_| client::for_kubeconfig(kubeconfig));
        Ok(Self {
            https: https.collect::<Result<_, _>>()?,
            servers,
            value: "v".repeat(value_bytes),
        })
    }

    /// The connection and server of one client.
    pub fn session(&self, client: u64) -> (&reqwest::Client, &str) {
        let client = usize::try_from(client).unwrap_or(0);
        let server = &self.servers[client % self.servers.len()];
        (&self.https[client / self.servers.len() % self.https.len()], server)
    }

    /// The path of all objects at a server.
    pub fn url(server: &str) -> String {
        format!("{server}/api/v1/namespaces/{NAMESPACE}/configmaps")
    }

    /// Makes the namespace, and what reads need.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let (http, server) = self.session(0);
        let namespace = json!({ "metadata": { "name": NAMESPACE } });
        post(http, &format!("{server}/api/v1/namespaces"), &namespace).await?;
        let url = Self::url(server);
        let numbers: Vec<u64> = (0..OBJECTS).collect();
        for some in numbers.chunks(CONNECTIONS_MAX * 2) {
            let bodies = some.iter().map(|number| object(&format!("object-{number}"), &self.value));
            let posts = bodies.map(|body| {
                let url = &url;
                async move { post(http, url, &body).await }
            });
            futures_util::future::try_join_all(posts).await?;
        }
        Ok(())
    }

    /// Deletes the namespace and all in it.
    pub async fn clean_up(&self) -> anyhow::Result<()> {
        let (http, server) = self.session(0);
        let url = format!("{server}/api/v1/namespaces/{NAMESPACE}");
        let answer = http.delete(url).timeout(DEADLINE).send().await.map_err(client::why)?;
        client::json_answer(answer).await.context("delete the namespace of the run")?;
        Ok(())
    }
}

async fn post(http: &reqwest::Client, url: &str, body: &Value) -> anyhow::Result<()> {
    let answer = http.post(url).json(body).timeout(DEADLINE).send().await.map_err(client::why)?;
    if answer.status() == StatusCode::CONFLICT {
        return Ok(());
    }
    client::json_answer(answer).await.map(drop)
}

/// A ConfigMap.
pub fn object(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "data": { "value": value },
    })
}

/// One client of a load.
#[derive(Clone)]
pub struct ApiRequest {
    api: Api,
    workload: Workload,
    /// Distinguishes the objects of this run from those of earlier ones.
    run: u32,
}

impl ApiRequest {
    /// A client that does `workload`.
    pub fn new(api: &Api, workload: Workload, run: u32) -> Self {
        Self { api: api.clone(), workload, run }
    }
}

impl Request for ApiRequest {
    async fn send(&mut self, client: u64, number: u64) -> anyhow::Result<()> {
        let (http, server) = self.api.session(client);
        let url = Api::url(server);
        let request = match self.workload {
            Workload::Write => {
                let name = format!("run-{}-{client}-{number}", self.run);
                http.post(&url).json(&object(&name, &self.api.value))
            }
            Workload::Get => {
                let chosen = (client * 7919 + number * 31) % OBJECTS;
                http.get(format!("{url}/object-{chosen}"))
            }
            // Those that are listed are named, so that what is written meanwhile does not count.
            Workload::List | Workload::Watch => http.get(format!("{url}?limit={OBJECTS}")),
        };
        let answer = request.timeout(DEADLINE).send().await.map_err(client::why)?;
        if answer.status().is_success() {
            // The body must be here, but need not be understood.
            answer.bytes().await.map_err(client::why)?;
            return Ok(());
        }
        client::json_answer(answer).await.map(drop)
    }
}
