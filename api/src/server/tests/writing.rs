//! Creating, updating and patching, also many at once.

use http::Method;

use super::*;

#[tokio::test]
async fn the_server_fills_in_what_only_it_knows() {
    let cluster = Cluster::start().await;
    let body = json!({ "metadata": {
        "generateName": "made-", "uid": "mine", "creationTimestamp": null,
        "deletionTimestamp": "2020-01-01T00:00:00Z",
    } });
    let created = cluster.post(CONFIG_MAPS, &body).await.ok();
    let metadata = &created["metadata"];
    assert!(metadata["name"].as_str().is_some_and(|name| name.len() == 10), "{metadata}");
    assert_ne!(metadata["uid"], "mine");
    assert!(metadata["creationTimestamp"].is_string());
    assert_eq!(metadata.get("deletionTimestamp"), None);
    assert_eq!(metadata["namespace"], "default");
    let path = format!("{CONFIG_MAPS}/{}", metadata["name"].as_str().expect("a name"));
    let read = cluster.get(&path).await.ok();
    assert_eq!(read, created, "what is answered is what is stored");
}

#[tokio::test]
async fn an_update_at_the_current_version_wins_once() {
    let cluster = Cluster::start().await;
    let mut object = cluster.config_map("a", json!({})).await;
    object["data"] = json!({ "k": "1" });
    let path = format!("{CONFIG_MAPS}/a");
    let updated = cluster.put(&path, &object).await.ok();
    assert_ne!(version_of(&updated), version_of(&object));
    assert_eq!(cluster.put(&path, &object).await.refusal().1, "Conflict");
    let same = cluster.put(&path, &updated).await.ok();
    assert_eq!(
        version_of(&same),
        version_of(&updated),
        "an update without a change writes nothing"
    );
    let mut foreign = updated.clone();
    foreign["metadata"]["uid"] = json!("other");
    assert_eq!(cluster.put(&path, &foreign).await.code, 409);
}

#[tokio::test]
async fn concurrent_patches_all_count_and_concurrent_updates_count_once() {
    const WRITERS: usize = 12;
    let cluster = Arc::new(Cluster::start().await);
    let object = cluster.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (cluster, path) = (Arc::clone(&cluster), path.clone());
        writers.spawn(async move {
            let patch = json!({ "data": { format!("k{writer}"): "x" } });
            cluster.merge(&path, &patch).await.code
        });
    }
    assert!(writers.join_all().await.iter().all(|code| *code == 200));
    let patched = cluster.get(&path).await.ok();
    assert_eq!(patched["data"].as_object().map(serde_json::Map::len), Some(WRITERS));
    assert_ne!(version_of(&patched), version_of(&object));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (cluster, path, mut update) = (Arc::clone(&cluster), path.clone(), patched.clone());
        update["data"] = json!({ "winner": writer.to_string() });
        writers.spawn(async move { cluster.put(&path, &update).await.code });
    }
    let codes = writers.join_all().await;
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), WRITERS - 1, "{codes:?}");
}

#[tokio::test]
async fn a_dry_run_answers_and_leaves_nothing() {
    let cluster = Cluster::start().await;
    let before = cluster.kv.revision();
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    let created = cluster.post(&path, &json!({ "metadata": { "name": "a" } })).await.ok();
    assert!(created["metadata"]["uid"].is_string());
    assert_eq!(cluster.kv.revision(), before);
    cluster.config_map("a", json!({})).await;
    let before = cluster.kv.revision();
    cluster
        .merge(&format!("{CONFIG_MAPS}/a?dryRun=All"), &json!({ "data": { "a": "b" } }))
        .await
        .ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a"), &json!({ "dryRun": ["All"] })).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a?dryRun=All"), &Value::Null).await.ok();
    assert_eq!(cluster.kv.revision(), before);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?dryRun=Some")).await.code, 422);
}

#[tokio::test]
async fn spec_and_status_are_written_apart_and_generation_counts_the_spec() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let created = cluster
        .post(
            path,
            &json!({
                "metadata": { "name": "web" },
                "spec": {
                    "replicas": 2,
                    "selector": { "matchLabels": { "app": "web" } },
                    "template": {
                        "metadata": { "labels": { "app": "web" } },
                        "spec": { "containers": [{ "name": "c", "image": "i" }] },
                    },
                },
                "status": { "replicas": 9 },
            }),
        )
        .await
        .ok();
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["status"].get("replicas"), None, "the status is not the client's");
    let path = format!("{path}/web");
    let patch = json!({ "spec": { "replicas": 7 }, "status": { "replicas": 2 } });
    let status = cluster.merge(&format!("{path}/status"), &patch).await.ok();
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(status["metadata"]["generation"], 1);
    let scale = async |replicas: i64| {
        let patch = json!({ "spec": { "replicas": replicas } });
        cluster.merge(&format!("{path}/scale"), &patch).await
    };
    let scaled = scale(3).await.ok();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(scaled["status"]["selector"], "app=web");
    let read = cluster.get(&path).await.ok();
    assert_eq!(
        (&read["metadata"]["generation"], &read["status"]["replicas"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(scale(-1).await.code, 422);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("p")).await.ok();
    let binding = |node: &str| json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": node } });
    let path = format!("{PODS}/p/binding");
    assert_eq!(cluster.post(&path, &binding("n1")).await.code, 201);
    let bound = cluster.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = cluster.post(&path, &binding("n2")).await;
    assert_eq!(
        again.refusal(),
        (
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \
             \"n1\""
        )
    );
    assert_eq!(cluster.post(&path, &json!({ "target": { "name": "" } })).await.code, 422);
}

#[tokio::test]
async fn bodies_may_be_yaml_and_unknown_fields_are_told() {
    let cluster = Cluster::start().await;
    let yaml = b"kind: ConfigMap\nmetadata: {name: y}\ndata: {a: b}\n".to_vec();
    let media = "application/yaml";
    let created = read(cluster.send(Method::POST, CONFIG_MAPS, media, yaml).await).await.ok();
    assert_eq!(created["data"]["a"], "b");
    let body = json!({ "metadata": { "name": "z" }, "dat": {} }).to_string().into_bytes();
    let json_type = "application/json";
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    assert_eq!(cluster.send(Method::POST, &strict, json_type, body.clone()).await.status(), 400);
    let warned = cluster.send(Method::POST, CONFIG_MAPS, json_type, body).await;
    assert_eq!(warned.headers()["warning"], "299 - \"unknown field \\\"dat\\\"\"");
}
