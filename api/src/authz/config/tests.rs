//! What an `AuthorizationConfiguration` may say, and how it is refused.

use super::*;

/// A configuration that asks a webhook between the two built-in ones; `FILE` is its kubeconfig.
const TEXT: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- type: Webhook
  name: outside.example.com
  webhook:
    timeout: 3s
    authorizedTTL: 1m30s
    cacheUnauthorizedRequests: false
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: FILE}
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: "!('system:serviceaccounts' in request.groups)"
- {type: RBAC, name: rbac}
"#;

fn parse(text: &str) -> Result<AuthorizationConfig, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    AuthorizationConfig::parse(&text.replace("FILE", &file.path().display().to_string()))
}

#[test]
fn a_configuration_says_who_is_asked_in_which_order_and_how() {
    for version in VERSIONS {
        let config = parse(&TEXT.replace(VERSIONS[0], version)).expect(version);
        let [AuthorizerConfig::Node, AuthorizerConfig::Webhook(webhook), AuthorizerConfig::Rbac] =
            &config.authorizers[..]
        else {
            panic!("{config:?}")
        };
        assert_eq!(webhook.name, "outside.example.com");
        assert_eq!(webhook.timeout, Duration::from_secs(3));
        assert_eq!(webhook.authorized_ttl, Duration::from_secs(90));
        assert_eq!(webhook.unauthorized_ttl, Duration::ZERO, "it is not to be remembered");
        assert_eq!(webhook.failure, FailurePolicy::Deny);
        assert_eq!(webhook.conditions.len(), 2);
        assert!(config.has_node() && config.has_rbac() && config.has_webhook());
    }
    let text = TEXT.replace("    authorizedTTL: 1m30s\n", "");
    let AuthorizerConfig::Webhook(webhook) =
        parse(&text).expect("a configuration").authorizers.remove(1)
    else {
        panic!("it must be the webhook")
    };
    assert_eq!(webhook.authorized_ttl, AUTHORIZED_TTL, "as upstream where nothing is said");
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    for (was, is, why) in [
        ("/v1\n", "/v2\n", "expected an AuthorizationConfiguration"),
        ("kind: Auth", "kind: Auto", "expected an AuthorizationConfiguration"),
        ("name: node}", "name: node, nme: x}", "unknown field `nme`"),
        ("    timeout", "    time: 1s\n    timeout", "unknown field `time`"),
        ("type: Node", "type: ABAC", "authorizers[0].type: Unsupported value: \"ABAC\""),
        ("{type: Node, ", "{", "authorizers[0].type: Required value"),
        ("type: RBAC", "type: Node", "authorizers[2].type: Duplicate value: \"Node\""),
        ("name: rbac", "name: node", "authorizers[2].name: Duplicate value: \"node\""),
        (", name: rbac", "", "authorizers[2].name: Required value"),
        ("name: rbac", "name: R_B", "authorizers[2].name: Invalid value"),
        ("name: node}", "name: node, webhook: {}}", "may only be specified when type=Webhook"),
        ("    timeout: 3s\n", "", "authorizers[1].webhook.timeout: Required value"),
        ("timeout: 3s", "timeout: 31s", "must be > 0s and <= 30s"),
        ("timeout: 3s", "timeout: 0s", "must be > 0s and <= 30s"),
        ("timeout: 3s", "timeout: -1s", "expected a time such as"),
        ("TTL: 1m30s", "TTL: 0s", "webhook.authorizedTTL: Invalid value"),
        ("TTL: 1m30s", "TTL: soon", "expected a time such as"),
        ("failurePolicy: D", "policy: D", "unknown field `policy`"),
        (
            "failurePolicy: Deny",
            "failurePolicy: Allow",
            "supported values: \"NoOpinion\", \"Deny\"",
        ),
        ("    failurePolicy: Deny\n", "", "webhook.failurePolicy: Required value"),
        ("ReviewVersion: v1\n", "ReviewVersion: v2\n", "subjectAccessReviewVersion: Unsupported"),
        (
            "    matchConditionSubjectAccessReviewVersion: v1\n",
            "",
            "matchConditionSubjectAccessReviewVersion: Required value",
        ),
        ("type: KubeConfigFile, ", "", "connectionInfo.type: Required value"),
        (", kubeConfigFile: FILE", "", "connectionInfo.kubeConfigFile: Required value"),
        ("kubeConfigFile: FILE", "kubeConfigFile: x", "must be an absolute path"),
        ("kubeConfigFile: FILE", "kubeConfigFile: /no/file", "must be a regular file"),
        ("type: KubeConfigFile", "type: InClusterConfig", "only be set when type=KubeConfigFile"),
        ("has(request.resourceAttributes)", "\" \"", "matchConditions[0].expression: Required"),
        ("has(request.resourceAttributes)", "request.", "compilation failed"),
        ("has(request.resourceAttributes)", "object.x == 1", "undeclared reference to 'object'"),
        ("has(request.resourceAttributes)", "request.name == ''", "undefined field 'name'"),
        ("has(request.resourceAttributes)", "request.user", "must evaluate to bool, not string"),
    ] {
        assert!(TEXT.contains(was), "{was}");
        let text = TEXT.replacen(was, is, 1);
        let refused = parse(&text).expect_err(is);
        assert!(refused.contains(why), "{is}: {refused}");
    }
    let empty = "{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration}";
    assert!(parse(empty).expect_err("nobody").contains("at least one authorization mode"));
    let condition = "    - expression: has(request.resourceAttributes)\n";
    let twice = TEXT.replace(condition, &condition.repeat(2));
    assert!(
        parse(&twice).expect_err("the same").contains("matchConditions[1].expression: Duplicate")
    );
}

#[test]
fn one_type_may_be_there_several_times_and_that_is_a_webhook() {
    let another = "- type: Webhook\n  name: second\n  webhook: {timeout: 1s, failurePolicy: Deny, \
                   subjectAccessReviewVersion: v1beta1, connectionInfo: {type: InClusterConfig}}\n";
    let config = parse(&format!("{TEXT}{another}")).expect("two webhooks");
    assert_eq!(config.authorizers.len(), 4);
}
