//! The kinds one by one: defaults, what they refuse and in which words, what may not change, rows.

use serde_json::{Value, json};

use super::testing::{change_problems, created, defaulted, line, object, problems, texts, updated};
use super::*;
use crate::registry::scheme::Scheme;

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-01T00:01:00Z";

fn metadata() -> Value {
    json!({"name": "web", "namespace": "default", "creationTimestamp": THEN})
}

/// An object with these fields beside its metadata.
fn with(fields: &Value) -> Value {
    let mut value = json!({"metadata": metadata()});
    value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    value
}

fn template(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn workload(extra: &Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(&json!({"app": "web"})),
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    with(&json!({"spec": spec}))
}

#[test]
fn each_kind_has_a_resource_of_its_own() {
    let scheme = Scheme::new(KINDS);
    assert_eq!(scheme.kinds().len(), KINDS.len());
    let pods = scheme.resource("", "v1", "pods").unwrap();
    assert_eq!(pods.kind, "Pod");
    for kind in KINDS {
        let cells =
            kind.strategy.row(&object(json!({"metadata": metadata()})), NOW.parse().unwrap());
        assert_eq!(cells.len(), kind.strategy.columns().len(), "{kind:?}");
        for path in kind.strategy.selectable() {
            kind.strategy.field(&object(json!({})), path);
        }
    }
}

#[test]
fn every_kind_defaults_an_empty_object_without_harm() {
    for kind in KINDS {
        let bare = defaulted(kind, json!({"metadata": {"name": "a"}}));
        assert_eq!(bare.name(), "a", "{kind:?}");
        defaulted(kind, json!({"metadata": {"name": "a"}, "spec": null, "status": null}));
        kind.strategy.validate(&bare);
        kind.strategy.validate_update(&bare, &bare);
        kind.strategy.validate_status_update(&bare, &bare);
    }
}

#[test]
fn a_deployment_rolls_a_quarter_at_a_time_by_default() {
    let got = created(&deployment::KIND, workload(&json!({})));
    let spec = &got.value()["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(spec["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        spec["template"]["spec"].get("tolerations"),
        None,
        "a template stays as it was said"
    );
    assert_eq!(got.generation(), 1);
}

#[test]
fn what_a_deployment_may_not_say_is_refused_in_kubernetes_words() {
    for (spec, expected) in [
        (
            json!({"template": template(&json!({"app": "x"}))}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not \
             match template `labels`",
        ),
        (json!({"selector": null}), "spec.selector: Required value"),
        (
            json!({"selector": {}}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            json!({"replicas": -1}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is \
             'Recreate'",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when \
             `maxSurge` is 0",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be \
             greater than 100%",
        ),
        (
            json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5}),
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ),
        (
            json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
             \"Always\"",
        ),
        (
            json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{"name": "c"}]}}}),
            "spec.template.spec.containers[0].image: Required value",
        ),
    ] {
        assert_eq!(problems(&deployment::KIND, workload(&spec)), [expected], "{spec}");
    }
}

#[test]
fn a_selector_is_for_life() {
    let labels = json!({"app": "b"});
    let other = json!({"selector": {"matchLabels": labels}, "template": template(&labels)});
    for kind in [&deployment::KIND, &replica_set::KIND] {
        assert_eq!(
            change_problems(kind, workload(&json!({})), workload(&other)),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]
        );
    }
}

#[test]
fn generations_count_changes_of_the_specification_only() {
    let old = created(&deployment::KIND, workload(&json!({})));
    let mut labelled = workload(&json!({}));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(updated(&deployment::KIND, &old, labelled).generation(), 1);
    assert_eq!(updated(&deployment::KIND, &old, workload(&json!({"replicas": 3}))).generation(), 2);
}

#[test]
fn counts_of_a_status_must_agree() {
    let check = |status: Value| {
        let new = object(with(&json!({ "status": status })));
        texts(&deployment::KIND.strategy.validate_status_update(&new, &object(json!({}))))
    };
    assert_eq!(
        check(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1})),
        Vec::<String>::new()
    );
    assert_eq!(
        check(json!({"replicas": 1, "readyReplicas": 2})),
        ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
    );
}

