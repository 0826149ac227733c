//! Admission plugins that work where the server is told so.

use super::*;
use crate::admission::AdmissionConfiguration;

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

#[tokio::test]
async fn events_that_are_too_many_are_refused() {
    let events = "/api/v1/namespaces/default/events";
    let limits = "[{type: User, qps: 1, burst: 2}, {type: Namespace, qps: 1000, burst: 1000}]";
    let admission_configuration = told(&format!(
        "[{{name: EventRateLimit, configuration: {{kind: Configuration, \
         apiVersion: eventratelimit.admission.k8s.io/v1alpha1, limits: {limits}}}}}]"
    ));
    let admission_plugins = vec!["EventRateLimit".to_owned()];
    let config = ApiConfig { admission_plugins, admission_configuration, ..ApiConfig::default() };
    let cluster = Cluster::with(config).await;
    let event = |name: &str| {
        json!({ "metadata": { "name": name }, "reason": "Tested", "type": "Normal",
            "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" } })
    };
    let dry = format!("{events}?dryRun=All");
    cluster.post(&dry, &event("dry")).await.ok();
    cluster.post(events, &event("a")).await.ok();
    cluster.post(events, &event("b")).await.ok();
    let mut answer = cluster.post(events, &event("c")).await;
    // On a slow machine a second has passed, and with it a further one is let through.
    for turn in 0..100 {
        if answer.code == 429 {
            break;
        }
        answer = cluster.post(events, &event(&format!("e{turn}"))).await;
    }
    let why = "Too many requests: limit reached on type User for key admin";
    assert_eq!(answer.refusal(), (429, "TooManyRequests", why));
    cluster.config_map("free", json!({})).await;
    let other = User::authenticated("other", &[MASTERS]);
    cluster.call_as(&other, http::Method::POST, events, &event("d")).await.ok();
}

#[tokio::test]
async fn what_plugins_are_told_must_be_what_they_understand() {
    let refused = |plugins: &[&str], configuration: &str| {
        let admission_plugins = plugins.iter().map(|name| (*name).to_owned()).collect();
        let admission_configuration = told(configuration);
        let config =
            ApiConfig { admission_plugins, admission_configuration, ..ApiConfig::default() };
        let kv = Arc::new(LocalKv::in_memory());
        ApiServer::new(kv, config).err().expect("it must be refused").to_string()
    };
    let why = refused(&["EventRateLimit"], "[]");
    assert!(why.contains("\"EventRateLimit\" needs a configuration"), "{why}");
    let why = refused(&["EventRateLimit"], "[{name: EventRateLimit, configuration: {kind: X}}]");
    assert!(why.contains("\"EventRateLimit\": missing field"), "{why}");
    let why = refused(&[], "[{name: PodSecurity, configuration: {}}]");
    assert!(why.contains("\"PodSecurity\" takes no configuration here"), "{why}");
}

fn told(plugins: &str) -> AdmissionConfiguration {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: ";
    AdmissionConfiguration::parse(&format!("{head}{plugins}"), std::path::Path::new("/"))
        .expect("a configuration")
}
