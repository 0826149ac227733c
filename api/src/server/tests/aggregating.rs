//! Aggregated API servers: who is led on to them, what they are told, what is said of them.

mod sample;

use std::time::Duration;

use http::Method;
use http::header::UPGRADE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::secure::{Served, authority, client, issue, serve_with};
use super::*;
use crate::server::FrontProxyIdentity;
use sample::Sample;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A server over sockets, and one that it leads requests on to.
struct Pair {
    served: Served,
    sample: Sample,
    client: reqwest::Client,
}

impl Pair {
    async fn start() -> Self {
        let (own, proxies) = (authority("own"), authority("proxies"));
        let (cert_pem, key_pem) = issue(&proxies, "front-proxy-client", "none", false);
        let (name, ca_pem) = ("front-proxy-client".to_owned(), proxies.pem());
        let front_proxy = Some(FrontProxyIdentity { cert_pem, key_pem, ca_pem, name });
        let served = serve_with(&own, ApiConfig { front_proxy, ..ApiConfig::default() }).await;
        let admin = issue(&own, "admin", MASTERS, false);
        let client = client(&own, Some(&admin));
        let sample = Sample::start(&proxies.pem()).await;
        let service = json!({
            "metadata": { "name": "api" },
            "spec": { "type": "ExternalName", "externalName": "localhost" },
        });
        served.cluster.post("/api/v1/namespaces/default/services", &service).await.ok();
        Self { served, sample, client }
    }

    /// Registers the sample for a version, and says that it is available.
    async fn register(&self, group: &str, version: &str) {
        let name = format!("{version}.{group}");
        let service = json!({
            "metadata": { "name": name },
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": { "namespace": "default", "name": "api", "port": self.sample.port },
                "caBundle": self.sample.ca_bundle,
            },
        });
        self.cluster().post(SERVICES, &service).await.ok();
        self.tell(&name, "True").await;
    }

    async fn tell(&self, name: &str, status: &str) {
        let condition = json!({ "type": "Available", "status": status, "reason": "Test",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "" });
        let patch = json!({ "status": { "conditions": [condition] } });
        self.cluster().merge(&format!("{SERVICES}/{name}/status"), &patch).await.ok();
    }

    fn cluster(&self) -> &Cluster {
        &self.served.cluster
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.served.address)
    }

    /// Asks until the answer is as it shall be: what is registered is known a moment later.
    async fn until(
        &self,
        path: &str,
        accept: &str,
        is_right: impl Fn(u16, &Value) -> bool,
    ) -> Value {
        let mut last = (0, Value::Null);
        for _ in 0..1000 {
            let asked = self.client.get(self.url(path)).header("accept", accept);
            let answer = asked.send().await.expect("an answer");
            let code = answer.status().as_u16();
            let text = answer.text().await.expect("a text");
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            if is_right(code, &value) {
                return value;
            }
            last = (code, value);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path}: {last:?}");
    }
}

#[tokio::test]
async fn who_asks_is_told_to_the_other_server_and_its_answer_passed_on() {
    let pair = Pair::start().await;
    pair.register("wardle.example.com", "v1alpha1").await;
    pair.until(FLUNDERS, "", |code, _| code == 200).await;
    let asked = pair
        .client
        .post(pair.url(&format!("{FLUNDERS}?dryRun=All&x=%2F")))
        .header("x-remote-user", "root")
        .header("x-remote-group", "system:masters")
        .header("authorization", "Bearer nothing")
        .body("a body");
    let answer = asked.send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-sample"], "yes");
    let told: Value = answer.json().await.expect("JSON");
    assert_eq!(told["line"], format!("POST {FLUNDERS}?dryRun=All&x=%2F"));
    assert_eq!(told["body"], "a body");
    assert_eq!(told["users"], json!(["admin"]));
    assert_eq!(told["groups"], json!([MASTERS, "system:authenticated"]));
    assert_eq!(told["authorization"], json!([]));
    assert_eq!(told["host"], json!([format!("api.default.svc:{}", pair.sample.port)]));
    let request = Request::builder().uri("/apis/wardle.example.com/v1alpha1/%2e%2e/x");
    let request = request.extension(Arc::new(User::authenticated("admin", &[MASTERS])));
    let request = request.body(Body::empty()).expect("a request");
    assert_eq!(pair.cluster().answer(request).await.status(), 404, "it would climb");
}

