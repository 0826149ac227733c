//! `pods/resize`: the containers' resources and nothing else, within quotas.

use super::quotas::{counted, limited};
use super::*;

fn sized(name: &str, cpu: &str) -> Value {
    let mut body = pod(name);
    body["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
    body
}

async fn patched(cluster: &Cluster, media: &str, path: &str, cpu: &str) -> Answer {
    let resources = json!({ "requests": { "cpu": cpu } });
    let patch = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "resources": resources }] },
    });
    read(cluster.send(Method::PATCH, path, media, patch.to_string().into_bytes()).await).await
}

#[tokio::test]
async fn a_pod_is_resized_by_every_kind_of_write_and_only_there() {
    let cluster = Cluster::start().await;
    let path = format!("{PODS}/p");
    let made = cluster.post(PODS, &sized("p", "100m")).await.ok();
    let mut changed = made.clone();
    changed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("200m");
    changed["spec"]["containers"][0]["image"] = json!("other");
    let refused = cluster.put(&path, &changed).await;
    assert_eq!(refused.code, 422, "the pod itself is not resized");
    let resize = format!("{path}/resize");
    let told = cluster.put(&resize, &changed).await.ok();
    let shown = |told: &Value| {
        let container = &told["spec"]["containers"][0];
        (container["resources"]["requests"]["cpu"].clone(), told["metadata"]["generation"].clone())
    };
    assert_eq!(shown(&told), (json!("200m"), json!(2)));
    assert_eq!(told["spec"]["containers"][0]["image"], "busybox");
    let strategic = "application/strategic-merge-patch+json";
    let told = patched(&cluster, strategic, &resize, "300m").await.ok();
    assert_eq!(shown(&told), (json!("300m"), json!(3)));
    assert_eq!(told["metadata"].get("labels"), None);
    let apply = format!("{resize}?fieldManager=m&force=true");
    let told = patched(&cluster, "application/apply-patch+yaml", &apply, "400m").await.ok();
    assert_eq!(shown(&told), (json!("400m"), json!(4)));
    assert_eq!(shown(&cluster.get(&resize).await.ok()), (json!("400m"), json!(4)));
}

#[tokio::test]
async fn a_quota_is_charged_for_what_a_pod_grows() {
    let hard = json!({ "requests.cpu": "1" });
    let (cluster, _) = limited(hard.clone()).await;
    counted(&cluster, &hard).await;
    cluster.post(PODS, &sized("p", "600m")).await.ok();
    let strategic = "application/strategic-merge-patch+json";
    let path = format!("{PODS}/p/resize");
    let refused = patched(&cluster, strategic, &path, "1100m").await;
    let message = "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: \
                   requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(refused.refusal(), (403, "Forbidden", message));
    patched(&cluster, strategic, &path, "900m").await.ok();
    let quota = cluster.get("/api/v1/namespaces/default/resourcequotas/q").await.ok();
    assert_eq!(quota["status"]["used"], json!({ "requests.cpu": "900m" }));
}
