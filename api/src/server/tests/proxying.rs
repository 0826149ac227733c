//! `proxy`: requests to pods and Services through the server.

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::response::{Html, IntoResponse as _};
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use super::*;

/// Something that a pod serves: it says what it was asked.
async fn serving() -> u16 {
    let app = Router::new().fallback(|request: AxumRequest| async move {
        let (parts, body) = request.into_parts();
        match parts.uri.path() {
            "/page" => Html("<a href=\"/rewriteme\">test</a>").into_response(),
            "/moved" => axum::response::Redirect::temporary("/there").into_response(),
            "/teapot" => StatusCode::IM_A_TEAPOT.into_response(),
            path => {
                let header = |name: &str| {
                    let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
                    value.unwrap_or("-").to_owned()
                };
                let body = body.collect().await.expect("a body").to_bytes();
                let (uri, auth) = (header("x-forwarded-uri"), header("authorization"));
                let query = parts.uri.query().unwrap_or("-");
                let body = String::from_utf8_lossy(&body);
                format!("{} {path} {query} {uri} {auth} {body}", parts.method).into_response()
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

impl Cluster {
    /// A pod that serves at this port, and a Service for it.
    async fn serves(&self, port: u16) {
        let mut pod = pod("p");
        pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": port }]);
        self.post(PODS, &pod).await.ok();
        let status =
            json!({ "status": { "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }] } });
        self.merge(&format!("{PODS}/p/status"), &status).await.ok();
        let service = json!({ "metadata": { "name": "s" },
            "spec": { "ports": [{ "name": "web", "port": 80 }] } });
        self.post("/api/v1/namespaces/default/services", &service).await.ok();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "s-1", "namespace": "default",
                "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "web", "port": port }],
            "endpoints": [{ "addresses": ["127.0.0.1"] }],
        });
        // Loopback addresses are not taken for endpoints: the store is told past the API.
        let key = "/registry/endpointslices/default/s-1".to_owned();
        let put = kontiki_storage::kv::Op::put(key, slice.to_string().into_bytes());
        let txn = kontiki_storage::kv::Txn { success: vec![put], ..Default::default() };
        self.kv.txn(kontiki_storage::kv::Proposal { txn, fence: None }).await.expect("a put");
    }
}

#[tokio::test]
async fn every_method_and_path_reaches_a_pod_and_a_service() {
    let cluster = Cluster::start().await;
    let port = serving().await;
    cluster.serves(port).await;
    let of = |kind: &str, id: &str| format!("/api/v1/namespaces/default/{kind}/{id}/proxy");
    let bases = [
        of("pods", "p"),
        of("pods", &format!("p:{port}")),
        of("pods", &format!("http:p:{port}")),
        of("services", "s:web"),
        of("services", "s:80"),
        of("services", "http:s:web"),
    ];
    for base in &bases {
        for method in
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            let path = format!("{base}/some/path/?a=b");
            let body = if method == Method::GET { "" } else { "body" };
            let answer = cluster.send(method.clone(), &path, "text/plain", body.into()).await;
            let said = read(answer).await;
            let expected = format!("{method} /some/path/ a=b {base}/some/path/ - {body}");
            assert_eq!(said.body, Value::String(expected), "{method} {path}");
        }
        let head = cluster.send(Method::HEAD, &format!("{base}/x"), "", Vec::new()).await;
        assert_eq!(head.status(), 200);
        // Without a slash at its end a browser would not find what the page refers to.
        let moved = cluster.send(Method::GET, &format!("{base}?a=b"), "", Vec::new()).await;
        assert_eq!(moved.status(), 301);
        assert_eq!(moved.headers()["location"], format!("{base}/?a=b"));
        let posted = cluster.send(Method::POST, base, "", Vec::new()).await;
        assert_eq!(posted.status(), 200);
    }
}

#[tokio::test]
async fn answers_come_as_they_are_but_for_the_places_they_lead_to() {
    let cluster = Cluster::start().await;
    cluster.serves(serving().await).await;
    let base = "/api/v1/namespaces/default/services/s:web/proxy";
    let page = cluster.get(&format!("{base}/page")).await.ok();
    assert_eq!(page, format!("<a href=\"{base}/rewriteme\">test</a>"));
    let moved = cluster.send(Method::GET, &format!("{base}/moved"), "", Vec::new()).await;
    assert_eq!(moved.status(), 307);
    assert_eq!(moved.headers()["location"], format!("{base}/there"));
    assert_eq!(cluster.get(&format!("{base}/teapot")).await.code, 418);
}

#[tokio::test]
async fn where_nobody_serves_is_said() {
    let cluster = Cluster::start().await;
    cluster.serves(1).await;
    let services = "/api/v1/namespaces/default/services";
    let table = [
        (
            format!("{services}/s:other/proxy/"),
            503,
            "no endpoints available for service \"s:other\"",
        ),
        (format!("{services}/nobody/proxy/"), 404, "services \"nobody\" not found"),
        (format!("{services}/ftp:s:web/proxy/"), 400, "invalid service request \"ftp:s:web\""),
    ];
    for (path, code, why) in table {
        let answer = cluster.get(&path).await;
        assert_eq!((answer.code, answer.refusal().2), (code, why), "{path}");
    }
    let refused = cluster.get(&format!("{services}/s:web/proxy/")).await;
    assert_eq!(refused.code, 503);
    assert!(refused.refusal().2.starts_with("error trying to reach service: "), "{refused:?}");
    let nobody = User::authenticated("nobody", &[]);
    let path = format!("{services}/s/proxy/");
    let forbidden = cluster.call_as(&nobody, Method::GET, &path, &Value::Null);
    assert_eq!(forbidden.await.code, 403);
}