#[tokio::test]
async fn nobody_is_led_on_who_may_not_and_nothing_where_the_other_is_not_available() {
    let pair = Pair::start().await;
    pair.register("wardle.example.com", "v1alpha1").await;
    pair.until(FLUNDERS, "", |code, _| code == 200).await;
    let jane = User::authenticated("jane", &[]);
    let refused = pair.cluster().call_as(&jane, Method::GET, FLUNDERS, &Value::Null).await;
    assert_eq!(refused.refusal().0, 403);
    assert!(refused.refusal().2.contains("cannot list resource \"flunders\""), "{refused:?}");
    pair.tell(NAME, "False").await;
    let text = pair.until(FLUNDERS, "", |code, _| code == 503).await;
    assert_eq!(text, "service unavailable\n");
}

#[tokio::test]
async fn discovery_and_openapi_tell_of_the_other_server_and_that_it_is_stale() {
    let pair = Pair::start().await;
    pair.register("wardle.example.com", "v1alpha1").await;
    let version = |groups: &Value| -> Value {
        let all = groups["items"].as_array().cloned().unwrap_or_default();
        let mut all = all.into_iter();
        let found = all.find(|group| group["metadata"]["name"] == "wardle.example.com");
        found.map(|group| group["versions"][0].clone()).unwrap_or_default()
    };
    let is = |freshness: &'static str| {
        move |_: u16, groups: &Value| version(groups)["freshness"] == freshness
    };
    let groups = pair.until("/apis", AGGREGATED, is("Current")).await;
    assert_eq!(version(&groups)["resources"][0]["resource"], "flunders");
    assert_eq!(groups["items"][0]["metadata"]["name"], "apiregistration.k8s.io");
    let classic = pair.until("/apis/wardle.example.com", "", |code, _| code == 200).await;
    assert_eq!(classic["preferredVersion"]["version"], "v1alpha1");
    let path = "apis/wardle.example.com/v1alpha1";
    let index = pair.until("/openapi/v3", "", |_, index| index["paths"][path].is_object()).await;
    let url = index["paths"][path]["serverRelativeURL"].as_str().expect("a url").to_owned();
    let document = pair.until(&url, "", |code, _| code == 200).await;
    assert_eq!(document["components"]["schemas"]["Flunder"]["type"], "object");
    let v2 = pair.until("/openapi/v2", "application/json", |code, _| code == 200).await;
    assert!(v2["definitions"]["Flunder"].is_object());
    pair.tell(NAME, "False").await;
    let groups = pair.until("/apis", AGGREGATED, is("Stale")).await;
    assert_eq!(version(&groups)["resources"][0]["resource"], "flunders", "the last known");
    pair.cluster().delete(&format!("{SERVICES}/{NAME}"), &Value::Null).await.ok();
    pair.until("/apis", AGGREGATED, |_, groups| version(groups).is_null()).await;
    pair.until(FLUNDERS, "", |code, _| code == 404).await;
}

#[tokio::test]
async fn a_version_that_is_led_elsewhere_is_not_served_here() {
    let pair = Pair::start().await;
    let nodes = "/apis/metrics.k8s.io/v1beta1/nodes";
    let own = pair.cluster().get(nodes).await;
    assert_eq!(own.code, 503, "it is served here, by who knows no agents: {own:?}");
    pair.register("metrics.k8s.io", "v1beta1").await;
    let told = pair.until(nodes, "", |_, told| told["line"].is_string()).await;
    assert_eq!(told["line"], format!("GET {nodes}"));
}

