//! Who is asked who may do what, as a configuration says it: a webhook before roles and bindings.

use std::time::Duration;

use super::*;
use crate::authz::{AuthorizationConfig, Outside, Says};
use crate::registry::options::ListOptions;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// A cluster that asks a webhook about everybody but nodes first, and then its roles.
async fn with(says: &[Says], failure: &str) -> (Cluster, Outside) {
    let (outside, file) = Outside::start(says).await;
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            { "type": "Node", "name": "node" },
            { "type": "Webhook", "name": "outside", "webhook": {
                "timeout": "200ms",
                "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1",
                "failurePolicy": failure,
                "connectionInfo": { "type": "KubeConfigFile", "kubeConfigFile": file.path() },
                "matchConditions": [{ "expression": "!('system:nodes' in request.groups)" }],
            } },
            { "type": "RBAC", "name": "rbac" },
        ],
    });
    let authorization = AuthorizationConfig::parse(&config.to_string()).expect("a configuration");
    let authorization = Some(authorization);
    let cluster = Cluster::with(ApiConfig { authorization, ..ApiConfig::default() }).await;
    (cluster, outside)
}

fn says(allowed: bool, denied: bool, reason: &str) -> Says {
    Says::Status(json!({ "allowed": allowed, "denied": denied, "reason": reason }))
}

async fn bind(cluster: &Cluster, user: &str) {
    let binding = json!({
        "metadata": { "name": user },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.post(bindings, &binding).await.ok();
}

#[tokio::test]
async fn a_webhook_allows_denies_or_leaves_it_to_roles() {
    let answers =
        [says(true, false, ""), says(false, true, "not on Sundays"), says(false, false, "")];
    let (cluster, outside) = with(&answers, "NoOpinion").await;
    bind(&cluster, "jane").await;
    let jane = User::authenticated("jane", &[]);
    let get = async |path: &str| cluster.call_as(&jane, Method::GET, path, &Value::Null).await;
    get("/api/v1/nodes").await.ok();
    let refused = get(PODS).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.refusal().2.ends_with("in the namespace \"default\": not on Sundays"),
        "{refused:?}"
    );
    get(CONFIG_MAPS).await.ok();
    assert_eq!(get("/api/v1/persistentvolumes").await.code, 403, "roles say nothing of these");
    assert_eq!(get("/api/v1/nodes").await.code, 200, "what it said is good for a while");
    assert_eq!(outside.times_asked(), 4);
    let asked = &outside.asked.lock()[1]["spec"];
    assert_eq!(asked["user"], "jane");
    let attributes = json!({ "verb": "list", "version": "v1", "resource": "pods",
        "namespace": "default" });
    assert_eq!(asked["resourceAttributes"], attributes);
}

#[tokio::test]
async fn reviews_answer_as_the_chain_decides() {
    let answers = [says(false, true, "no"), says(true, false, "yes"), Says::Nothing];
    let (cluster, outside) = with(&answers, "NoOpinion").await;
    let review = async |resource: &str| {
        let spec = json!({ "user": "jane", "resourceAttributes": { "verb": "get",
            "resource": resource } });
        cluster.post(REVIEWS, &json!({ "spec": spec })).await.ok()["status"].clone()
    };
    let denied = json!({ "allowed": false, "denied": true, "reason": "no" });
    assert_eq!(review("pods").await, denied);
    assert_eq!(review("secrets").await, json!({ "allowed": true, "reason": "yes" }));
    let failed = review("nodes").await;
    assert_eq!((&failed["allowed"], &failed["denied"]), (&json!(false), &Value::Null));
    let why = failed["evaluationError"].as_str().unwrap_or_default();
    assert!(why.contains("\"outside\": context deadline exceeded"), "{failed}");
    assert_eq!(outside.times_asked(), 3);
    let own = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = cluster.post(own, &json!({ "spec": { "namespace": "default" } })).await.ok();
    assert_eq!(rules["status"]["incomplete"], true);
}

#[tokio::test]
async fn masters_nodes_and_the_server_itself_need_nobody_outside() {
    let (cluster, outside) = with(&[Says::Nothing], "Deny").await;
    cluster.config_map("by-a-master", json!({})).await;
    let name = "/api/v1/nodes/n";
    let node = User::authenticated("system:node:n", &["system:nodes"]);
    assert_eq!(cluster.call_as(&node, Method::GET, name, &Value::Null).await.code, 404);
    let controller = cluster.server.client().as_service_account("kube-system", "job-controller");
    let jobs =
        controller.list::<k8s_openapi::api::batch::v1::Job>("", &ListOptions::default()).await;
    assert!(jobs.is_ok_and(|jobs| jobs.is_empty()));
    assert_eq!(cluster.call_with(&[], Method::GET, "/livez").await.code, 200);
    assert_eq!(outside.times_asked(), 0);
    let outsider = User::service_account("kube-system", "job-controller");
    let asked = cluster.call_as(&outsider, Method::GET, "/apis/batch/v1/jobs", &Value::Null).await;
    assert_eq!(asked.code, 500, "who comes from outside is asked about: {asked:?}");
    assert_eq!(outside.times_asked(), 1);
}

#[tokio::test]
async fn who_waits_for_a_webhook_keeps_nobody_out() {
    let (outside, file) = Outside::start(&[Says::Nothing]).await;
    let authorization = AuthorizationConfig::parse(&format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: \
         [{{type: Webhook, name: outside, webhook: {{timeout: 5s, failurePolicy: Deny, \
         subjectAccessReviewVersion: v1, connectionInfo: {{type: KubeConfigFile, \
         kubeConfigFile: {}}}}}}}]}}",
        file.path().display()
    ));
    let authorization = Some(authorization.expect("a configuration"));
    let config = ApiConfig { authorization, max_reads_in_flight: 1, ..ApiConfig::default() };
    let cluster = Cluster::with(config).await;
    let jane = User::authenticated("jane", &[]);
    let waiting = cluster.call_as(&jane, Method::GET, PODS, &Value::Null);
    let meanwhile = async {
        while outside.times_asked() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_secs(2), cluster.get(PODS)).await.map(Answer::ok)
    };
    tokio::select! {
        waited = waiting => panic!("it must wait: {waited:?}"),
        found = meanwhile => assert!(found.is_ok(), "the only place must be free"),
    }
}