#[test]
fn workloads_show_their_counts() {
    let status =
        json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1});
    let mut value = workload(&json!({"replicas": 2}));
    value["status"] = status;
    assert_eq!(
        line(&deployment::KIND, value.clone(), NOW),
        "web | 1/2 | 2 | 1 | 60s | c | i:1 | app=web"
    );
    assert_eq!(line(&replica_set::KIND, value, NOW), "web | 2 | 2 | 1 | 60s | c | i:1 | app=web");
}

#[test]
fn a_replica_set_is_labelled_as_its_pods() {
    let got = created(&replica_set::KIND, workload(&json!({})));
    assert_eq!(got.label("app"), Some("web"));
    assert_eq!(got.i64_at("/spec/replicas"), Some(1));
    let strategy = replica_set::KIND.strategy;
    assert_eq!(strategy.field(&got, "status.replicas"), "0");
    assert_eq!(strategy.scale().unwrap().spec_replicas, "/spec/replicas");
}

#[test]
fn a_namespace_names_itself_and_waits_for_its_content() {
    let got = created(&namespace::KIND, json!({"metadata": {"name": "web"}}));
    assert_eq!(got.label(namespace::NAME_LABEL), Some("web"));
    assert_eq!(got.value()["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(got.value()["status"], json!({"phase": "Active"}));
    let changed = updated(&namespace::KIND, &got, json!({"metadata": {"name": "web"}, "spec": {}}));
    assert_eq!(changed.value()["spec"], got.value()["spec"]);
    let ended = object(json!({"metadata": {"name": "web"}, "status": {"phase": "Terminating"}}));
    assert_eq!(
        texts(&namespace::KIND.strategy.validate_status_update(&ended, &got)),
        ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if \
          `deletionTimestamp` is empty"]
    );
    assert_eq!(
        problems(
            &namespace::KIND,
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x"]}})
        ),
        [
            "spec.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is \
          it fully qualified"
        ]
    );
}

#[test]
fn a_namespace_is_held_by_its_finalizers_and_says_that_it_goes() {
    let mut got = created(&namespace::KIND, json!({"metadata": {"name": "web"}}));
    assert!(namespace::KIND.strategy.is_held(&got));
    namespace::KIND.strategy.begin_deletion(&mut got);
    assert_eq!(got.str_at("/status/phase"), "Terminating");
    got.remove(&["spec", "finalizers"]);
    assert!(!namespace::KIND.strategy.is_held(&got));
}

#[test]
fn keys_and_sizes_of_config_maps_are_bounded() {
    let refused = |fields: Value| problems(&config_map::KIND, with(&fields));
    assert_eq!(
        refused(json!({"data": {"a.b": "x"}, "binaryData": {"c": "AA=="}})),
        Vec::<String>::new()
    );
    assert_eq!(
        refused(json!({"data": {"..": "x"}})),
        ["data[..]: Invalid value: \"..\": must not be '..'"]
    );
    assert_eq!(
        refused(json!({"data": {"a": "x"}, "binaryData": {"a": "AA=="}})),
        ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
    );
    let big = "x".repeat(config_map::DATA_MAX_BYTES + 1);
    assert_eq!(
        refused(json!({"data": {"a": big}})),
        [": Too long: may not be more than 1048576 bytes"]
    );
}

#[test]
fn what_is_frozen_stays() {
    let frozen = with(&json!({"immutable": true, "data": {"a": "YQ=="}}));
    for kind in [&config_map::KIND, &secret::KIND] {
        assert_eq!(
            change_problems(kind, frozen.clone(), with(&json!({"data": {"a": "Yg=="}}))),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}

#[test]
fn texts_of_a_secret_become_data() {
    let got =
        created(&secret::KIND, with(&json!({"stringData": {"a": "hello"}, "data": {"b": "YQ=="}})));
    assert_eq!(got.value()["data"], json!({"a": "aGVsbG8=", "b": "YQ=="}));
    assert_eq!(got.str_at("/type"), "Opaque");
    assert_eq!(got.at("/stringData"), None);
    assert_eq!(line(&secret::KIND, got.value().clone(), NOW), "web | Opaque | 2 | 60s");
}

#[test]
fn secrets_of_a_type_have_what_it_needs() {
    let of = |kind: &str| problems(&secret::KIND, with(&json!({"type": kind})));
    assert_eq!(
        of("kubernetes.io/tls"),
        ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    );
    assert_eq!(
        of("kubernetes.io/basic-auth"),
        ["data[username]: Required value", "data[password]: Required value"]
    );
    assert_eq!(
        of("kubernetes.io/service-account-token"),
        ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
    );
    assert_eq!(of("example.com/own"), Vec::<String>::new());
    assert_eq!(
        change_problems(&secret::KIND, with(&json!({})), with(&json!({"type": "a/b"}))),
        ["type: Invalid value: \"a/b\": field is immutable"]
    );
}

#[test]
fn a_node_keeps_its_block_of_addresses() {
    let node = |spec: Value| with(&json!({ "spec": spec }));
    let got = created(&node::KIND, node(json!({"podCIDR": "10.244.0.0/24"})));
    assert_eq!(got.at("/spec/podCIDRs"), Some(&json!(["10.244.0.0/24"])));
    assert_eq!(
        change_problems(
            &node::KIND,
            node(json!({"podCIDR": "10.244.0.0/24", "providerID": "a"})),
            node(json!({"podCIDR": "10.244.1.0/24", "providerID": "b"})),
        ),
        [
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to \
             valid",
        ]
    );
    assert_eq!(
        change_problems(&node::KIND, node(json!({})), node(json!({"podCIDR": "10.244.1.0/24"}))),
        Vec::<String>::new()
    );
    assert_eq!(
        problems(&node::KIND, node(json!({"taints": [{"key": "a", "effect": "Never"}]}))),
        ["metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \
          \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""]
    );
}

#[test]
fn what_a_node_has_it_can_give_unless_it_says_less() {
    let got = defaulted(
        &node::KIND,
        with(&json!({"status": {"capacity": {"cpu": "2000m", "memory": "1024Mi"}}})),
    );
    assert_eq!(got.value()["status"]["allocatable"], json!({"cpu": "2", "memory": "1Gi"}));
}

#[test]
fn a_row_says_how_a_node_is() {
    let node = json!({
        "metadata": {"name": "n", "creationTimestamp": THEN,
            "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian", "kernelVersion": "6",
                "containerRuntimeVersion": "containerd://2"},
        },
    });
    assert_eq!(
        line(&node::KIND, node, NOW),
        "n | Ready,SchedulingDisabled | edge,worker | 60s | v1.35.0 | 10.0.0.1 | <none> | Debian | \
         6 | containerd://2"
    );
    assert!(
        line(&node::KIND, json!({"metadata": {"name": "n"}}), NOW)
            .starts_with("n | Unknown | <none>")
    );
}

#[test]
fn an_event_stands_where_its_object_does() {
    let event = |involved: Value| with(&json!({ "involvedObject": involved }));
    assert_eq!(
        problems(&event::KIND, event(json!({"namespace": "default"}))),
        Vec::<String>::new()
    );
    assert_eq!(problems(&event::KIND, event(json!({"kind": "Node"}))), Vec::<String>::new());
    assert_eq!(
        problems(&event::KIND, event(json!({"namespace": "other"}))),
        ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
    );
}

#[test]
fn a_row_tells_an_event() {
    let event = with(&json!({
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "type": "Normal", "reason": "Pulled", "message": "got it\n", "count": 3,
        "firstTimestamp": THEN, "lastTimestamp": "2026-01-01T00:00:30Z",
        "source": {"component": "kubelet", "host": "n"},
    }));
    assert_eq!(
        line(&event::KIND, event.clone(), NOW),
        "30s | Normal | Pulled | pod/p | spec.containers{c} | kubelet, n | got it | 60s | 3 | web"
    );
    let strategy = event::KIND.strategy;
    assert_eq!(strategy.field(&object(event.clone()), "involvedObject.name"), "p");
    assert_eq!(strategy.field(&object(event), "source"), "kubelet");
}

#[test]
fn a_lease_lasts_some_time() {
    let lease = |spec: Value| problems(&lease::KIND, with(&json!({ "spec": spec })));
    assert_eq!(
        lease(json!({"leaseDurationSeconds": 40, "leaseTransitions": 0})),
        Vec::<String>::new()
    );
    assert_eq!(
        lease(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1})),
        [
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
}

#[test]
fn endpoints_are_addresses_that_mean_the_same_everywhere() {
    let subsets = |subset: Value| problems(&endpoints::KIND, with(&json!({"subsets": [subset]})));
    assert_eq!(
        subsets(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]})),
        Vec::<String>::new()
    );
    assert_eq!(
        subsets(json!({"ports": [{"port": 80}]})),
        ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]
    );
    assert_eq!(
        subsets(json!({"addresses": [{"ip": "127.0.0.1"}]})),
        ["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback \
          range (127.0.0.0/8, ::1/128)"]
    );
    let addresses: Vec<Value> = (1..6).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
    let value = with(&json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}));
    assert_eq!(
        line(&endpoints::KIND, value, NOW),
        "web | 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more... | 60s"
    );
}

