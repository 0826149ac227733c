//! The Kubernetes API as plain JSON over HTTP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::kubeconfig::Kubeconfig;
use crate::watch::Watch;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What the server refused.
#[derive(Debug, Error)]
#[error("{method} {path}: {code} {body}")]
pub struct Refused {
    /// Of the request.
    pub method: Method,
    /// Of the request.
    pub path: String,
    /// The HTTP status code.
    pub code: u16,
    /// The `Status`, or whatever came.
    pub body: Value,
}

/// Kinds of patches.
#[derive(Debug, Clone, Copy)]
pub enum Patch {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply; the manager goes into the path's query.
    Apply,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// An answer, as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status code.
    pub code: u16,
    /// Names in lower case.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, or as a string where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::String(self.text()))
    }
}

/// A client of one cluster. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    server: String,
}

impl Api {
    /// As whom the kubeconfig says.
    pub fn new(kubeconfig: &Kubeconfig) -> Result<Self> {
        let identity = kubeconfig.identity_pem.as_bytes();
        Self::with(kubeconfig, |config| {
            use rustls_pki_types::pem::PemObject as _;
            let certificates = rustls_pki_types::CertificateDer::pem_slice_iter(identity)
                .collect::<Result<Vec<_>, _>>()
                .context("the client's certificate")?;
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(identity)
                .context("the client's key")?;
            Ok(config.with_client_auth_cert(certificates, key)?)
        })
    }

    /// As nobody; [`Api::send`] may carry a token.
    pub fn anonymous(kubeconfig: &Kubeconfig) -> Result<Self> {
        Self::with(kubeconfig, |config| Ok(config.with_no_client_auth()))
    }

    fn with(
        kubeconfig: &Kubeconfig,
        identify: impl FnOnce(
            rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
        ) -> Result<rustls::ClientConfig>,
    ) -> Result<Self> {
        use rustls_pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        for der in rustls_pki_types::CertificateDer::pem_slice_iter(kubeconfig.ca_pem.as_bytes()) {
            roots.add(der.context("the cluster's authority")?)?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(identify(builder)?)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, server: kubeconfig.server.trim_end_matches('/').to_owned() })
    }

    /// Sends anything; an answer of any status code is one.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut request = self.http.request(method.clone(), format!("{}{path}", self.server));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let answer = timeout(ANSWER_WITHIN, received(request))
                .await
                .with_context(|| format!("{method} {path} was not answered in time"))?;
            match answer {
                // Nothing was sent, or nothing by which anything changes, as clients do it: a server
                // that is away for a moment is no matter.
                Err(error)
                    if (error.is_connect() || method == Method::GET) && Instant::now() < until =>
                {
                    sleep(Duration::from_millis(500)).await;
                }
                answer => return answer.with_context(|| format!("{method} {path}")),
            }
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let headers = [("content-type", content_type), ("accept", "application/json")];
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.send(method.clone(), path, &headers, body).await?;
        let json = answer.json();
        if StatusCode::from_u16(answer.code).is_ok_and(|code| code.is_success()) {
            return Ok(json);
        }
        Err(Refused { method, path: path.to_owned(), code: answer.code, body: json }.into())
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, "application/json", None).await
    }

    /// GET of a body that is text.
    pub async fn text(&self, path: &str) -> Result<String> {
        let answer = self.send(Method::GET, path, &[], None).await?;
        if answer.code == 200 {
            return Ok(answer.text());
        }
        let (code, body) = (answer.code, answer.json());
        Err(Refused { method: Method::GET, path: path.to_owned(), code, body }.into())
    }

    /// POST to a collection or subresource.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.ask(Method::POST, path, "application/json", Some(object)).await
    }

    /// PUT.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.ask(Method::PUT, path, "application/json", Some(object)).await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, kind: Patch, patch: &Value) -> Result<Value> {
        self.ask(Method::PATCH, path, kind.content_type(), Some(patch)).await
    }

    /// DELETE, of an object or a collection.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.ask(Method::DELETE, path, "application/json", None).await
    }

    /// DELETE with options.
    pub async fn delete_with(&self, path: &str, options: &Value) -> Result<Value> {
        self.ask(Method::DELETE, path, "application/json", Some(options)).await
    }

    /// Reads, changes and replaces an object, again after a conflict.
    pub async fn update(&self, path: &str, change: impl Fn(&mut Value)) -> Result<Value> {
        loop {
            let mut object = self.get(path).await?;
            change(&mut object);
            // A subresource is replaced with what it shows.
            match self.replace(path, &object).await {
                Err(error) if code_of(&error) == Some(409) => {}
                other => return other,
            }
        }
    }

    /// Opens a watch; `path` has its query, `watch=true` is added. When the connection breaks, it goes
    /// on behind the last event.
    pub async fn watch(&self, path: &str) -> Result<Watch> {
        let mark = if path.contains('?') { '&' } else { '?' };
        Watch::open(self.clone(), format!("{path}{mark}watch=true")).await
    }

    /// The answer to a GET as soon as it begins.
    pub(crate) async fn opened(&self, target: &str) -> reqwest::Result<reqwest::Response> {
        self.http.get(format!("{}{target}", self.server)).send().await
    }

    /// Opens a WebSocket that speaks `protocol`.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> Result<reqwest::Upgraded> {
        let request = self
            .http
            .get(format!("{}{path}", self.server))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol);
        let answer = timeout(ANSWER_WITHIN, request.send()).await??;
        let code = answer.status().as_u16();
        let chosen = answer.headers().get("sec-websocket-protocol").cloned();
        if code == 101 && chosen.as_ref().is_some_and(|chosen| chosen == protocol) {
            return Ok(answer.upgrade().await?);
        }
        let body = answer.text().await.unwrap_or_default();
        bail!("GET {path}: no WebSocket with {protocol}: {code}, {chosen:?}: {body}")
    }
}

async fn received(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let answer = request.send().await?;
    let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok(Answer { code, headers, body: answer.bytes().await?.to_vec() })
}

/// The code with which something was refused.
pub fn code_of(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refused>().map(|refused| refused.code)
}

/// Expects a refusal with that code and reason, and returns its `Status`.
pub fn refused(result: Result<Value>, code: u16, reason: &str) -> Result<Value> {
    let error = match result {
        Ok(object) => bail!("expected {code} {reason}, and it was done: {object}"),
        Err(error) => error,
    };
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.code == code && refused.body["reason"] == reason => {
            Ok(refused.body.clone())
        }
        _ => Err(error.context(format!("expected {code} {reason}"))),
    }
}
