//! Kinds of storage, policy, networking, RBAC and scaling.

use super::*;

fn cluster(fields: &Value) -> Value {
    let mut value = json!({"metadata": {"name": "web", "creationTimestamp": THEN}});
    value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    value
}

#[test]
fn a_limit_range_fills_its_own_gaps() {
    let got = created(
        &limit_range::KIND,
        with(
            &json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "64Mi"}}]}}),
        ),
    );
    let limit = &got.value()["spec"]["limits"][0];
    assert_eq!(limit["default"], json!({"cpu": "2"}));
    assert_eq!(limit["defaultRequest"], json!({"cpu": "2", "memory": "64Mi"}));
    assert_eq!(
        problems(
            &limit_range::KIND,
            with(
                &json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}})
            ),
        ),
        ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
    );
}

#[test]
fn a_quota_counts_in_quantities_and_keeps_its_scopes() {
    let quota = |spec: Value| with(&json!({ "spec": spec }));
    assert_eq!(
        problems(&resource_quota::KIND, quota(json!({"hard": {"pods": "1.5"}, "scopes": ["Odd"]}))),
        [
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            "spec.scopes: Invalid value: [\"Odd\"]: unsupported scope",
        ]
    );
    assert_eq!(
        change_problems(
            &resource_quota::KIND,
            quota(json!({"scopes": ["BestEffort"]})),
            quota(json!({}))
        ),
        ["spec.scopes: Invalid value: null: field is immutable"]
    );
    let used = with(
        &json!({"status": {"hard": {"pods": "10", "limits.cpu": "4"}, "used": {"pods": "3"}}}),
    );
    assert_eq!(line(&resource_quota::KIND, used, NOW), "web | pods: 3/10 | limits.cpu: 0/4 | 60s");
}

#[test]
fn volumes_and_claims_get_defaults_and_show_their_modes() {
    let volume = cluster(&json!({"spec": {"capacity": {"storage": "1024Mi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "hostPath": {"path": "/x"}}}));
    let got = created(&persistent_volume::KIND, volume.clone());
    assert_eq!(got.str_at("/spec/persistentVolumeReclaimPolicy"), "Retain");
    assert_eq!(got.str_at("/status/phase"), "Pending");
    assert_eq!(problems(&persistent_volume::KIND, volume), Vec::<String>::new());
    assert_eq!(
        line(&persistent_volume::KIND, got.value().clone(), NOW),
        "web | 1Gi | RWO,RWX | Retain | Pending |  |  | <unset> |  | 60s | Filesystem"
    );
    assert_eq!(
        problems(&persistent_volume::KIND, cluster(&json!({"spec": {}}))),
        [
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec: Required value: must specify a volume type",
        ]
    );
    let claim = |size: &str| {
        with(
            &json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}),
        )
    };
    assert_eq!(problems(&persistent_volume_claim::KIND, claim("1Gi")), Vec::<String>::new());
    assert_eq!(
        problems(&persistent_volume_claim::KIND, with(&json!({"spec": {}}))),
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ]
    );
    assert_eq!(
        change_problems(&persistent_volume_claim::KIND, claim("1Gi"), claim("2Gi")),
        ["spec: Forbidden: spec is immutable after creation except resources.requests and \
          volumeAttributesClassName for bound claims"]
    );
    assert_eq!(
        line(
            &persistent_volume_claim::KIND,
            created(&persistent_volume_claim::KIND, claim("1Gi")).into_value(),
            NOW
        ),
        "web | Pending |  |  |  |  | <unset> | 60s | Filesystem"
    );
}

#[test]
fn classes_of_storage_and_priority_keep_their_word() {
    let class = |provisioner: &str| cluster(&json!({"provisioner": provisioner}));
    let got = created(&storage_class::KIND, class("example.com/disk"));
    assert_eq!(
        (got.str_at("/reclaimPolicy"), got.str_at("/volumeBindingMode")),
        ("Delete", "Immediate")
    );
    assert_eq!(
        change_problems(&storage_class::KIND, class("a.b/c"), class("a.b/d")),
        ["provisioner: Forbidden: updates to provisioner are forbidden."]
    );
    let priority = |value: i64| cluster(&json!({ "value": value }));
    assert_eq!(
        problems(&priority_class::KIND, priority(2_000_000_000)),
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
    );
    assert_eq!(
        change_problems(&priority_class::KIND, priority(1), priority(2)),
        ["value: Forbidden: may not be changed in an update."]
    );
    assert_eq!(
        line(&priority_class::KIND, created(&priority_class::KIND, priority(7)).into_value(), NOW),
        "web | 7 | false | 60s | PreemptLowerPriority"
    );
}

#[test]
fn an_ingress_says_where_requests_go() {
    let ingress = |path: Value| {
        with(&json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}}))
    };
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let good = ingress(json!({"path": "/", "pathType": "Prefix", "backend": backend}));
    assert_eq!(problems(&ingress::KIND, good.clone()), Vec::<String>::new());
    assert_eq!(line(&ingress::KIND, good, NOW), "web | <none> | a.example.com |  | 80 | 60s");
    assert_eq!(
        problems(&ingress::KIND, ingress(json!({"path": "x", "pathType": "Exact", "backend": {}}))),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Required value: resource or service backend is \
             required",
        ]
    );
    assert_eq!(
        problems(&ingress::KIND, with(&json!({"spec": {}}))),
        ["spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified"]
    );
}