#[test]
fn a_slice_has_addresses_of_one_type() {
    let slice = |kind: &str, address: &str| {
        with(
            &json!({"addressType": kind, "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]}),
        )
    };
    let refused = |value: Value| problems(&endpoint_slice::KIND, value);
    assert_eq!(refused(slice("IPv4", "10.0.0.1")), Vec::<String>::new());
    assert_eq!(
        refused(slice("IPv4", "::1")),
        ["endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"]
    );
    assert_eq!(
        refused(with(&json!({"addressType": "Post", "endpoints": [{"addresses": []}]}))),
        [
            "addressType: Unsupported value: \"Post\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ]
    );
    assert_eq!(
        change_problems(&endpoint_slice::KIND, slice("IPv4", "10.0.0.1"), slice("FQDN", "a.b")),
        ["addressType: Invalid value: \"FQDN\": field is immutable"]
    );
    let got = defaulted(&endpoint_slice::KIND, slice("IPv4", "10.0.0.1"));
    assert_eq!(got.value()["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    assert_eq!(
        line(&endpoint_slice::KIND, got.value().clone(), NOW),
        "web | IPv4 | 80 | 10.0.0.1 | 60s"
    );
}

/// What is stored can be read by those who know the types.
fn readable<K: serde::de::DeserializeOwned + serde::Serialize>(kind: &Kind, value: Value) {
    let stored = created(kind, value);
    let typed: K = stored.to_typed().unwrap();
    let mut again = Object::from_typed(&typed).unwrap();
    kind.strategy.default(&mut again);
    assert!(
        crate::validation::errors::same(&again.value()["spec"], &stored.value()["spec"]),
        "{kind:?} must keep its meaning through its type: {} is not {}",
        again.value()["spec"],
        stored.value()["spec"]
    );
}

#[test]
fn stored_objects_keep_their_meaning_through_their_types() {
    use k8s_openapi::api;
    let job = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
    readable::<api::apps::v1::Deployment>(&deployment::KIND, workload(&json!({})));
    readable::<api::apps::v1::ReplicaSet>(&replica_set::KIND, workload(&json!({})));
    readable::<api::apps::v1::StatefulSet>(&stateful_set::KIND, workload(&json!({})));
    readable::<api::apps::v1::DaemonSet>(&daemon_set::KIND, workload(&json!({})));
    readable::<api::batch::v1::Job>(&job::KIND, with(&json!({ "spec": job })));
    readable::<api::core::v1::Namespace>(&namespace::KIND, with(&json!({})));
    readable::<api::core::v1::Service>(
        &service::KIND,
        with(&json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}})),
    );
    readable::<api::core::v1::Node>(
        &node::KIND,
        with(&json!({"spec": {"podCIDR": "10.244.0.0/24"}})),
    );
    readable::<api::core::v1::PersistentVolumeClaim>(
        &persistent_volume_claim::KIND,
        with(&json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}})),
    );
    readable::<api::policy::v1::PodDisruptionBudget>(
        &pod_disruption_budget::KIND,
        with(&json!({})),
    );
    readable::<api::autoscaling::v2::HorizontalPodAutoscaler>(
        &horizontal_pod_autoscaler::KIND,
        with(&json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "a", "name": "b"}}})),
    );
}

#[test]
fn a_new_object_has_a_status_to_look_into() {
    let status = |kind: &Kind| created(kind, workload(&json!({}))).at("/status").cloned();
    assert_eq!(status(&deployment::KIND), Some(json!({})));
    assert_eq!(status(&replica_set::KIND), Some(json!({"replicas": 0})));
}

mod batch_and_more;
mod cluster;
mod odd;
