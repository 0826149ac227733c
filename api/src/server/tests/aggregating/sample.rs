//! An aggregated API server of the tests' own: it believes front proxies alone, and says what it was
//! asked.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use base64::Engine as _;
use futures_util::StreamExt as _;
use http::header::UPGRADE;
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::secure::authority;
use super::*;
use crate::authn::{ClientCertificates, Peer};
use crate::server::accept::{self, Connections};
use crate::tls;

/// The server.
pub(super) struct Sample {
    pub(super) port: u16,
    /// Who vouches for it, as an APIService names it.
    pub(super) ca_bundle: String,
    stop: CancellationToken,
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sample {
    /// Starts one that believes those for whom this authority vouches.
    pub(super) async fn start(proxies_pem: &str) -> Self {
        let own = authority("sample");
        let params = CertificateParams::new(vec!["api.default.svc".to_owned()]).expect("params");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &own).expect("a certificate");
        let config = tls::server_config(&cert.pem(), &key.serialize_pem()).expect("a config");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let clients = ClientCertificates::of_authority(proxies_pem).expect("an authority");
        let connections = Connections {
            tls: TlsAcceptor::from(Arc::new(config)),
            router: Router::new().fallback(answer),
            clients: Arc::new(clients),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            accept::run(listener, connections, &stopped, &stopped.clone()).await
        });
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(own.pem());
        Self { port, ca_bundle, stop }
    }
}

async fn answer(mut request: Request) -> Response {
    let is_proxy = matches!(
        request.extensions().get::<Peer>(),
        Some(Peer::Known(user)) if user.name == "front-proxy-client"
    );
    if !is_proxy {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if request.headers().contains_key(UPGRADE) {
        tokio::spawn(echo(hyper::upgrade::on(&mut request)));
        let headers = [("upgrade", "echo"), ("connection", "Upgrade")];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let schema = json!({ "type": "object", "x-kubernetes-group-version-kind":
        [{ "group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder" }] });
    let document = match request.uri().path() {
        "/apis/wardle.example.com/v1alpha1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{ "name": "flunders", "singularName": "flunder", "namespaced": true,
                "kind": "Flunder", "verbs": ["get", "list", "watch"] }],
        }),
        "/openapi/v2" => json!({ "paths": {}, "definitions": { "Flunder": schema } }),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            json!({ "openapi": "3.0.0", "components": { "schemas": { "Flunder": schema } } })
        }
        path if path.starts_with("/apis/") => {
            return told(request).await;
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    Json(document).into_response()
}

async fn told(request: Request) -> Response {
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    if is_watch {
        let first = futures_util::stream::iter(["{\"type\":\"ADDED\"}\n"]);
        let rest = futures_util::stream::pending();
        let stream = first.chain(rest).map(Ok::<_, std::io::Error>);
        return Body::from_stream(stream).into_response();
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let all = |name: &str| -> Vec<String> { values(&parts.headers, name) };
    let host = parts.uri.authority().map(ToString::to_string);
    let document = json!({
        "line": format!("{} {}", parts.method, parts.uri),
        "body": String::from_utf8_lossy(&body),
        "users": all("x-remote-user"),
        "groups": all("x-remote-group"),
        "authorization": all("authorization"),
        "host": host.map_or_else(|| all("host"), |host| vec![host]),
    });
    let code = if parts.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    (code, [("x-sample", "yes")], Json(document)).into_response()
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.map(str::to_owned).collect()
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let stream = upgrade.await.expect("a connection");
    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
    drop(tokio::io::copy(&mut read, &mut write).await);
}
