//! Services from their creation to their row in a table. What they claim of the store is tested
//! with the registry, in `api/tests/allocation.rs`.

use serde_json::{Value, json};

use super::KIND;
use crate::resources::testing::{change_problems, created, defaulted, line, problems, updated};

fn service(spec: &Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

/// A service with the address it would have been given.
fn at(address: &str, extra: &Value) -> Value {
    let mut spec = json!({"ports": [{"port": 80}], "clusterIP": address, "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack"});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    service(&spec)
}

#[test]
fn a_bare_service_gets_its_defaults() {
    let got = created(&KIND, service(&json!({"ports": [{"port": 80}]})));
    assert_eq!(
        got.value()["spec"],
        json!({
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        })
    );
    assert_eq!(got.value()["status"], json!({"loadBalancer": {}}));
}

#[test]
fn what_the_type_needs_is_defaulted_with_it() {
    let got = defaulted(&KIND, service(&json!({"type": "LoadBalancer", "ports": [{"port": 80}]})));
    assert_eq!(got.at("/spec/allocateLoadBalancerNodePorts"), Some(&json!(true)));
    assert_eq!(got.str_at("/spec/externalTrafficPolicy"), "Cluster");
    let got = defaulted(&KIND, service(&json!({"type": "ExternalName", "externalName": "x.y"})));
    assert_eq!(got.at("/spec/internalTrafficPolicy"), None);
    let got = defaulted(&KIND, service(&json!({"sessionAffinity": "ClientIP"})));
    assert_eq!(got.i64_at("/spec/sessionAffinityConfig/clientIP/timeoutSeconds"), Some(10_800));
}

#[test]
fn what_a_service_may_not_say_is_refused_in_kubernetes_words() {
    for (value, expected) in [
        (service(&json!({})), vec!["spec.ports: Required value"]),
        (
            at("10.96.0.9", &json!({"ports": [{"port": 0}]})),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            at("10.96.0.9", &json!({"ports": [{"port": 1}, {"name": "b", "port": 2}]})),
            vec!["spec.ports[0].name: Required value"],
        ),
        (
            at(
                "10.96.0.9",
                &json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}),
            ),
            vec![
                "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\",\"targetPort\":0}",
            ],
        ),
        (
            at("10.96.0.9", &json!({"type": "Magic"})),
            vec![
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \
                 \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            at("10.96.0.9", &json!({"ports": [{"port": 1, "nodePort": 30000}]})),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            at("None", &json!({"type": "NodePort"})),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort \
                 services",
            ],
        ),
        (service(&json!({"type": "ExternalName"})), vec!["spec.externalName: Required value"]),
        (
            at("10.96.0.9", &json!({"externalTrafficPolicy": "Local"})),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for \
                 externally-accessible services",
            ],
        ),
        (
            at("10.96.0.9", &json!({"externalIPs": ["127.0.0.1"]})),
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                 (127.0.0.0/8, ::1/128)",
            ],
        ),
    ] {
        assert_eq!(problems(&KIND, value.clone()), expected, "{value}");
    }
}

#[test]
fn an_update_without_the_address_keeps_it() {
    let old = created(
        &KIND,
        at("10.96.0.9", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30100}]})),
    );
    let new = updated(&KIND, &old, service(&json!({"type": "NodePort", "ports": [{"port": 80}]})));
    assert_eq!(new.str_at("/spec/clusterIP"), "10.96.0.9");
    assert_eq!(new.at("/spec/clusterIPs"), Some(&json!(["10.96.0.9"])));
    assert_eq!(new.i64_at("/spec/ports/0/nodePort"), Some(30100));
    let plain =
        updated(&KIND, &new, at("10.96.0.9", &json!({"ports": [{"port": 80, "nodePort": 30100}]})));
    assert_eq!(plain.at("/spec/ports/0/nodePort"), None);
    let named = updated(
        &KIND,
        &plain,
        service(&json!({"type": "ExternalName", "externalName": "x.y", "clusterIP": "10.96.0.9"})),
    );
    assert_eq!(named.at("/spec/clusterIPs"), None);
}

#[test]
fn an_address_is_for_life() {
    assert_eq!(
        change_problems(&KIND, at("10.96.0.9", &json!({})), at("10.96.0.10", &json!({}))),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]
    );
    assert_eq!(
        change_problems(
            &KIND,
            at("10.96.0.9", &json!({})),
            at("10.96.0.9", &json!({"ports": [{"port": 81}]}))
        ),
        Vec::<String>::new()
    );
}

#[test]
fn a_row_says_where_a_service_is() {
    let now = "2026-01-01T00:00:10Z";
    let shown = |spec: Value, status: Value| {
        let metadata = json!({"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"});
        line(&KIND, json!({"metadata": metadata, "spec": spec, "status": status}), now)
    };
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]);
    assert_eq!(
        shown(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports, "selector": {"app": "web"}}),
            json!({})
        ),
        "web | NodePort | 10.96.0.9 | <none> | 80/TCP,53:30053/UDP | 10s | app=web"
    );
    assert_eq!(
        shown(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9"}), json!({})),
        "web | LoadBalancer | 10.96.0.9 | <pending> | <none> | 10s | <none>"
    );
    assert_eq!(
        shown(json!({"type": "ExternalName", "externalName": "example.com"}), json!({})),
        "web | ExternalName | <none> | example.com | <none> | 10s | <none>"
    );
}
