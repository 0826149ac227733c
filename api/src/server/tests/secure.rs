//! Over real sockets with TLS: who is who by certificate, logs through a node's agent, stopping.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as AxumRequest;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::KubeletIdentity;
use super::super::accept::{self, Connections};
use super::*;
use crate::authn::ClientCertificates;
use crate::tls;

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a ca")
}

pub(super) fn issue(
    authority: &Authority,
    name: &str,
    group: &str,
    is_expired: bool,
) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("params");
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    if is_expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, authority).expect("a certificate");
    (cert.pem(), key.serialize_pem())
}

pub(super) fn client(trusted: &Authority, identity: Option<&(String, String)>) -> reqwest::Client {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).expect("a certificate"))
        .expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
            )
            .expect("an identity"),
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

/// A server on a socket of its own.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    pub(super) cluster: Arc<Cluster>,
}

async fn serve(authority: &Authority, kubelet: Option<KubeletIdentity>) -> Served {
    serve_with(authority, ApiConfig { kubelet, ..ApiConfig::default() }).await
}

/// The same, set up so.
pub(super) async fn serve_with(authority: &Authority, config: ApiConfig) -> Served {
    let config = ApiConfig { client_ca_pem: Some(authority.pem()), ..config };
    let cluster = Arc::new(Cluster::with(config).await);
    let (chain, key) = issue(authority, "kube-apiserver", "servers", false);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let tls = Arc::new(tls::server_config(&chain, &key).expect("a configuration"));
    let (serving, stopping) = (Arc::clone(&cluster), stop.clone());
    let task = tokio::spawn(async move { serving.server.serve(listener, tls, stopping).await });
    Served { address, stop, task, cluster }
}

