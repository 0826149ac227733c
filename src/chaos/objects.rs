//! The workload's objects: ConfigMaps with one value each, in a namespace of their own, through
//! whichever server answers.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::history::Item;
use crate::client;

/// Where the objects are.
pub const NAMESPACE: &str = "kontiki-chaos";
/// How long one request may take. Servers ride out a leader change within it (invariant R10).
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How a write came out.
pub enum Written {
    /// Done, at this revision.
    Done(u64),
    /// Refused: nothing was done.
    Refused(String),
    /// Not even sent.
    NotSent(String),
    /// Nobody knows.
    Unknown(String),
}

/// Clients of etcd match on these words, too.
fn is_for_want_of_room(error: &anyhow::Error) -> bool {
    error.to_string().contains("mvcc: database space exceeded")
}

/// The servers as one client sees them: it stays with one until that one fails.
#[derive(Clone)]
pub struct Objects {
    http: reqwest::Client,
    servers: Vec<String>,
    current: usize,
}

impl Objects {
    /// A client that begins with the server `first`.
    pub fn new(http: reqwest::Client, servers: Vec<String>, first: usize) -> Self {
        let current = first % servers.len().max(1);
        Self { http, servers, current }
    }

    /// Turns to the next server.
    pub fn turn(&mut self) {
        self.current = (self.current + 1) % self.servers.len();
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/api/v1/namespaces{rest}", self.servers[self.current])
    }

    /// The URL of a watch of all objects after a revision.
    pub fn watch_url(&self, revision: u64) -> String {
        self.url(&format!(
            "/{NAMESPACE}/configmaps?watch=true&allowWatchBookmarks=true&resourceVersion={revision}"
        ))
    }

    /// The client, for a watch.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Creates namespace and objects where they are missing.
    pub async fn prepare(&self, keys: &[String]) -> anyhow::Result<()> {
        let namespace = json!({ "metadata": { "name": NAMESPACE } });
        self.create("", &namespace).await.context("create the namespace of the workload")?;
        for key in keys {
            let object = object(key, &format!("{key}-initial"), None);
            self.create(&format!("/{NAMESPACE}/configmaps"), &object).await?;
        }
        Ok(())
    }

    async fn create(&self, rest: &str, object: &Value) -> anyhow::Result<()> {
        let request = self.http.post(self.url(rest)).json(object).timeout(REQUEST_DEADLINE);
        let answer = request.send().await.map_err(client::why)?;
        if answer.status() == StatusCode::CONFLICT {
            return Ok(());
        }
        client::json_answer(answer).await.map(drop)
    }

    /// Writes a value to a key that must be at `base`.
    pub async fn write(&self, key: &str, value: &str, base: u64) -> Written {
        let url = self.url(&format!("/{NAMESPACE}/configmaps/{key}"));
        let body = object(key, value, Some(base));
        let answer = match self.http.put(url).json(&body).timeout(REQUEST_DEADLINE).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => {
                return Written::NotSent(client::why(error).to_string());
            }
            Err(error) => return Written::Unknown(client::why(error).to_string()),
        };
        let status = answer.status();
        match client::json_answer(answer).await.and_then(|object| item(&object)) {
            Ok(item) => Written::Done(item.revision),
            // Only a 4xx says for certain that nothing was done, and the refusal of a full disk.
            Err(error) if status.is_client_error() || is_for_want_of_room(&error) => {
                Written::Refused(format!("{error:#}"))
            }
            Err(error) => Written::Unknown(format!("{error:#}")),
        }
    }

    /// Reads one key.
    pub async fn read(&self, key: &str) -> anyhow::Result<Item> {
        let url = self.url(&format!("/{NAMESPACE}/configmaps/{key}"));
        item(&client::get_json(&self.http, &url, REQUEST_DEADLINE).await?)
    }

    /// Reads all keys, with the revision of the answer.
    pub async fn list(&self) -> anyhow::Result<(u64, Vec<Item>)> {
        let url = self.url(&format!("/{NAMESPACE}/configmaps"));
        let list = client::get_json(&self.http, &url, REQUEST_DEADLINE).await?;
        let items = list["items"].as_array().context("the list has no items")?;
        // The cluster's own ConfigMaps (kube-root-ca.crt) may live in the namespace as well.
        let items =
            items.iter().filter(|object| is_ours(object)).map(item).collect::<Result<_, _>>();
        Ok((revision(&list)?, items?))
    }
}

fn object(key: &str, value: &str, base: Option<u64>) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": key, "namespace": NAMESPACE },
        "data": { "value": value },
    });
    if let Some(base) = base {
        object["metadata"]["resourceVersion"] = json!(base.to_string());
    }
    object
}

/// Whether an object is one of the workload's.
pub fn is_ours(object: &Value) -> bool {
    object["data"]["value"].is_string()
}

/// The value and revision of an object.
pub fn item(object: &Value) -> anyhow::Result<Item> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (Some(key), Some(value)) =
        (text(&object["metadata"]["name"]), text(&object["data"]["value"]))
    else {
        bail!("not an object of the workload: {object}");
    };
    Ok(Item { key, value, revision: revision(object)? })
}

/// The revision of an object or a list.
pub fn revision(object: &Value) -> anyhow::Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    text.parse().with_context(|| format!("resourceVersion {text} is no number"))
}
