//! Who may do what, from the outside: roles and bindings written through one server count at all,
//! and nobody gives away what they do not have.

use super::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn role(name: &str, rules: &Value) -> Value {
    json!({ "metadata": { "name": name }, "rules": rules })
}

fn binding(name: &str, role_kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role },
        "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
    })
}

fn reads(resources: &[&str]) -> Value {
    json!([{ "verbs": ["get", "list"], "apiGroups": [""], "resources": resources }])
}

fn user(name: &str) -> User {
    User::authenticated(name, &[])
}

#[tokio::test]
async fn a_binding_made_through_one_server_counts_at_the_other_at_once() {
    let cluster = Cluster::start().await;
    let other = cluster.another_server();
    for n in 0..20 {
        let name = format!("reader-{n}");
        let roles = format!("{RBAC}/namespaces/default/roles");
        cluster.post(&roles, &role(&name, &reads(&["configmaps"]))).await.ok();
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        cluster.post(&bindings, &binding(&name, "Role", &name, &name)).await.ok();
        other.call_as(&user(&name), Method::GET, CONFIG_MAPS, &Value::Null).await.ok();
    }
}

#[tokio::test]
async fn a_role_in_one_namespace_gives_nothing_elsewhere_and_a_cluster_role_what_its_binding_says()
{
    let cluster = Cluster::start().await;
    let bob = user("bob");
    let ask = async |path: &str| {
        let answer = cluster.call_as(&bob, Method::GET, path, &Value::Null).await;
        answer.code
    };
    assert_eq!(ask(PODS).await, 403);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&bindings, &binding("bob", "ClusterRole", "view", "bob")).await.ok();
    assert_eq!(ask(PODS).await, 200);
    assert_eq!(ask("/api/v1/namespaces/default/secrets").await, 403);
    assert_eq!(ask("/api/v1/namespaces/kube-system/pods").await, 403);
    assert_eq!(ask("/api/v1/pods").await, 403);
    let bindings = format!("{RBAC}/clusterrolebindings");
    cluster.post(&bindings, &binding("bob", "ClusterRole", "view", "bob")).await.ok();
    assert_eq!(ask("/api/v1/pods").await, 200);
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_gone() {
    let cluster = Cluster::start().await;
    let bindings = format!("{RBAC}/clusterrolebindings");
    cluster.post(&bindings, &binding("bob", "ClusterRole", "view", "bob")).await.ok();
    let ask = async || cluster.call_as(&user("bob"), Method::GET, PODS, &Value::Null).await.code;
    assert_eq!(ask().await, 200);
    cluster.delete(&format!("{bindings}/bob"), &Value::Null).await.ok();
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while ask().await != 403 {
        assert!(tokio::time::Instant::now() < until, "the right must go");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_right_on_one_object_covers_lists_that_select_it() {
    let cluster = Cluster::start().await;
    let rules = json!([{
        "verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"],
        "resourceNames": ["mine"],
    }]);
    let roles = format!("{RBAC}/namespaces/default/roles");
    cluster.post(&roles, &role("one", &rules)).await.ok();
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&bindings, &binding("one", "Role", "one", "bob")).await.ok();
    let ask = async |path: &str| {
        cluster.call_as(&user("bob"), Method::GET, path, &Value::Null).await.code
    };
    assert_eq!(ask(&format!("{CONFIG_MAPS}/mine")).await, 404);
    assert_eq!(ask(&format!("{CONFIG_MAPS}/other")).await, 403);
    assert_eq!(ask(CONFIG_MAPS).await, 403);
    assert_eq!(ask(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dmine")).await, 200);
    assert_eq!(ask(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dother")).await, 403);
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let cluster = Cluster::start().await;
    let alice = user("alice");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&bindings, &binding("alice", "ClusterRole", "admin", "alice")).await.ok();
    let roles = format!("{RBAC}/namespaces/default/roles");
    let post =
        async |path: &str, body: &Value| cluster.call_as(&alice, Method::POST, path, body).await;
    // An admin of the namespace may give what admins have there,
    post(&roles, &role("mine", &reads(&["configmaps"]))).await.ok();
    post(&bindings, &binding("mine", "Role", "mine", "bob")).await.ok();
    post(&bindings, &binding("view", "ClusterRole", "view", "bob")).await.ok();
    // and no more.
    let answer = post(&roles, &role("nodes", &reads(&["nodes"]))).await;
    assert_eq!(
        answer.refusal(),
        (
            403,
            "Forbidden",
            "roles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"alice\" \
             (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
             currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
        )
    );
    let answer = post(&bindings, &binding("all", "ClusterRole", "cluster-admin", "bob")).await;
    assert_eq!(answer.code, 403);
    assert!(answer.refusal().2.contains("{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"), "{answer:?}");
    let answer = post(&bindings, &binding("none", "ClusterRole", "nothing", "bob")).await;
    assert_eq!(
        answer.refusal(),
        (404, "NotFound", "clusterroles.rbac.authorization.k8s.io \"nothing\" not found")
    );
}

#[tokio::test]
async fn who_may_bind_or_escalate_a_role_may_give_more_than_they_have() {
    let cluster = Cluster::start().await;
    let rules = json!([
        { "verbs": ["create", "update", "bind", "escalate"],
          "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"] },
        { "verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"],
          "resources": ["clusterrolebindings"] },
    ]);
    cluster.post(&format!("{RBAC}/clusterroles"), &role("giver", &rules)).await.ok();
    let bindings = format!("{RBAC}/clusterrolebindings");
    cluster.post(&bindings, &binding("giver", "ClusterRole", "giver", "carol")).await.ok();
    let post = async |path: &str, body: &Value| {
        cluster.call_as(&user("carol"), Method::POST, path, body).await
    };
    post(&format!("{RBAC}/clusterroles"), &role("any", &reads(&["nodes"]))).await.ok();
    post(&bindings, &binding("any", "ClusterRole", "cluster-admin", "dave")).await.ok();
}

#[tokio::test]
async fn the_default_roles_repair_themselves_and_keep_what_was_added() {
    let cluster = Cluster::start().await;
    let path = format!("{RBAC}/clusterroles/system:discovery");
    let added = json!({ "verbs": ["get"], "nonResourceURLs": ["/own"] });
    cluster.merge(&path, &json!({ "rules": [added] })).await.ok();
    cluster
        .delete(&format!("{RBAC}/clusterrolebindings/system:discovery"), &Value::Null)
        .await
        .ok();
    cluster.server.bootstrap(&cluster.server.client()).await.expect("must be repaired");
    let rules = cluster.get(&path).await.ok()["rules"].clone();
    assert_eq!(rules[0], added);
    assert!(rules.to_string().contains("/openapi/*"), "{rules}");
    cluster.get(&format!("{RBAC}/clusterrolebindings/system:discovery")).await.ok();
}

#[tokio::test]
async fn strangers_see_health_and_version_and_nothing_else() {
    let cluster = Cluster::start().await;
    let ask = async |path: &str| {
        cluster.call_as(&User::anonymous(), Method::GET, path, &Value::Null).await.code
    };
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(path).await, 200, "{path}");
    }
    for path in ["/api", "/apis", "/openapi/v3", "/metrics", "/kontiki/v1/status", PODS] {
        assert_eq!(ask(path).await, 403, "{path}");
    }
}

