//! Who one is: tokens of service accounts, acting as somebody else, and the reviews.

use super::*;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

impl Cluster {
    async fn token(&self, account: &str, spec: &Value) -> Answer {
        self.post(&format!("{ACCOUNTS}/{account}/token"), &json!({ "spec": spec })).await
    }

    async fn bind(&self, role: &str, subject: Value) {
        let body = json!({
            "metadata": { "generateName": "test-" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
            },
            "subjects": [subject],
        });
        self.post(&format!("{RBAC}/clusterrolebindings"), &body).await.ok();
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn an_account_asks_with_its_token_and_may_what_it_is_bound_to() {
    let cluster = Cluster::start().await;
    cluster.post(ACCOUNTS, &json!({ "metadata": { "name": "bot" } })).await.ok();
    let answer = cluster.token("bot", &json!({})).await;
    assert_eq!(answer.code, 201);
    let status = answer.body["status"].clone();
    assert_eq!(answer.body["spec"]["expirationSeconds"], 3600);
    assert!(status["expirationTimestamp"].is_string());
    let token = bearer(status["token"].as_str().expect("a token"));
    let headers = [("authorization", token.as_str())];
    let answer = cluster.call_with(&headers, Method::GET, PODS).await;
    assert_eq!(
        answer.refusal().2,
        "pods is forbidden: User \"system:serviceaccount:default:bot\" cannot list resource \
         \"pods\" in API group \"\" in the namespace \"default\""
    );
    let account = json!({ "kind": "ServiceAccount", "name": "bot", "namespace": "default" });
    cluster.bind("view", account).await;
    cluster.call_with(&headers, Method::GET, PODS).await.ok();
    let jwks = cluster.call_with(&headers, Method::GET, "/openid/v1/jwks").await.ok();
    assert_eq!(jwks["keys"][0]["crv"], "P-256");
    let path = "/.well-known/openid-configuration";
    let discovery = cluster.call_with(&headers, Method::GET, path).await.ok();
    assert_eq!(discovery["issuer"], "https://kubernetes.default.svc.cluster.local");
}

#[tokio::test]
async fn a_token_that_is_none_is_401_and_not_anonymous() {
    let cluster = Cluster::start().await;
    for token in ["Bearer nonsense", "Bearer abcdef.0123456789abcdef", "bearer a.b.c"] {
        let answer = cluster.call_with(&[("authorization", token)], Method::GET, "/version").await;
        assert_eq!(answer.refusal(), (401, "Unauthorized", "Unauthorized"), "{token}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_given_is_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let short = cluster.token("default", &json!({ "expirationSeconds": 10 })).await;
    assert_eq!(
        short.refusal(),
        (
            422,
            "Invalid",
            "TokenRequest.authentication.k8s.io \"default\" is invalid: \
             spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 \
             minutes"
        )
    );
    let nobody = cluster.token("nobody", &json!({})).await;
    assert_eq!(nobody.refusal().2, "serviceaccounts \"nobody\" not found");
}

#[tokio::test]
async fn a_token_review_tells_whose_a_token_is_and_for_whom() {
    let cluster = Cluster::start().await;
    let given = cluster.token("default", &json!({ "audiences": ["vault"] })).await.ok();
    let token = given["status"]["token"].clone();
    let review = async |spec: Value| {
        let path = format!("{AUTHENTICATION}/tokenreviews");
        cluster.post(&path, &json!({ "spec": spec })).await.ok()["status"].clone()
    };
    let status = review(json!({ "token": token, "audiences": ["vault", "other"] })).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    let status = review(json!({ "token": token })).await;
    assert_ne!(status["authenticated"], true);
    assert!(status["error"].is_string());
}

#[tokio::test]
async fn who_may_impersonate_is_somebody_else_and_others_are_refused() {
    let cluster = Cluster::start().await;
    let given = cluster.token("default", &json!({})).await.ok();
    let token = bearer(given["status"]["token"].as_str().expect("a token"));
    let own = ("authorization", token.as_str());
    let answer = cluster.call_with(&[own, ("impersonate-user", "jane")], Method::GET, PODS).await;
    assert_eq!(
        answer.refusal().2,
        "users \"jane\" is forbidden: User \"system:serviceaccount:default:default\" cannot \
         impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let answer = cluster.call_with(&[own, ("impersonate-group", "a")], Method::GET, PODS).await;
    assert_eq!(answer.code, 500, "a group alone is nobody");
    let account = json!({ "kind": "ServiceAccount", "name": "default", "namespace": "default" });
    cluster.bind("cluster-admin", account).await;
    let answer = cluster.call_with(&[own, ("impersonate-user", "jane")], Method::GET, PODS).await;
    assert!(answer.refusal().2.contains("User \"jane\" cannot list"), "{answer:?}");
    let masters = [own, ("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
    cluster.call_with(&masters, Method::GET, PODS).await.ok();
}

#[tokio::test]
async fn whoami_and_can_i_and_what_may_i_are_answered() {
    let cluster = Cluster::start().await;
    let bob = User::authenticated("bob", &["team"]);
    let ask = async |path: &str, spec: Value| {
        let body = json!({ "spec": spec });
        cluster.call_as(&bob, Method::POST, path, &body).await
    };
    let path = format!("{AUTHENTICATION}/selfsubjectreviews");
    let status = ask(&path, json!({})).await.ok()["status"].clone();
    assert_eq!(status["userInfo"]["username"], "bob");
    assert_eq!(status["userInfo"]["groups"], json!(["team", "system:authenticated"]));

    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let pods = json!({ "verb": "list", "resource": "pods", "namespace": "default" });
    let asked = json!({ "resourceAttributes": pods });
    assert_eq!(ask(&path, asked.clone()).await.ok()["status"]["allowed"], false);
    cluster
        .bind(
            "view",
            json!({
                "kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io",
            }),
        )
        .await;
    assert_eq!(ask(&path, asked.clone()).await.ok()["status"]["allowed"], true);
    let version = json!({ "nonResourceAttributes": { "verb": "get", "path": "/version" } });
    assert_eq!(ask(&path, version).await.ok()["status"]["allowed"], true);
    assert_eq!(ask(&path, json!({})).await.code, 422);

    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let status = ask(&path, json!({ "namespace": "default" })).await.ok()["status"].clone();
    assert_eq!(status["incomplete"], false);
    assert!(status["resourceRules"].to_string().contains("pods/log"), "{status}");
    assert!(status["nonResourceRules"].to_string().contains("/openapi/*"), "{status}");
}

#[tokio::test]
async fn who_may_asks_about_others() {
    let cluster = Cluster::start().await;
    let path = format!("{AUTHORIZATION}/subjectaccessreviews");
    let asked = |user: &str, groups: &[&str]| {
        json!({ "spec": {
            "user": user, "groups": groups,
            "resourceAttributes": { "verb": "delete", "resource": "nodes", "name": "n" },
        }})
    };
    let answer = cluster.post(&path, &asked("jane", &["system:masters"])).await.ok();
    assert_eq!(answer["status"]["allowed"], true);
    let answer = cluster.post(&path, &asked("jane", &[])).await.ok();
    assert_eq!(answer["status"]["allowed"], false);
    assert_eq!(cluster.post(&path, &asked("", &[])).await.code, 422);
    let bob = User::authenticated("bob", &[]);
    let refused = cluster.call_as(&bob, Method::POST, &path, &asked("jane", &[])).await;
    assert_eq!(refused.code, 403);
    let local = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let mut asked = asked("jane", &[]);
    asked["spec"]["resourceAttributes"] =
        json!({ "verb": "get", "resource": "pods", "namespace": "other" });
    assert_eq!(cluster.post(&local, &asked).await.code, 422);
    asked["spec"]["resourceAttributes"]["namespace"] = json!("default");
    assert_eq!(cluster.post(&local, &asked).await.ok()["status"]["allowed"], false);
}

#[tokio::test]
async fn a_pod_is_given_its_account_its_token_and_its_pull_secrets() {
    let cluster = Cluster::start().await;
    let account = json!({
        "metadata": { "name": "puller" }, "imagePullSecrets": [{ "name": "registry" }],
    });
    cluster.post(ACCOUNTS, &account).await.ok();
    let mut wanted = pod("a");
    wanted["spec"]["serviceAccountName"] = json!("puller");
    let spec = cluster.post(PODS, &wanted).await.ok()["spec"].clone();
    assert_eq!(spec["serviceAccount"], "puller");
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "registry" }]));
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().expect("a name");
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["path"], "token");
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{
            "name": name, "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }])
    );
    let mut without = pod("b");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    let spec = cluster.post(PODS, &without).await.ok()["spec"].clone();
    assert_eq!(spec["serviceAccountName"], "default");
    assert!(spec.get("volumes").is_none(), "{spec}");
    let mut nobodys = pod("c");
    nobodys["spec"]["serviceAccountName"] = json!("nobody");
    let refused = cluster.post(PODS, &nobodys).await;
    assert_eq!(
        refused.refusal(),
        (
            403,
            "Forbidden",
            "pods \"c\" is forbidden: error looking up service account default/nobody: \
             serviceaccount \"nobody\" not found"
        )
    );
}
