//! [`Outbound`]: calls to webhooks and to aggregated API servers, by the address or the Service that
//! a `clientConfig` or an APIService names.
//!
//! Every call has a deadline and a bound on its answer; connections are kept while they are used
//! and belong to one address, so that endpoints that move are followed at once.

mod connection;
mod kubeconfig;

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use serde_json::Value;

pub(crate) use connection::{Credentials, proxying, trusting_in as trusting};
pub(crate) use kubeconfig::Kubeconfig;

use crate::registry::Registry;
use connection::{Resolved, Trust};

/// The longest answer that is read: an object and a patch of it.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How many clients are kept; when there are more, all are made anew.
const CLIENTS_MAX: usize = 256;
const SERVICE_PORT: u16 = 443;

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    trust: Trust,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

impl Target {
    /// What a `clientConfig` says, or the `spec` of an APIService, which names no path.
    pub(crate) fn of(config: &Value) -> Self {
        let text = |pointer: &str| {
            config.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let port = config.pointer("/service/port").and_then(Value::as_u64);
        let place = match config.get("url").and_then(Value::as_str) {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::Service {
                namespace: text("/service/namespace"),
                name: text("/service/name"),
                port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(SERVICE_PORT),
                path: text("/service/path"),
            },
        };
        Self { trust: trust(config), place }
    }

    /// The address in words.
    fn url(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::Service { namespace, name, port, path } => {
                format!("https://{name}.{namespace}.svc:{port}/{}", path.trim_start_matches('/'))
            }
        }
    }
}

fn trust(config: &Value) -> Trust {
    if config.get("insecureSkipTLSVerify") == Some(&Value::Bool(true)) {
        return Trust::Anybody;
    }
    let bundle = config.get("caBundle").and_then(Value::as_str).unwrap_or_default();
    let engine = base64::engine::general_purpose::STANDARD;
    Trust::Authorities(engine.decode(bundle).unwrap_or_default())
}

/// Whom a client trusts, and the one name that it knows.
type ClientKey = (Trust, Option<Resolved>);

/// Calls webhooks, or aggregated API servers.
#[derive(Default)]
pub(crate) struct Outbound {
    own: Option<Credentials>,
    clients: Mutex<HashMap<ClientKey, Client>>,
}

impl Outbound {
    /// With these credentials, where there are any.
    pub(crate) fn with(own: Option<Credentials>) -> Self {
        Self { own, clients: Mutex::default() }
    }

    /// Where a target is now, and who calls it.
    pub(crate) async fn reach(
        &self,
        registry: &Registry,
        target: &Target,
    ) -> Result<(Client, Url), String> {
        let (url, resolved) = locate(registry, target).await?;
        Ok((self.client(target, resolved).await?, url))
    }

    /// Posts a document, gives the answer's. The error says what went wrong, with the address.
    pub(crate) async fn post(
        &self,
        registry: &Registry,
        target: &Target,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        let url = format!("{}?timeout={}s", target.url(), limit.as_secs());
        let called = tokio::time::timeout(limit, self.call(registry, target, body, limit)).await;
        called
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            .map_err(|why| format!("Post {url:?}: {why}"))
    }

    async fn call(
        &self,
        registry: &Registry,
        target: &Target,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        let (client, mut url) = self.reach(registry, target).await?;
        url.query_pairs_mut().append_pair("timeout", &format!("{}s", limit.as_secs()));
        let response = client.post(url).json(body).send().await.map_err(|e| in_full(&e))?;
        let code = response.status();
        let answer = read(response).await?;
        if !code.is_success() {
            let text = String::from_utf8_lossy(&answer);
            let text: String = text.trim().chars().take(512).collect();
            return Err(format!("the server answered {code}: {text}"));
        }
        serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON: {error}"))
    }

    async fn client(&self, target: &Target, resolved: Option<Resolved>) -> Result<Client, String> {
        let key = (target.trust.clone(), resolved);
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        // Files may be read: neither on the runtime, nor while others wait for the lock.
        let (own, wanted) = (self.own.clone(), key.clone());
        let making = move || connection::make(&wanted.0, own.as_ref(), wanted.1.as_ref());
        let client = tokio::task::spawn_blocking(making).await.map_err(|e| e.to_string())??;
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        // Who was first to make it has connections already.
        Ok(clients.entry(key).or_insert(client).clone())
    }
}

/// Where to call, and for a Service the address that its name stands for now.
async fn locate(registry: &Registry, target: &Target) -> Result<(Url, Option<Resolved>), String> {
    let Place::Service { namespace, name, port, path } = &target.place else {
        return Ok((Url::parse(&target.url()).map_err(|error| error.to_string())?, None));
    };
    let address = registry.endpoint(namespace, name, *port).await?;
    let host = format!("{name}.{namespace}.svc");
    let url = format!("https://{host}:{}/{}", address.port(), path.trim_start_matches('/'));
    Ok((Url::parse(&url).map_err(|error| error.to_string())?, Some((host, address))))
}

/// An answer whole, where it is not too long.
pub(crate) async fn read(response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(part) = stream.next().await {
        content.extend_from_slice(&part.map_err(|error| in_full(&error))?);
        if content.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(content)
}

/// An error with what lies behind it, without the address again.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut all = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    if all.is_empty() { error.to_string() } else { all.join(": ") }
}