#[test]
fn network_policies_and_budgets_are_checked() {
    let got = created(
        &network_policy::KIND,
        with(&json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}})),
    );
    assert_eq!(got.at("/spec/policyTypes"), Some(&json!(["Ingress", "Egress"])));
    assert_eq!(got.str_at("/spec/egress/0/ports/0/protocol"), "TCP");
    assert_eq!(
        problems(
            &network_policy::KIND,
            with(&json!({"spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}}))
        ),
        ["spec.ingress[0].from[0]: Required value: must specify a peer"]
    );
    let budget = with(&json!({"spec": {"minAvailable": 1, "maxUnavailable": "50%"}}));
    let refused = problems(&pod_disruption_budget::KIND, budget.clone());
    assert!(
        refused[0].ends_with("minAvailable and maxUnavailable cannot be both set"),
        "{refused:?}"
    );
    assert_eq!(line(&pod_disruption_budget::KIND, budget, NOW), "web | 1 | 50% | 0 | 60s");
}

#[test]
fn roles_have_rules_and_bindings_one_role_for_life() {
    let role = |rule: Value| problems(&role::KIND, with(&json!({"rules": [rule]})));
    assert_eq!(
        role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})),
        Vec::<String>::new()
    );
    assert_eq!(
        role(json!({"verbs": [], "nonResourceURLs": ["/x"]})),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
             non-resource URLs",
        ]
    );
    let binding = |role: &str| {
        with(&json!({"roleRef": {"kind": "Role", "name": role},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}))
    };
    assert_eq!(problems(&role_binding::KIND, binding("a")), Vec::<String>::new());
    assert!(
        change_problems(&role_binding::KIND, binding("a"), binding("b"))[0]
            .ends_with("cannot change roleRef")
    );
    assert_eq!(line(&role_binding::KIND, binding("a"), NOW), "web | Role/a | 60s | u |  | n/s");
    let refused = problems(&cluster_role_binding::KIND, binding("a"));
    assert_eq!(
        refused,
        ["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""]
    );
}

#[test]
fn an_autoscaler_measures_the_processor_by_default() {
    let scaler = |extra: Value| {
        let mut spec =
            json!({"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web"}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        with(&json!({ "spec": spec }))
    };
    let got = created(&horizontal_pod_autoscaler::KIND, scaler(json!({})));
    assert_eq!(got.i64_at("/spec/minReplicas"), Some(1));
    assert_eq!(
        line(&horizontal_pod_autoscaler::KIND, got.into_value(), NOW),
        "web | Deployment/web | cpu: <unknown>/80% | 1 | 5 | 0 | 60s"
    );
    assert_eq!(
        problems(&horizontal_pod_autoscaler::KIND, scaler(json!({"minReplicas": 6}))),
        ["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"]
    );
}

#[test]
fn drivers_of_volumes_are_checked() {
    let driver = created(&csi_driver::KIND, cluster(&json!({"spec": {}})));
    assert_eq!(driver.at("/spec/volumeLifecycleModes"), Some(&json!(["Persistent"])));
    assert_eq!(
        problems(&csi_node::KIND, cluster(&json!({"spec": {"drivers": [{"name": "a.b"}]}}))),
        ["spec.drivers[0].nodeID: Required value"]
    );
    assert_eq!(
        problems(
            &volume_attachment::KIND,
            cluster(&json!({"spec": {"attacher": "a.b", "nodeName": "n"}}))
        ),
        ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and \
          persistentVolumeName"]
    );
    let runtime = |handler: &str| cluster(&json!({"handler": handler}));
    assert_eq!(
        change_problems(&runtime_class::KIND, runtime("a"), runtime("b")),
        ["handler: Invalid value: \"b\": field is immutable"]
    );
    assert_eq!(
        problems(&ingress_class::KIND, cluster(&json!({"spec": {"controller": "x"}}))),
        ["spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \
          \"acme.io/foo\")"]
    );
}