/// As upstream says it: `kubectl auth can-i` and audits show it.
#[tokio::test]
async fn who_is_allowed_is_told_by_which_binding() {
    let cluster = Cluster::start().await;
    let in_all = format!("{RBAC}/clusterrolebindings");
    let in_one = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&in_all, &binding("bob-views", "ClusterRole", "view", "bob")).await.ok();
    let mut robots = binding("robots", "ClusterRole", "edit", "");
    robots["subjects"] = json!([
        { "kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io" },
        { "kind": "ServiceAccount", "name": "robot", "namespace": "default" },
    ]);
    cluster.post(&in_one, &robots).await.ok();
    let review = async |user: &str, verb: &str| {
        let review = json!({ "spec": { "user": user, "resourceAttributes": {
            "verb": verb, "resource": "pods", "namespace": "default",
        } } });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        cluster.post(path, &review).await.ok()["status"].clone()
    };
    for (user, verb, reason) in [
        ("bob", "list", r#"ClusterRoleBinding "bob-views" of ClusterRole "view" to User "bob""#),
        (
            "system:serviceaccount:default:robot",
            "create",
            r#"RoleBinding "robots/default" of ClusterRole "edit" to ServiceAccount "robot/default""#,
        ),
    ] {
        let reason = format!("RBAC: allowed by {reason}");
        assert_eq!(review(user, verb).await, json!({ "allowed": true, "reason": reason }));
    }
    assert_eq!(review("bob", "create").await, json!({ "allowed": false }));
}
