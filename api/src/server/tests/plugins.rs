//! Admission plugins that work where the server is told so.

use super::*;

async fn with(plugin: &str) -> Cluster {
    let admission_plugins = vec![plugin.to_owned(), "NamespaceLifecycle".to_owned()];
    Cluster::with(ApiConfig { admission_plugins, ..ApiConfig::default() }).await
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_named() {
    let config =
        ApiConfig { admission_plugins: vec!["Nothing".to_owned()], ..ApiConfig::default() };
    let kv = Arc::new(LocalKv::in_memory());
    let error = ApiServer::new(kv, config).err().expect("it must be refused").to_string();
    assert!(error.contains("there is no admission plugin \"Nothing\""), "{error}");
}

#[tokio::test]
async fn images_are_always_pulled() {
    let cluster = with("AlwaysPullImages").await;
    let mut one = pod("p");
    one["spec"]["containers"][0]["imagePullPolicy"] = "Never".into();
    one["spec"]["initContainers"] = json!([{ "name": "i", "image": "busybox:1" }]);
    let made = cluster.post(PODS, &one).await.ok();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["initContainers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn pods_go_where_their_namespace_selects() {
    let cluster = with("PodNodeSelector").await;
    let selector = "scheduler.alpha.kubernetes.io/node-selector";
    let annotations = json!({ "metadata": { "annotations": { (selector): "env=test, zone=a" } } });
    cluster.merge("/api/v1/namespaces/default", &annotations).await.ok();
    let mut one = pod("p");
    one["spec"]["nodeSelector"] = json!({ "disk": "ssd", "zone": "a" });
    let made = cluster.post(PODS, &one).await.ok();
    let expected = json!({ "disk": "ssd", "env": "test", "zone": "a" });
    assert_eq!(made["spec"]["nodeSelector"], expected);
    let mut other = pod("q");
    other["spec"]["nodeSelector"] = json!({ "zone": "b" });
    let refused = cluster.post(PODS, &other).await;
    assert_eq!(refused.code, 403);
    assert!(refused.refusal().2.contains("conflicts with its namespace node label selector"));
    let free = pod("r");
    let other = "/api/v1/namespaces/kube-public/pods";
    assert!(cluster.post(other, &free).await.ok()["spec"]["nodeSelector"].is_null());
}

#[tokio::test]
async fn who_sets_owners_must_be_allowed_what_can_come_of_it() {
    let cluster = with("OwnerReferencesPermissionEnforcement").await;
    let rules = json!([
        { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "update"] },
    ]);
    let folder = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({ "metadata": { "name": "r" }, "rules": rules });
    cluster.post(&format!("{folder}/clusterroles"), &role).await.ok();
    let binding = json!({
        "metadata": { "name": "r" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" }],
    });
    cluster.post(&format!("{folder}/clusterrolebindings"), &binding).await.ok();
    let jane = User::authenticated("jane", &[]);
    let owner = cluster.config_map("owner", json!({})).await;
    let mut owned = cluster.config_map("owned", json!({})).await;
    let reference = |blocks: bool| {
        json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks }])
    };
    owned["metadata"]["ownerReferences"] = reference(false);
    let path = format!("{CONFIG_MAPS}/owned");
    let refused = cluster.call_as(&jane, http::Method::PUT, &path, &owned).await;
    assert_eq!(refused.code, 403);
    assert!(refused.refusal().2.contains("cannot set an ownerRef on a resource you can't delete"));
    let new = |name: &str, blocks: bool| json!({ "metadata": { "name": name, "ownerReferences": reference(blocks) } });
    let post = http::Method::POST;
    cluster.call_as(&jane, post.clone(), CONFIG_MAPS, &new("a", false)).await.ok();
    let refused = cluster.call_as(&jane, post, CONFIG_MAPS, &new("b", true)).await;
    assert_eq!(refused.code, 403);
    assert!(refused.refusal().2.contains("cannot set blockOwnerDeletion"), "{refused:?}");
    cluster.put(&path, &owned).await.ok();
}