#[tokio::test]
async fn expressions_of_policies_ask_through_the_chain() {
    let (cluster, outside) = with(&[says(false, false, "")], "NoOpinion").await;
    bind(&cluster, "jane").await;
    let folder = "/apis/admissionregistration.k8s.io/v1";
    let expression = "authorizer.group('x').resource('y').check('z').allowed() || \
                      object.metadata.name == 'free'";
    let policy = json!({ "metadata": { "name": "p" }, "spec": {
        "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["configmaps"] }] },
        "validations": [{ "expression": expression, "message": "not yours" }] } });
    cluster.post(&format!("{folder}/validatingadmissionpolicies"), &policy).await.ok();
    let binding = json!({ "metadata": { "name": "p" },
        "spec": { "policyName": "p", "validationActions": ["Deny"] } });
    cluster.post(&format!("{folder}/validatingadmissionpolicybindings"), &binding).await.ok();
    let jane = User::authenticated("jane", &[]);
    let create = async |name: &str| {
        let path = format!("{CONFIG_MAPS}?dryRun=All");
        let object = json!({ "metadata": { "name": name } });
        cluster.call_as(&jane, Method::POST, &path, &object).await
    };
    let mut last = create("a").await;
    for _ in 0..1000 {
        if last.refusal().2.ends_with("denied request: not yours") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        last = create("a").await;
    }
    assert!(last.refusal().2.ends_with("denied request: not yours"), "{last:?}");
    create("free").await.ok();
    let asked = outside.asked.lock();
    let is_of_policy = |review: &&Value| review["spec"]["resourceAttributes"]["resource"] == "y";
    assert_eq!(asked.iter().filter(is_of_policy).count(), 1, "and it is remembered");
}
