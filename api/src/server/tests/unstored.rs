//! What is answered and not kept, methods that a path does not have, and health in all its forms.

use http::Method;

use super::*;

#[tokio::test]
async fn a_binding_sends_the_pod_that_it_names_to_its_node() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("p")).await.ok();
    let bindings = "/api/v1/namespaces/default/bindings";
    let mut binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p", "namespace": "other" },
        "target": { "kind": "Node", "name": "n1" },
    });
    assert_eq!(cluster.post(bindings, &binding).await.code, 400, "of another namespace");
    binding["metadata"]["namespace"] = "default".into();
    let answer = cluster.post(bindings, &binding).await;
    assert_eq!((answer.code, &answer.body["status"]), (201, &json!("Success")));
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.ok()["spec"]["nodeName"], "n1");
    assert_eq!(cluster.post(bindings, &binding).await.code, 409, "it is on its node");
    binding["metadata"]["name"] = "".into();
    assert_eq!(cluster.post(bindings, &binding).await.code, 422);
    assert_eq!(cluster.get(bindings).await.code, 405);
}

#[tokio::test]
async fn component_statuses_say_how_the_control_plane_is() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/api/v1/componentstatuses").await.ok();
    assert_eq!(list["kind"], "ComponentStatusList");
    let names: Vec<&str> = list["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    let path = "/api/v1/componentstatuses/etcd-0";
    let store = cluster.get(path).await.ok();
    assert_eq!(store["conditions"][0]["status"], "True");
    let request = Request::builder()
        .uri(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .extension(Arc::new(User::authenticated("admin", &[MASTERS])));
    let response = cluster.answer(request.body(Body::empty()).expect("a request")).await;
    let warning = response.headers()["warning"].to_str().expect("a text").to_owned();
    assert!(warning.contains("v1 ComponentStatus is deprecated in v1.19+"), "{warning}");
    let table = read(response).await.ok();
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    assert_eq!(cluster.get("/api/v1/componentstatuses/x").await.code, 404);
    let refused = cluster.delete(path, &Value::Null).await;
    assert_eq!(refused.refusal().1, "MethodNotAllowed");
}

#[tokio::test]
async fn a_path_without_that_method_says_so() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let named = format!("{CONFIG_MAPS}/a");
    let table = [
        (Method::POST, named.as_str()),
        (Method::PUT, CONFIG_MAPS),
        (Method::PATCH, CONFIG_MAPS),
        (Method::POST, "/api/v1/namespaces/default"),
    ];
    for (method, path) in table {
        let body = json!({ "metadata": { "name": "a" } });
        let answer = cluster.call(method.clone(), path, &body).await;
        let words = "the server does not allow this method on the requested resource";
        assert_eq!(answer.refusal(), (405, "MethodNotAllowed", words), "{method} {path}");
    }
}

#[tokio::test]
async fn health_can_be_asked_for_in_whole_in_part_and_in_words() {
    let cluster = Cluster::start().await;
    let text = async |path: &str| cluster.get(path).await.ok();
    assert_eq!(text("/readyz").await, "ok");
    assert_eq!(text("/readyz/etcd").await, "ok");
    let said = text("/readyz?verbose").await;
    let lines = "[+]ping ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(said, lines);
    let said = text("/readyz?verbose&exclude=etcd&exclude=x").await;
    let lines = "[+]ping ok\n[+]etcd excluded: ok\n[+]shutdown ok\nwarn: some health checks cannot \
                 be excluded: no matches for \"x\"\nreadyz check passed\n";
    assert_eq!(said, lines);
    assert_eq!(cluster.get("/readyz/x").await.code, 404);
}
