//! Server-side apply and `managedFields` over HTTP.

use http::Method;

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn web(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{
                    "name": "c", "image": "i", "resources": { "requests": { "cpu": "0.5" } },
                }] },
            },
        },
    })
}

impl Cluster {
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        let path = format!("{path}?fieldManager={manager}");
        self.apply_to(&path, config).await
    }

    async fn apply_to(&self, path: &str, config: &Value) -> Answer {
        let media = "application/apply-patch+yaml";
        read(self.send(Method::PATCH, path, media, config.to_string().into_bytes()).await).await
    }
}

/// Who owns something, by name: entries stand in the order of their seconds.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let one = |entry: &Value| {
        let parts = ["manager", "operation", "subresource"].map(|field| text(entry, field));
        parts.join(" ").trim().to_owned()
    };
    let mut all: Vec<String> = entries.iter().map(one).collect();
    all.sort();
    all
}

fn fields_of(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let found = entries.into_iter().find(|entry| entry["manager"] == manager);
    found.map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_apply_creates_then_changes_then_does_nothing() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let created = cluster.apply(&path, "a", &web(2)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let created = created.body;
    assert_eq!(managers(&created), ["a Apply"]);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["spec"]["progressDeadlineSeconds"], 600, "defaults are filled in");
    let again = cluster.apply(&path, "a", &web(2)).await;
    assert_eq!((again.code, &again.body), (200, &created), "0.5 is 500m, and nothing is written");
    let changed = cluster.apply(&path, "a", &web(3)).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(cluster.get(&path).await.ok(), changed);
}

#[tokio::test]
async fn conflicts_are_told_and_forced() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    cluster.apply(&path, "a", &web(2)).await.ok();
    let refused = cluster.apply(&path, "b", &web(5)).await;
    assert_eq!(
        refused.refusal(),
        (409, "Conflict", r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#)
    );
    assert_eq!(refused.body["details"]["causes"][0]["field"], ".spec.replicas");
    let forced = cluster.apply_to(&format!("{path}?fieldManager=b&force=true"), &web(5)).await;
    assert_eq!(forced.ok()["spec"]["replicas"], 5);
}

#[tokio::test]
async fn every_write_says_who_wrote_what() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let created = cluster.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &web(2)).await.ok();
    assert_eq!(managers(&created), ["maker Update"]);
    let patch = json!({ "spec": { "replicas": 4 } });
    cluster.merge(&format!("{path}/scale?fieldManager=scaler"), &patch).await.ok();
    let patch = json!({ "status": { "replicas": 4 } });
    cluster.merge(&format!("{path}/status?fieldManager=watcher"), &patch).await.ok();
    let patch = json!({ "metadata": { "labels": { "a": "b" } } });
    let labelled = cluster.merge(&format!("{path}?fieldManager=maker"), &patch).await.ok();
    assert_eq!(
        managers(&labelled),
        ["maker Update", "scaler Update scale", "watcher Update status"]
    );
    let replicas = |part: &str| json!({ part: { "f:replicas": {} } });
    assert_eq!(fields_of(&labelled, "scaler"), replicas("f:spec"));
    assert_eq!(fields_of(&labelled, "watcher"), replicas("f:status"));
    let version = version_of(&labelled).to_owned();
    let same = cluster.merge(&format!("{path}?fieldManager=other"), &patch).await.ok();
    assert_eq!((version_of(&same), managers(&same)), (version.as_str(), managers(&labelled)));
    let put = cluster.put(&format!("{path}?fieldManager=other"), &labelled).await.ok();
    assert_eq!(version_of(&put), version, "an update of nothing writes nothing");
    let reset = json!({ "metadata": { "managedFields": [{}] } });
    let reset = cluster.merge(&path, &reset).await.ok();
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[tokio::test]
async fn parts_are_applied_apart() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    cluster.apply(&path, "a", &web(2)).await.ok();
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }], "replicas": 2 },
    });
    let applied = cluster.apply(&format!("{path}/status"), "s", &status).await.ok();
    assert_eq!(applied["status"]["replicas"], 2);
    assert_eq!(managers(&applied), ["a Apply", "s Apply status"]);
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" },
        "spec": { "replicas": 7 },
    });
    let refused = cluster.apply(&format!("{path}/scale"), "h", &scale).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    let forced = format!("{path}/scale?fieldManager=h&force=true");
    assert_eq!(cluster.apply_to(&forced, &scale).await.ok()["spec"]["replicas"], 7);
    let read = cluster.get(&path).await.ok();
    assert_eq!(read["spec"]["replicas"], 7);
    assert_eq!(managers(&read), ["a Apply", "h Apply scale", "s Apply status"]);
    let missing = cluster.apply(&format!("{DEPLOYMENTS}/none/status"), "s", &status).await;
    assert_eq!(missing.code, 404, "a part creates nothing");
}

#[tokio::test]
async fn what_is_no_apply_is_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let nobody = cluster.apply_to(&path, &web(1)).await;
    assert_eq!(
        nobody.refusal(),
        (
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for \
             apply patch"
        )
    );
    let forced = cluster.merge(&format!("{path}?force=true"), &json!({})).await;
    assert_eq!(
        forced.refusal().2,
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for \
         non-apply patch"
    );
    let mut unknown = web(1);
    unknown["spec"]["foo"] = json!(1);
    let unknown = cluster.apply(&path, "a", &unknown).await;
    assert_eq!(
        unknown.refusal(),
        (
            500,
            "",
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.foo: field \
             not declared in schema"
        )
    );
    let mut managed = web(1);
    managed["metadata"]["managedFields"] = json!([]);
    let managed = cluster.apply(&path, "a", &managed).await;
    assert_eq!(managed.refusal(), (400, "BadRequest", "metadata.managedFields must be nil"));
    let mut other = web(1);
    other["metadata"]["name"] = json!("other");
    assert_eq!(cluster.apply(&path, "a", &other).await.code, 400);
    let long = "m".repeat(129);
    let long = cluster.post(&format!("{DEPLOYMENTS}?fieldManager={long}"), &web(1)).await;
    assert_eq!(long.code, 422, "{}", long.body);
    assert_eq!(cluster.get(&path).await.code, 404, "nothing of it was done");
}

#[tokio::test]
async fn a_dry_run_of_an_apply_leaves_nothing() {
    let cluster = Cluster::start().await;
    let before = cluster.kv.revision();
    let path = format!("{DEPLOYMENTS}/web?fieldManager=a&dryRun=All");
    assert_eq!(cluster.apply_to(&path, &web(2)).await.ok()["spec"]["replicas"], 2);
    assert_eq!(cluster.kv.revision(), before);
}

#[tokio::test]
async fn a_configuration_may_ask_for_a_version_and_an_identity() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut config = web(2);
    config["metadata"]["uid"] = json!("none");
    assert_eq!(cluster.apply(&path, "a", &config).await.code, 409);
    let created = cluster.apply(&path, "a", &web(2)).await.ok();
    config = web(3);
    config["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    cluster.apply(&path, "a", &config).await.ok();
    config["spec"]["replicas"] = json!(4);
    assert_eq!(cluster.apply(&path, "a", &config).await.refusal().1, "Conflict");
}
