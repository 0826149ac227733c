//! Policies: what writes must fulfil, in CEL.

use super::*;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

fn policy(name: &str, extra: Value) -> Value {
    let mut spec = json!({
        "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"] }] },
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn binding(name: &str, extra: Value) -> Value {
    let mut spec = json!({ "policyName": name, "validationActions": ["Deny"] });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn map(name: &str, replicas: &str) -> Value {
    json!({ "metadata": { "name": name }, "data": { "replicas": replicas } })
}

impl Cluster {
    async fn hold_to(&self, policy: &Value, binding: &Value) {
        self.post(POLICIES, policy).await.ok();
        self.post(BINDINGS, binding).await.ok();
    }

    /// The refusal of a write, once the policies are known.
    async fn refused(&self, object: &Value) -> Answer {
        let path = format!("{CONFIG_MAPS}?dryRun=All");
        for _ in 0..1000 {
            let answer = self.post(&path, object).await;
            if answer.code >= 400 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("a policy must be known soon");
    }
}

#[tokio::test]
async fn a_write_that_breaks_a_policy_is_refused_in_the_policy_s_words() {
    let cluster = Cluster::start().await;
    let policy = policy(
        "p",
        json!({
            "variables": [
                { "name": "replicas", "expression": "int(object.data.replicas)" },
                { "name": "isOdd", "expression": "variables.replicas % 2 == 1" },
            ],
            "validations": [
                { "expression": "variables.replicas > 1",
                  "messageExpression": "'only ' + string(variables.replicas) + ' replicas'" },
                { "expression": "variables.isOdd", "message": "must be odd", "reason": "Forbidden" },
                { "expression": "!object.metadata.name.startsWith('x')" },
                { "expression": "namespaceObject.metadata.name == 'default'" },
            ],
        }),
    );
    let made = cluster.post(POLICIES, &policy).await.ok();
    assert_eq!(made["spec"]["failurePolicy"], "Fail");
    assert_eq!(made["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    assert_eq!(made["status"]["observedGeneration"], 1);
    cluster.post(BINDINGS, &binding("p", json!({}))).await.ok();
    let start = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: ";
    let forbidden =
        |name: &str, why: &str| format!("configmaps {name:?} is forbidden: {start}{why}");
    let table = [
        ("a", "1", 422, "Invalid", "only 1 replicas"),
        ("a", "2", 403, "Forbidden", "must be odd"),
        ("x", "3", 422, "Invalid", "failed expression: !object.metadata.name.startsWith('x')"),
    ];
    for (name, replicas, code, reason, why) in table {
        let refused = cluster.refused(&map(name, replicas)).await;
        assert_eq!(refused.refusal(), (code, reason, forbidden(name, why).as_str()));
    }
    let refused = cluster.refused(&json!({ "metadata": { "name": "a" } })).await;
    assert!(refused.refusal().2.contains("resulted in error"), "{refused:?}");
    cluster.post(CONFIG_MAPS, &map("a", "3")).await.ok();
}

#[tokio::test]
async fn bindings_choose_where_with_what_and_how_a_policy_counts() {
    let cluster = Cluster::start().await;
    let limited = policy(
        "limited",
        json!({
            "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
            "matchConditions": [{ "name": "not-params", "expression": "object.metadata.name != 'params'" }],
            "validations": [{ "expression": "int(object.data.replicas) <= int(params.data.max)",
                "messageExpression": "'more than ' + params.data.max" }],
        }),
    );
    let at = json!({
        "paramRef": { "name": "params", "namespace": "kube-public", "parameterNotFoundAction": "Deny" },
        "matchResources": { "namespaceSelector": {
            "matchLabels": { "kubernetes.io/metadata.name": "default" } } },
    });
    cluster.hold_to(&limited, &binding("limited", at)).await;
    let refused = cluster.refused(&map("a", "3")).await;
    assert!(refused.refusal().2.contains("no params found for policy binding"), "{refused:?}");
    let public = "/api/v1/namespaces/kube-public/configmaps";
    let params = json!({ "metadata": { "name": "params" }, "data": { "max": "2" } });
    cluster.post(public, &params).await.ok();
    let refused = cluster.refused(&map("a", "3")).await;
    assert!(refused.refusal().2.ends_with("denied request: more than 2"), "{refused:?}");
    cluster.post(CONFIG_MAPS, &map("a", "2")).await.ok();
    cluster.post(public, &map("elsewhere", "3")).await.ok();
    // One that only warns.
    let quiet =
        policy("quiet", json!({ "validations": [{ "expression": "false", "message": "hm" }] }));
    let warn = json!({ "validationActions": ["Warn", "Audit"] });
    cluster.hold_to(&quiet, &binding("quiet", warn)).await;
    let mut warned = None;
    for turn in 0..1000 {
        let body = map(&format!("w{turn}"), "1").to_string().into_bytes();
        let answer = cluster.send(http::Method::POST, CONFIG_MAPS, "application/json", body).await;
        assert_eq!(answer.status(), 201);
        warned = answer.headers().get("warning").cloned();
        if warned.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        warned.expect("a warning").to_str().unwrap(),
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'quiet' with binding 'quiet': hm\""
    );
}

#[tokio::test]
async fn policies_ask_what_the_user_may_and_cannot_burn_the_processor() {
    let cluster = Cluster::start().await;
    let asking = policy(
        "asking",
        json!({ "validations": [{ "message": "not yours",
            "expression": "authorizer.group('').resource('secrets').namespace('kube-system')\
                .check('delete').allowed() && authorizer.requestResource.check('create').allowed()" }] }),
    );
    cluster.hold_to(&asking, &binding("asking", json!({}))).await;
    let role = json!({ "metadata": { "name": "maps" }, "rules": [{ "apiGroups": [""],
        "resources": ["configmaps"], "verbs": ["create"] }] });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.ok();
    let bound = json!({ "metadata": { "name": "maps" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" }] });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.ok();
    let jane = User::authenticated("jane", &[]);
    let create = async || {
        let path = format!("{CONFIG_MAPS}?dryRun=All");
        cluster.call_as(&jane, Method::POST, &path, &map("a", "1")).await
    };
    let mut last = create().await;
    for _ in 0..1000 {
        if last.refusal().2.ends_with("denied request: not yours") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        last = create().await;
    }
    assert!(last.refusal().2.ends_with("denied request: not yours"), "{last:?}");
    cluster.post(CONFIG_MAPS, &map("masters-may", "1")).await.ok();
    let burning = "object.metadata.name.split('').all(a, object.metadata.name.split('').all(b, \
        object.metadata.name.split('').all(c, object.metadata.name.split('').all(d, a + b + c + d != 'y'))))";
    let burning = policy("burning", json!({ "validations": [{ "expression": burning }] }));
    cluster.hold_to(&burning, &binding("burning", json!({}))).await;
    let begun = std::time::Instant::now();
    let refused = cluster.refused(&map(&"x".repeat(60), "1")).await;
    assert!(refused.refusal().2.contains("actual cost limit exceeded"), "{refused:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[tokio::test]
async fn policies_that_cannot_be_are_refused() {
    let cluster = Cluster::start().await;
    let table = [
        (json!({ "validations": [{ "expression": "object.x == " }] }), "compilation failed"),
        (
            json!({ "validations": [{ "expression": "params.x" }] }),
            "undeclared reference to 'params'",
        ),
        (json!({}), "validations or auditAnnotations must be non-empty"),
        (
            json!({ "validations": [{ "expression": "true", "reason": "Why" }] }),
            "spec.validations[0].reason: Unsupported value: \"Why\"",
        ),
    ];
    for (extra, why) in table {
        let refused = cluster.post(POLICIES, &policy("p", extra)).await;
        assert_eq!(refused.code, 422, "{refused:?}");
        assert!(refused.refusal().2.contains(why), "{refused:?}");
    }
    let both = json!({ "validationActions": ["Deny", "Warn"] });
    assert_eq!(cluster.post(BINDINGS, &binding("p", both)).await.code, 422);
}
