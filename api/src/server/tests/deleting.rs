//! Deleting at once, in two steps, and what finalizers hold.

use super::*;

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let body = json!({ "metadata": { "name": "a", "finalizers": ["example.com/hold"] } });
    cluster.post(CONFIG_MAPS, &body).await.ok();
    let held = cluster.delete(&path, &Value::Null).await.ok();
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    let more = json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } });
    assert_eq!(cluster.merge(&path, &more).await.code, 422, "none may be added now");
    let again = cluster.delete(&path, &Value::Null).await.ok();
    assert_eq!(version_of(&again), version_of(&held), "deleting twice is deleting once");
    cluster.merge(&path, &json!({ "metadata": { "finalizers": null } })).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn the_fate_of_the_dependents_becomes_a_finalizer() {
    let cluster = Cluster::start().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        cluster.config_map("a", json!({})).await;
        let path = format!("{CONFIG_MAPS}/a");
        let held = cluster.delete(&path, &json!({ "propagationPolicy": policy })).await.ok();
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
        cluster.merge(&path, &json!({ "metadata": { "finalizers": [] } })).await.ok();
        assert_eq!(cluster.get(&path).await.code, 404);
    }
    cluster.config_map("a", json!({})).await;
    let options = json!({ "propagationPolicy": "Background" });
    let done = cluster.delete(&format!("{CONFIG_MAPS}/a"), &options).await.ok();
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    let wrong = json!({ "propagationPolicy": "Someday" });
    cluster.config_map("a", json!({})).await;
    assert_eq!(cluster.delete(&format!("{CONFIG_MAPS}/a"), &wrong).await.code, 422);
}

#[tokio::test]
async fn a_running_pod_is_given_its_grace_period_which_can_be_shortened() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, &pod("p")).await.ok();
    let path = format!("{PODS}/p");
    let binding = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" } });
    assert_eq!(cluster.post(&format!("{path}/binding"), &binding).await.code, 201);
    let going = cluster.delete(&path, &Value::Null).await.ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = cluster.delete(&path, &json!({ "gracePeriodSeconds": 60 })).await.ok();
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30, "never longer");
    let sooner = cluster.delete(&path, &json!({ "gracePeriodSeconds": 5 })).await.ok();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    cluster.delete(&path, &json!({ "gracePeriodSeconds": 0 })).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404, "the agent's own deletion is the last");
}

#[tokio::test]
async fn preconditions_must_hold() {
    let cluster = Cluster::start().await;
    let object = cluster.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let (uid, version) = (object["metadata"]["uid"].clone(), version_of(&object).to_owned());
    cluster.merge(&path, &json!({ "data": { "a": "b" } })).await.ok();
    let stale = json!({ "preconditions": { "resourceVersion": version } });
    assert_eq!(cluster.delete(&path, &stale).await.code, 409);
    cluster.delete(&path, &json!({ "preconditions": { "uid": uid } })).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let cluster = Cluster::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.config_map(name, json!({ "l": label })).await;
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=l%3Dx");
    let deleted = cluster.delete(&path, &Value::Null).await.ok();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    let left = cluster.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_namespace_goes_when_its_finalizer_goes_and_takes_nothing_new_meanwhile() {
    let cluster = Cluster::start().await;
    let body = json!({ "metadata": { "name": "x" } });
    cluster.post("/api/v1/namespaces", &body).await.ok();
    let going = cluster.delete("/api/v1/namespaces/x", &Value::Null).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = cluster.post("/api/v1/namespaces/x/configmaps", &body).await;
    assert_eq!(
        refused.refusal(),
        (
            403,
            "Forbidden",
            "configmaps \"x\" is forbidden: unable to create new content in namespace x because it \
             is being terminated"
        )
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let empty = json!({ "metadata": { "name": "x" }, "spec": { "finalizers": [] } });
    cluster.put("/api/v1/namespaces/x/finalize", &empty).await.ok();
    assert_eq!(cluster.get("/api/v1/namespaces/x").await.code, 404);
}
