//! The cluster as hollow nodes call it: over several connections, since one bears only so many
//! requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client;
use crate::kubeconfig::Kubeconfig;

/// How many connections there are.
const CONNECTIONS: usize = 8;
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(30);
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A cluster.
#[derive(Debug)]
pub struct Api {
    clients: Vec<reqwest::Client>,
    turn: AtomicUsize,
    servers: Vec<String>,
}

impl Api {
    /// As who the kubeconfig says, at these servers in turn.
    pub fn new(kubeconfig: &Kubeconfig, servers: Vec<String>) -> anyhow::Result<Self> {
        let clients = (0..CONNECTIONS).map(|_| client::for_kubeconfig(kubeconfig));
        Ok(Self { clients: clients.collect::<Result<_, _>>()?, turn: AtomicUsize::new(0), servers })
    }

    /// A client and the server to ask.
    fn next(&self) -> (&reqwest::Client, &str) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (&self.clients[turn % self.clients.len()], &self.servers[turn % self.servers.len()])
    }

    fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        let (http, server) = self.next();
        http.request(method, format!("{server}{path}"))
    }

    /// GET, as JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = answered(self.request(reqwest::Method::GET, path), Missing::IsAnError).await;
        answer.with_context(|| format!("get {path}"))
    }

    /// All objects of a list.
    pub async fn list<K: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<Arc<K>>> {
        let mut list = self.get(path).await?;
        let Value::Array(items) = list["items"].take() else { return Ok(Vec::new()) };
        let items = items.into_iter().map(serde_json::from_value::<K>);
        items
            .map(|item| Ok(Arc::new(item.with_context(|| format!("read an object of {path}"))?)))
            .collect()
    }

    /// Creates an object, unless it is there.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let request = self.request(reqwest::Method::POST, path).json(object);
        let answer = request.timeout(DEADLINE).send().await.map_err(client::why)?;
        if answer.status() == StatusCode::CONFLICT {
            return Ok(());
        }
        client::json_answer(answer).await.map(drop)
    }

    /// Changes an object.
    pub async fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<()> {
        self.patch(path, MERGE, patch, Missing::IsAnError).await
    }

    /// Changes the status of an object.
    pub async fn patch_status(&self, path: &str, patch: &Value) -> anyhow::Result<()> {
        self.patch(&format!("{path}/status"), STRATEGIC, patch, Missing::IsAnError).await
    }

    /// The same, of one that may be gone meanwhile.
    pub async fn patch_status_if_there(&self, path: &str, patch: &Value) -> anyhow::Result<()> {
        self.patch(&format!("{path}/status"), STRATEGIC, patch, Missing::IsFine).await
    }

    async fn patch(
        &self,
        path: &str,
        media: &str,
        patch: &Value,
        missing: Missing,
    ) -> anyhow::Result<()> {
        let request = self.request(reqwest::Method::PATCH, path);
        let request = request.header(CONTENT_TYPE, media).body(patch.to_string());
        answered(request, missing).await.map(drop)
    }

    /// Deletes an object at once, with a UID only that very one; one that is gone is fine.
    pub async fn delete(&self, path: &str, uid: Option<&str>) -> anyhow::Result<()> {
        let mut options = json!({ "gracePeriodSeconds": 0 });
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        let request = self.request(reqwest::Method::DELETE, path).json(&options);
        answered(request, Missing::IsFine).await.map(drop)
    }

    /// A watch; its stream has no deadline.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Events> {
        let (http, server) = self.next();
        let asked = http.get(format!("{server}{path}")).send();
        let answer = tokio::time::timeout(DEADLINE, asked).await.context("no answer in time")?;
        let answer = answer.map_err(client::why)?;
        if !answer.status().is_success() {
            client::json_answer(answer).await?;
            anyhow::bail!("the watch was not begun");
        }
        let chunks = answer.bytes_stream().map(|chunk| chunk.map(Vec::from)).boxed();
        Ok(Events { chunks, text: Vec::new(), from: 0 })
    }
}

/// An event of a watch.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object.
    pub object: Value,
}

/// The events of a watch.
pub struct Events {
    chunks: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: Vec<u8>,
    /// What lies before it has been told.
    from: usize,
}

impl Events {
    /// The next event; none where the watch ended. An error in the watch is one here.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(length) = self.text[self.from..].iter().position(|byte| *byte == b'\n') {
                let event: Event =
                    serde_json::from_slice(&self.text[self.from..self.from + length])?;
                self.from += length + 1;
                if event.kind == "ERROR" {
                    let why = event.object["message"].as_str().unwrap_or("the watch ended");
                    anyhow::bail!("{why}");
                }
                return Ok(Some(event));
            }
            self.text.drain(..self.from);
            self.from = 0;
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.text.extend_from_slice(&chunk),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// What it means that there is no such object, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAnError,
    IsFine,
}

async fn answered(request: RequestBuilder, missing: Missing) -> anyhow::Result<Value> {
    let answer = request.timeout(DEADLINE).send().await.map_err(client::why)?;
    let is_missing = matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::CONFLICT);
    if is_missing && missing == Missing::IsFine {
        return Ok(Value::Null);
    }
    client::json_answer(answer).await
}
