//! Bodies byte by byte, where clients look at them without reading them as JSON.

use http::header::CONTENT_TYPE;

use super::*;
use crate::codec::{self, FieldValidation, Format, Target};
use crate::schema::Gvk;

async fn text_of(response: Response) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn get(cluster: &Cluster, path: &str, agent: &str) -> Response {
    let request = Request::get(path)
        .header("user-agent", agent)
        .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
        .body(Body::empty())
        .expect("a valid request");
    cluster.answer(request).await
}

#[tokio::test]
async fn a_refusal_has_the_bytes_that_kubernetes_sends() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let body = json!({ "metadata": { "name": "a" } }).to_string().into_bytes();
    let response = cluster.send(Method::POST, CONFIG_MAPS, "application/json", body).await;
    assert_eq!(
        text_of(response).await,
        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
         \"message\":\"configmaps \\\"a\\\" already exists\",\"reason\":\"AlreadyExists\",\
         \"details\":{\"name\":\"a\",\"kind\":\"configmaps\"},\"code\":409}\n"
    );
}

#[tokio::test]
async fn a_json_patch_that_does_not_fit_is_refused_with_no_further_word() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let body = json!([{ "op": "replace", "path": "/data/no", "value": "x" }]);
    let (path, media) = (format!("{CONFIG_MAPS}/a"), "application/json-patch+json");
    let body = body.to_string().into_bytes();
    let response = cluster.send(Method::PATCH, &path, media, body).await;
    assert_eq!(
        text_of(response).await,
        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
         \"message\":\"the server rejected our request due to an error in our request\",\
         \"reason\":\"Invalid\",\"details\":{},\"code\":422}\n"
    );
}

#[tokio::test]
async fn curl_gets_indented_documents_and_clients_one_line() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default";
    let indented = text_of(get(&cluster, path, "curl/8.0").await).await;
    assert!(indented.contains("\n    \"name\": \"default\","), "{indented}");
    let line = text_of(get(&cluster, path, "kubectl/v1.35.0").await).await;
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    let asked = text_of(get(&cluster, &format!("{path}?pretty=true"), "kubectl").await).await;
    assert_eq!(asked, indented);
    let refusal = text_of(get(&cluster, "/api/v1/namespaces/no", "curl/8.0").await).await;
    assert!(
        refusal.starts_with("{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\","),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_path_that_nobody_knows_gets_no_status() {
    let cluster = Cluster::start().await;
    for path in ["/foo", "/apis/shop.example.com/v1", "/apis/shop.example.com/v1/shops", "/livez/x"]
    {
        let response = get(&cluster, path, "").await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8", "{path}");
        assert_eq!(text_of(response).await, "404 page not found\n", "{path}");
    }
    for path in ["/api/v9", "/api/v1/foos", "/apis/apps/v9", "/apis/apps/v1/foos"] {
        let answer = cluster.get(path).await;
        let message = "the server could not find the requested resource";
        assert_eq!(answer.refusal(), (404, "NotFound", message), "{path}");
    }
}

#[tokio::test]
async fn who_takes_protobuf_alone_gets_it() {
    let cluster = Cluster::start().await;
    let made = cluster.config_map("a", json!({})).await;
    for (path, name) in
        [(CONFIG_MAPS.to_owned() + "/a", "ConfigMap"), (CONFIG_MAPS.to_owned(), "ConfigMapList")]
    {
        let request = Request::get(&path)
            .header("accept", "application/vnd.kubernetes.protobuf")
            .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
            .body(Body::empty())
            .expect("a valid request");
        let response = cluster.answer(request).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.kubernetes.protobuf");
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let gvk = Gvk::new("", "v1", name);
        let target = Target::Kind(gvk);
        let read = codec::decode(&bytes, Format::Protobuf, target, FieldValidation::Ignore);
        let read = read.expect("it must be protobuf").value;
        let one = read.pointer("/items/0").unwrap_or(&read);
        assert_eq!(one["metadata"]["uid"], made["metadata"]["uid"]);
    }
}