#[tokio::test]
async fn nobody_takes_kubernetes_own_versions_over() {
    let pair = Pair::start().await;
    let own = [("apiregistration.k8s.io", "v1"), ("coordination.k8s.io", "v1")];
    for (group, version) in own {
        pair.register(group, version).await;
    }
    // Known once what came last is.
    pair.register("wardle.example.com", "v1alpha1").await;
    pair.until(FLUNDERS, "", |code, _| code == 200).await;
    let leases = "/apis/coordination.k8s.io/v1/leases";
    assert_eq!(pair.cluster().get(leases).await.ok()["kind"], "LeaseList");
    for (group, version) in own {
        let path = format!("{SERVICES}/{version}.{group}");
        pair.cluster().delete(&path, &Value::Null).await.ok();
        assert_eq!(pair.cluster().get(&path).await.code, 404, "the way back is open");
    }
}

#[tokio::test]
async fn watches_and_other_protocols_pass_through_as_they_come() {
    let pair = Pair::start().await;
    pair.register("wardle.example.com", "v1alpha1").await;
    pair.until(FLUNDERS, "", |code, _| code == 200).await;
    let watch = pair.url(&format!("{FLUNDERS}?watch=true"));
    let mut answer = pair.client.get(watch).send().await.expect("an answer");
    let first = answer.chunk().await.expect("a chunk").expect("a chunk");
    assert_eq!(&first[..], b"{\"type\":\"ADDED\"}\n", "though the watch goes on");
    let upgrading = pair.client.get(pair.url(&format!("{FLUNDERS}/a/exec")));
    let upgrading = upgrading.header(UPGRADE, "echo").header("connection", "Upgrade");
    let answer = upgrading.send().await.expect("an answer");
    assert_eq!(answer.status(), 101);
    let mut stream = answer.upgrade().await.expect("a connection");
    stream.write_all(b"there and back").await.expect("it takes bytes");
    let mut back = [0; 14];
    stream.read_exact(&mut back).await.expect("it gives bytes");
    assert_eq!(&back, b"there and back");
}

#[tokio::test]
async fn the_cluster_says_whom_an_aggregated_server_shall_believe() {
    let pair = Pair::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = pair.until(path, "", |code, _| code == 200).await;
    let text = |key: &str| map["data"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("requestheader-allowed-names"), r#"["front-proxy-client"]"#);
    assert!(text("requestheader-client-ca-file").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_ne!(text("requestheader-client-ca-file"), text("client-ca-file"));
}

#[tokio::test]
async fn what_the_conformance_test_does_with_an_api_service_can_be_done() {
    let cluster = Cluster::start().await;
    let service = json!({
        "metadata": { "name": NAME, "labels": { "e2e": "test" } },
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000,
            "versionPriority": 200, "service": { "namespace": "default", "name": "api" },
            "insecureSkipTLSVerify": true,
        },
    });
    let made = cluster.post(SERVICES, &service).await.ok();
    assert_eq!(made["spec"]["service"]["port"], 443);
    assert_eq!(made["status"], json!({}));
    let path = format!("{SERVICES}/{NAME}");
    let condition = json!({ "type": "StatusUpdated", "status": "True", "reason": "E2E",
        "lastTransitionTime": null, "message": "Set from e2e test" });
    let patch = json!({ "metadata": { "annotations": { "a": "b" } },
        "spec": { "versionPriority": 1 }, "status": { "conditions": [condition] } });
    let patched = cluster.merge(&format!("{path}/status"), &patch).await.ok();
    assert_eq!(patched["status"]["conditions"][0]["reason"], "E2E");
    assert_eq!(patched["spec"]["versionPriority"], 200, "of the status nothing else is taken");
    assert!(patched["metadata"]["annotations"].is_null());
    let mut update = patched.clone();
    update["metadata"]["labels"]["updated"] = "yes".into();
    let updated = cluster.put(&path, &update).await.ok();
    assert_eq!(updated["status"], patched["status"]);
    let list = cluster.get(&format!("{SERVICES}?labelSelector=updated%3Dyes")).await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let all = format!("{SERVICES}?labelSelector=e2e%3Dtest");
    cluster.delete(&all, &Value::Null).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}
