//! The server as its clients see it: requests in, answers out, over a store in memory.

mod aggregating;
mod applying;
mod auditing;
mod authorizing;
mod bodies;
mod custom;
mod deleting;
mod evicting;
mod identity;
mod kinds;
mod listing;
mod mutating;
mod nodes;
mod outside;
mod plugins;
mod policies;
mod proxying;
mod quotas;
mod ranges;
mod refusals;
mod resizing;
mod rights;
mod secure;
mod standards;
mod unstored;
mod watching;
mod webhooks;
mod writing;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kontiki_storage::kv::Kv;
use kontiki_storage::local::LocalKv;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ApiConfig, ApiServer};
use crate::authn::{MASTERS, User};

/// A server in this process with its namespaces.
struct Cluster {
    server: ApiServer,
    kv: Arc<LocalKv>,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    code: u16,
    body: Value,
}

impl Answer {
    /// Code, reason and message of a refusal, as a table of tests compares them.
    fn refusal(&self) -> (u16, &str, &str) {
        let text = |field: &str| self.body[field].as_str().unwrap_or_default();
        (self.code, text("reason"), text("message"))
    }

    fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{}: {}", self.code, self.body);
        self.body
    }
}

impl Cluster {
    async fn start() -> Self {
        Self::with(ApiConfig::default()).await
    }

    async fn with(config: ApiConfig) -> Self {
        let kv = Arc::new(LocalKv::in_memory());
        let store: Arc<dyn Kv> = Arc::clone(&kv) as Arc<dyn Kv>;
        let server = ApiServer::new(store, config).expect("a default server must start");
        server.bootstrap(&server.client()).await.expect("an empty store must take the namespaces");
        Self { server, kv }
    }

    /// A request as an administrator, its answer not read yet.
    async fn send(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
            .body(Body::from(body))
            .expect("a valid request");
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Body>) -> Response {
        self.server.router().oneshot(request).await.expect("a router does not fail")
    }

    /// Another server over the same store, that knows nothing of the first.
    fn another_server(&self) -> Self {
        let store: Arc<dyn Kv> = Arc::clone(&self.kv) as Arc<dyn Kv>;
        let server = ApiServer::new(store, ApiConfig::default()).expect("a server must start");
        Self { server, kv: Arc::clone(&self.kv) }
    }

    async fn call_as(&self, user: &User, method: Method, path: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .extension(Arc::new(user.clone()))
            .body(Body::from(bytes))
            .expect("a valid request");
        read(self.answer(request).await).await
    }

    /// A request from outside, with these headers and no certificate.
    async fn call_with(&self, headers: &[(&str, &str)], method: Method, path: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.answer(request.body(Body::empty()).expect("a valid request")).await).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        read(self.send(method, path, "application/json", bytes).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.call(Method::DELETE, path, options).await
    }

    async fn merge(&self, path: &str, patch: &Value) -> Answer {
        let media = "application/merge-patch+json";
        read(self.send(Method::PATCH, path, media, patch.to_string().into_bytes()).await).await
    }

    /// Creates a ConfigMap in `default`.
    async fn config_map(&self, name: &str, labels: Value) -> Value {
        let body = json!({ "metadata": { "name": name, "labels": labels } });
        self.post(CONFIG_MAPS, &body).await.ok()
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
    })
}

async fn read(response: Response) -> Answer {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer { code, body }
}

fn version_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}
