//! A webhook of the tests' own, over TLS on loopback.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine as _;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authn::ClientCertificates;
use crate::server::accept::{self, Connections};
use crate::tls;

type Judge = Box<dyn Fn(&Value) -> Value + Send + Sync>;

/// What a webhook knows.
struct Inner {
    judge: Judge,
    /// Every request it was asked about.
    asked: Mutex<Vec<Value>>,
    hanging: watch::Sender<usize>,
}

/// A webhook.
pub(in crate::server::tests) struct Hook {
    inner: Arc<Inner>,
    port: u16,
    authority: String,
    stop: CancellationToken,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hook {
    /// One that answers requests so.
    pub(in crate::server::tests) async fn start(
        judge: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner {
            judge: Box::new(judge),
            asked: Mutex::default(),
            hanging: watch::Sender::new(0),
        });
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let names = ["127.0.0.1", "hooks.default.svc"].map(str::to_owned).to_vec();
        let own = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("params");
        let cert = params.signed_by(&own, &authority).expect("a certificate");
        let config = tls::server_config(&cert.pem(), &own.serialize_pem()).expect("a config");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Connections {
            tls: TlsAcceptor::from(Arc::new(config)),
            router: Router::new().fallback(answer).with_state(Arc::clone(&inner)),
            clients: Arc::new(ClientCertificates::none()),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            accept::run(listener, connections, &stopped, &stopped.clone()).await
        });
        Self { inner, port, authority: authority.pem(), stop }
    }

    /// Where it listens.
    pub(in crate::server::tests) fn port(&self) -> u16 {
        self.port
    }

    /// How it is reached.
    pub(in crate::server::tests) fn config(&self) -> Value {
        self.config_at("/judge")
    }

    /// The same at another path.
    pub(in crate::server::tests) fn config_at(&self, path: &str) -> Value {
        let bundle = base64::engine::general_purpose::STANDARD.encode(&self.authority);
        json!({ "url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": bundle })
    }

    /// What it was asked last about an object of that name.
    pub(in crate::server::tests) fn last(&self, name: &str) -> Value {
        let asked = self.inner.asked.lock();
        asked.iter().rfind(|request| request["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until a call hangs.
    pub(in crate::server::tests) async fn hanging(&self) {
        let mut hanging = self.inner.hanging.subscribe();
        hanging.wait_for(|count| *count > 0).await.expect("the sender lives");
    }

    /// How many calls hang.
    pub(in crate::server::tests) fn count_hanging(&self) -> usize {
        *self.inner.hanging.borrow()
    }
}

/// Counts a call that hangs until it is given up.
struct Hangs(Arc<Inner>);

impl Drop for Hangs {
    fn drop(&mut self) {
        self.0.hanging.send_modify(|count| *count -= 1);
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&bytes).expect("a review");
    if path == "/hang" {
        inner.hanging.send_modify(|count| *count += 1);
        let _hangs = Hangs(Arc::clone(&inner));
        std::future::pending::<()>().await;
    }
    if path == "/convert" {
        return Json((inner.judge)(&review["request"])).into_response();
    }
    let request = &review["request"];
    let mut response = if path == "/marker" {
        denied("marker")
    } else {
        inner.asked.lock().push(request.clone());
        (inner.judge)(request)
    };
    response["uid"] = request["uid"].clone();
    let review = json!({
        "apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response,
    });
    Json(review).into_response()
}

/// Yes.
pub(in crate::server::tests) fn allowed() -> Value {
    json!({ "allowed": true })
}

/// No.
pub(in crate::server::tests) fn denied(why: &str) -> Value {
    json!({ "allowed": false, "status": { "message": why } })
}

/// Yes, with a change.
pub(in crate::server::tests) fn patched(patch: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch })
}