#[tokio::test]
async fn a_certificate_tells_who_one_is_and_a_bad_one_is_unauthorized() {
    let (own, foreign) = (authority("own"), authority("foreign"));
    let served = serve(&own, None).await;
    let url = format!("https://{}/api/v1/namespaces", served.address);
    let table = [
        ("none", None, 403),
        ("a master's", Some(issue(&own, "admin", "system:masters", false)), 200),
        ("a nobody's", Some(issue(&own, "bob", "people", false)), 403),
        ("an expired one", Some(issue(&own, "admin", "system:masters", true)), 401),
        ("a foreign one", Some(issue(&foreign, "admin", "system:masters", false)), 401),
    ];
    for (what, identity, code) in table {
        let answer = client(&own, identity.as_ref()).get(&url).send().await.expect(what);
        assert_eq!(answer.status(), code, "{what}");
    }
    let token = client(&own, None).get(&url).bearer_auth("abc").send().await.expect("an answer");
    assert_eq!(token.status(), 401, "a token of nobody's");
    served.stop.cancel();
    served.task.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn stopping_ends_watches_and_closes_the_port() {
    let own = authority("own");
    let served = serve(&own, None).await;
    let client = client(&own, Some(&issue(&own, "admin", "system:masters", false)));
    let url = format!("https://{}/api/v1/namespaces?watch=true", served.address);
    let mut watch = client.get(&url).send().await.expect("an answer");
    assert!(watch.chunk().await.expect("a first event").is_some());
    served.stop.cancel();
    let ended = async { while let Ok(Some(_)) = watch.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the watch ends");
    served.task.await.expect("no panic").expect("a clean end");
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}

/// An agent that answers with what it was asked, and refuses one container.
async fn agent(authority: &Authority, stop: &CancellationToken) -> u16 {
    let router = Router::new().fallback(async |request: AxumRequest| {
        let asked = request.uri().to_string();
        if asked.contains("/broken") {
            return (http::StatusCode::BAD_REQUEST, "container \"broken\" has not started".into());
        }
        (http::StatusCode::OK, asked)
    });
    answering(authority, router, stop).await
}

/// One that measures the pod with that UID.
async fn measuring(authority: &Authority, stop: &CancellationToken, uid: String) -> u16 {
    let router = Router::new().fallback(move |request: AxumRequest| {
        let text = summary(&request.uri().to_string()).to_string().replace("UID", &uid);
        async move { text }
    });
    answering(authority, router, stop).await
}

/// An agent on a port of its own.
async fn answering(authority: &Authority, router: Router, stop: &CancellationToken) -> u16 {
    let (chain, key) = issue(authority, "node", "system:nodes", false);
    let connections = Connections {
        tls: TlsAcceptor::from(Arc::new(tls::server_config(&chain, &key).expect("a config"))),
        router,
        clients: Arc::new(ClientCertificates::none()),
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let stop = stop.clone();
    tokio::spawn(async move {
        accept::run(listener, connections, &stop, &CancellationToken::new()).await
    });
    port
}

/// What the agent measured, where it is asked for no more than that.
fn summary(asked: &str) -> Value {
    assert_eq!(asked, "/stats/summary?only_cpu_and_memory=true");
    let figures = |nano: u64, bytes: u64| {
        json!({
            "cpu": { "time": "2026-01-01T00:00:00Z", "usageNanoCores": nano },
            "memory": { "workingSetBytes": bytes },
        })
    };
    let with = |name: &str, mut figures: Value| {
        figures["name"] = json!(name);
        figures
    };
    let pod = |uid: &str, containers: Vec<Value>| {
        json!({ "podRef": { "name": "p", "namespace": "default", "uid": uid },
            "containers": containers })
    };
    let both = vec![with("c", figures(1_500_000, 4096)), with("d", figures(10, 1 << 20))];
    json!({
        "node": figures(250_000_000, 1 << 30),
        "pods": [pod("of-another-time", vec![with("c", figures(9, 9))]), pod("UID", both)],
    })
}

#[tokio::test]
async fn what_nodes_and_pods_use_comes_from_the_agents() {
    let own = authority("own");
    let (cert_pem, key_pem) = issue(&own, "kube-apiserver", "system:masters", false);
    let identity = KubeletIdentity { cert_pem, key_pem, ca_pem: own.pem() };
    let served = serve(&own, Some(identity)).await;
    let cluster = &served.cluster;
    let mut two = pod("p");
    two["metadata"]["labels"] = json!({ "app": "web" });
    two["spec"]["nodeName"] = json!("n");
    let uid = cluster.post(PODS, &two).await.ok()["metadata"]["uid"].clone();
    cluster.merge(&format!("{PODS}/p/status"), &json!({ "status": { "phase": "Running" } })).await;
    cluster.post(PODS, &pod("waits")).await.ok();
    let port = measuring(&own, &served.stop, uid.as_str().expect("a uid").to_owned()).await;
    let labels = json!({ "kubernetes.io/hostname": "n" });
    let node = json!({ "metadata": { "name": "n", "labels": labels } });
    cluster.post("/api/v1/nodes", &node).await.ok();
    cluster.post("/api/v1/nodes", &json!({ "metadata": { "name": "silent" } })).await.ok();
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
    } });
    cluster.merge("/api/v1/nodes/n/status", &status).await.ok();

    let group = "/apis/metrics.k8s.io/v1beta1";
    let nodes = cluster.get(&format!("{group}/nodes")).await.ok();
    assert_eq!(nodes["kind"], "NodeMetricsList");
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1), "the silent one is left out");
    let node = cluster.get(&format!("{group}/nodes/n")).await.ok();
    assert_eq!(node["usage"], json!({ "cpu": "250m", "memory": "1Gi" }));
    assert_eq!(node["metadata"]["labels"], labels);
    assert_eq!(
        (&node["timestamp"], &node["window"]),
        (&json!("2026-01-01T00:00:00Z"), &json!("10s"))
    );
    let silent = cluster.get(&format!("{group}/nodes/silent")).await;
    let why = "nodemetrics.metrics.k8s.io \"silent\" not found";
    assert_eq!(silent.refusal(), (404, "NotFound", why));

    let selected = cluster.get(&format!("{group}/pods?labelSelector=app%3Dweb")).await.ok();
    let containers = &selected["items"][0]["containers"];
    assert_eq!(containers[0], json!({ "name": "c", "usage": { "cpu": "1500u", "memory": "4Ki" } }));
    let other = cluster.get(&format!("{group}/pods?labelSelector=app%3Dother")).await.ok();
    assert_eq!(other["items"], json!([]));
    let waits = cluster.get(&format!("{group}/namespaces/default/pods/waits")).await;
    let why = "podmetrics.metrics.k8s.io \"default/waits\" not found";
    assert_eq!(waits.refusal(), (404, "NotFound", why));
    let written = cluster.post(&format!("{group}/nodes"), &json!({})).await;
    assert_eq!(written.code, 405);
    let viewer = User::authenticated("somebody", &[]);
    let path = format!("{group}/nodes");
    assert_eq!(cluster.call_as(&viewer, Method::GET, &path, &Value::Null).await.code, 403);
    served.stop.cancel();
    served.task.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn logs_come_from_the_node_s_agent_with_the_options_asked_for() {
    let own = authority("own");
    let (cert_pem, key_pem) = issue(&own, "kube-apiserver", "system:masters", false);
    let identity = KubeletIdentity { cert_pem, key_pem, ca_pem: own.pem() };
    let served = serve(&own, Some(identity)).await;
    let port = agent(&own, &served.stop).await;
    let cluster = &served.cluster;
    let node = |port: u16| {
        json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
    } })
    };
    cluster.post("/api/v1/nodes", &json!({ "metadata": { "name": "n" } })).await.ok();
    cluster.merge("/api/v1/nodes/n/status", &node(port)).await.ok();
    let mut two = pod("p");
    two["spec"]["containers"] =
        json!([{ "name": "c", "image": "i" }, { "name": "broken", "image": "i" }]);
    two["spec"]["nodeName"] = json!("n");
    cluster.post(PODS, &two).await.ok();
    let ask = async |query: &str| cluster.get(&format!("{PODS}/p/log?{query}")).await;

    let answer = ask("container=c&follow=true&tailLines=3&timestamps=true").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.body, "/containerLogs/default/p/c?follow=true&tailLines=3&timestamps=true");
    assert_eq!(
        ask("").await.refusal().2,
        "a container name must be specified for pod p, choose one of: [c broken]"
    );
    assert_eq!(ask("container=x").await.refusal().2, "container x is not valid for pod p");
    assert_eq!(
        ask("container=broken").await.refusal(),
        (400, "BadRequest", "container \"broken\" has not started")
    );
    assert_eq!(ask("container=c&tailLines=-1").await.code, 422);
    let free = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let closed = free.local_addr().expect("an address").port();
    drop(free);
    cluster.merge("/api/v1/nodes/n/status", &node(closed)).await.ok();
    let answer = ask("container=c").await;
    assert_eq!(answer.refusal().1, "ServiceUnavailable", "{}", answer.body);
    served.stop.cancel();
    served.task.await.expect("no panic").expect("a clean end");
}
