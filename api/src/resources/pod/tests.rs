//! Pods from their creation to their row in a table.

use serde_json::{Value, json};

use super::KIND;
use crate::object::Object;
use crate::resources::testing::{
    change_problems, created, defaulted, line, object, problems, texts, updated,
};

const NOW: &str = "2026-01-01T01:00:00Z";

fn pod(spec: &Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn with_container(extra: &Value) -> Value {
    let mut container = json!({"name": "c", "image": "nginx"});
    container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    pod(&json!({"containers": [container], "serviceAccountName": "default"}))
}

fn spec_with(extra: &Value) -> Value {
    let mut spec =
        json!({"containers": [{"name": "c", "image": "nginx"}], "serviceAccountName": "default"});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    pod(&spec)
}

#[test]
fn a_bare_pod_gets_every_default() {
    let pod = created(
        &KIND,
        pod(&json!({"containers": [
            {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]},
        ]})),
    );
    let expected = json!({
        "containers": [{
            "name": "c",
            "image": "nginx",
            "imagePullPolicy": "Always",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        }],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": true,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {
                "effect": "NoExecute",
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "tolerationSeconds": 300,
            },
            {
                "effect": "NoExecute",
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "tolerationSeconds": 300,
            },
        ],
    });
    assert_eq!(pod.value()["spec"], expected);
    assert_eq!(pod.value()["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod.generation(), 1);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.29", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
    ] {
        let pod = defaulted(&KIND, with_container(&json!({"image": image})));
        assert_eq!(pod.str_at("/spec/containers/0/imagePullPolicy"), policy, "{image}");
    }
}

#[test]
fn limits_become_requests_in_canonical_form() {
    let pod = defaulted(
        &KIND,
        with_container(&json!({"resources": {"limits": {"cpu": 0.1, "memory": "1024Mi"}}})),
    );
    let expected = json!({"cpu": "100m", "memory": "1Gi"});
    assert_eq!(pod.at("/spec/containers/0/resources/limits"), Some(&expected));
    assert_eq!(pod.at("/spec/containers/0/resources/requests"), Some(&expected));
}

#[test]
fn probes_volumes_and_variables_get_their_defaults() {
    let pod = defaulted(
        &KIND,
        json!({"spec": {
            "containers": [{
                "name": "c",
                "image": "i",
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            }],
            "volumes": [
                {"name": "a"},
                {"name": "b", "configMap": {"name": "x"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {"name": "e", "hostPath": {"path": "/x"}},
            ],
        }}),
    );
    assert_eq!(
        pod.value()["spec"]["containers"][0]["livenessProbe"],
        json!({
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
            "successThreshold": 1,
            "failureThreshold": 3,
        })
    );
    assert_eq!(pod.str_at("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion"), "v1");
    assert_eq!(
        pod.value()["spec"]["volumes"],
        json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
            {"name": "d", "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
            }},
            {"name": "e", "hostPath": {"path": "/x", "type": ""}},
        ])
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of refusals reads best whole")]
fn what_a_pod_may_not_say_is_refused_in_kubernetes_words() {
    let long = "must be no more than 15 bytes";
    for (value, expected) in [
        (pod(&json!({})), "spec.containers: Required value".to_owned()),
        (
            with_container(&json!({"image": ""})),
            "spec.containers[0].image: Required value".to_owned(),
        ),
        (
            with_container(&json!({"image": " x"})),
            "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing \
             whitespace"
                .to_owned(),
        ),
        (
            with_container(&json!({"name": "a.b"})),
            "spec.containers[0].name: Invalid value: \"a.b\": must not contain dots".to_owned(),
        ),
        (
            with_container(&json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported \
             values: \"Always\", \"IfNotPresent\", \"Never\""
                .to_owned(),
        ),
        (
            with_container(&json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
             and 65535, inclusive"
                .to_owned(),
        ),
        (
            with_container(&json!({"ports": [{"name": "much-too-long-a-name", "containerPort": 1}]})),
            format!("spec.containers[0].ports[0].name: Invalid value: \"much-too-long-a-name\": {long}"),
        ),
        (
            with_container(&json!({"ports": [{"containerPort": 1, "protocol": "ICMP"}]})),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \
             \"SCTP\", \"TCP\", \"UDP\""
                .to_owned(),
        ),
        (
            with_container(&json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"".to_owned(),
        ),
        (
            with_container(&json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 1"
                .to_owned(),
        ),
        (
            with_container(&json!({"resources": {"requests": {"cpu": "-1"}}})),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than \
             or equal to 0"
                .to_owned(),
        ),
        (
            with_container(&json!({"env": [{"name": "a=b"}]})),
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable \
             name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ),
        (
            with_container(&json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type"
                .to_owned(),
        ),
        (
            spec_with(&json!({"restartPolicy": "Sometimes"})),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"OnFailure\", \"Never\""
                .to_owned(),
        ),
        (
            spec_with(&json!({"activeDeadlineSeconds": 0})),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, \
             inclusive"
                .to_owned(),
        ),
        (
            spec_with(&json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]})),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type".to_owned(),
        ),
        (
            spec_with(&json!({"volumes": [{"name": "v"}, {"name": "v"}]})),
            "spec.volumes[1].name: Duplicate value: \"v\"".to_owned(),
        ),
        (
            spec_with(&json!({"tolerations": [{"key": "a", "operator": "Near"}]})),
            "spec.tolerations[0].operator: Unsupported value: \"Near\": supported values: \
             \"Equal\", \"Exists\""
                .to_owned(),
        ),
        (
            spec_with(&json!({"nodeSelector": {"a": "b c"}})),
            "spec.nodeSelector: Invalid value: \"b c\": a valid label must be an empty string or \
             consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        ),
        (
            spec_with(&json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            ]})),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"
                .to_owned(),
        ),
        (
            spec_with(&json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
            }}})),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
             nodeSelectorTerms: Required value: must have at least one node selector term"
                .to_owned(),
        ),
    ] {
        assert_eq!(problems(&KIND, value.clone()), [expected], "{value}");
    }
}

#[test]
fn a_resource_nobody_knows_is_refused_twice_over() {
    let gpu = |name: &str| with_container(&json!({"resources": {"limits": {name: "1"}}}));
    let at =
        |list: &str| format!("spec.containers[0].resources.{list}[gpu]: Invalid value: \"gpu\"");
    let twice = |list: &str| {
        [
            format!("{}: must be a standard resource type or fully qualified", at(list)),
            format!("{}: must be a standard resource for containers", at(list)),
        ]
    };
    assert_eq!(problems(&KIND, gpu("gpu")), [twice("limits"), twice("requests")].concat());
    assert_eq!(problems(&KIND, gpu("example.com/gpu")), Vec::<String>::new());
}

#[test]
fn names_of_containers_are_unique_across_the_pod() {
    let spec = json!({
        "containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}],
        "initContainers": [{"name": "c", "image": "i"}],
    });
    assert_eq!(
        problems(&KIND, pod(&spec)),
        [
            "spec.containers[1].name: Duplicate value: \"c\"",
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ]
    );
}

#[test]
fn two_containers_cannot_have_one_port_of_the_node() {
    let port = json!([{"containerPort": 80, "hostPort": 80}]);
    let spec = json!({"containers": [
        {"name": "a", "image": "i", "ports": port},
        {"name": "b", "image": "i", "ports": port},
    ]});
    assert_eq!(
        problems(&KIND, pod(&spec)),
        ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]
    );
}

#[test]
fn of_a_pod_only_images_and_a_few_more_may_change() {
    let old = with_container(&json!({}));
    assert_eq!(
        change_problems(
            &KIND,
            old.clone(),
            with_container(&json!({"image": "nginx:2", "imagePullPolicy": "Always"}))
        ),
        Vec::<String>::new()
    );
    let problems = change_problems(&KIND, old.clone(), with_container(&json!({"command": ["sh"]})));
    assert_eq!(
        problems,
        ["spec: Forbidden: pod updates may not change fields other than \
          `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
          `spec.tolerations` (only additions to existing tolerations),\
          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
          negative)\n  spec.containers[0].command: null -> [\"sh\"]"]
    );
    let two = json!({"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]});
    assert_eq!(
        change_problems(&KIND, old, pod(&two)),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn a_deadline_may_only_come_nearer_and_tolerations_only_be_added() {
    let at = |seconds: i64| spec_with(&json!({"activeDeadlineSeconds": seconds}));
    assert_eq!(change_problems(&KIND, at(100), at(50)), Vec::<String>::new());
    assert_eq!(
        change_problems(&KIND, at(50), at(100)),
        ["spec.activeDeadlineSeconds: Invalid value: 100: must be less than or equal to previous \
          value"]
    );
    let tolerates =
        |key: &str| spec_with(&json!({"tolerations": [{"key": key, "operator": "Exists"}]}));
    assert_eq!(
        change_problems(&KIND, tolerates("a"), tolerates("b")),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its \
          tolerationSeconds"]
    );
    assert_eq!(change_problems(&KIND, spec_with(&json!({})), tolerates("b")), Vec::<String>::new());
}

#[test]
fn an_update_keeps_the_status_and_counts_generations() {
    let mut old = created(&KIND, with_container(&json!({})));
    old.set(&["status", "podIP"], "10.0.0.1");
    let same = updated(&KIND, &old, with_container(&json!({})));
    assert_eq!((same.str_at("/status/podIP"), same.generation()), ("10.0.0.1", 1));
    let changed = updated(&KIND, &old, with_container(&json!({"image": "other"})));
    assert_eq!((changed.str_at("/status/phase"), changed.generation()), ("Pending", 2));
}

#[test]
fn a_status_cannot_bring_the_ended_back() {
    let status = |state: Value| {
        object(json!({
            "spec": {"restartPolicy": "Never"},
            "status": {"containerStatuses": [{"name": "c", "state": state}]},
        }))
    };
    let ended = status(json!({"terminated": {"exitCode": 0}}));
    let running = status(json!({"running": {}}));
    assert_eq!(
        texts(&KIND.strategy.validate_status_update(&running, &ended)),
        [
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated \
          state"
        ]
    );
    assert!(KIND.strategy.validate_status_update(&ended, &running).is_empty());
}

#[test]
fn only_a_pod_that_runs_has_time_to_stop() {
    let grace = |node: &str, phase: &str, asked: Option<i64>| {
        let pod = object(json!({
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30},
            "status": {"phase": phase},
        }));
        KIND.strategy.deletion_grace_seconds(&pod, asked)
    };
    assert_eq!(grace("n", "Running", None), Some(30));
    assert_eq!(grace("n", "Running", Some(5)), Some(5));
    assert_eq!(grace("n", "Running", Some(0)), None);
    assert_eq!(grace("n", "Running", Some(-1)), Some(1));
    assert_eq!(grace("", "Pending", None), None);
    assert_eq!(grace("n", "Succeeded", None), None);
}

#[test]
fn fields_of_pods_can_be_selected() {
    let pod = object(json!({
        "spec": {"nodeName": "n", "hostNetwork": true},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
    }));
    for (path, expected) in [
        ("spec.nodeName", "n"),
        ("spec.hostNetwork", "true"),
        ("spec.schedulerName", ""),
        ("status.phase", "Running"),
        ("status.podIPs", "10.0.0.1"),
    ] {
        assert!(KIND.strategy.selectable().contains(&path));
        assert_eq!(KIND.strategy.field(&pod, path), expected, "{path}");
    }
}

fn shown(status: &Value, extra: &Value) -> String {
    let mut value = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:54:48Z"},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}, {"name": "j"}],
        },
        "status": status,
    });
    for (key, part) in extra.as_object().unwrap() {
        value[key].as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    line(&KIND, value, NOW)
}

#[test]
fn a_row_says_what_a_pod_is_at() {
    let none = json!({});
    let running = json!({"name": "c", "ready": true, "restartCount": 3, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}});
    let init = |state: Value| {
        json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": state}]})
    };
    let one = |state: Value| json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]});
    for (status, extra, expected) in [
        (
            json!({"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [running]}),
            &none,
            "web | 1/1 | Running | 3 (5m ago) | 5m12s | 10.0.0.1 | n | <none> | <none>",
        ),
        (
            json!({"phase": "Pending"}),
            &none,
            "web | 0/1 | Pending | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            init(json!({"running": {}})),
            &none,
            "web | 0/1 | Init:1/2 | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            init(json!({"terminated": {"exitCode": 3}})),
            &none,
            "web | 0/1 | Init:ExitCode:3 | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            init(json!({"waiting": {"reason": "ImagePullBackOff"}})),
            &none,
            "web | 0/1 | Init:ImagePullBackOff | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            one(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
            &none,
            "web | 0/1 | CrashLoopBackOff | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            one(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})),
            &none,
            "web | 0/1 | Completed | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            one(json!({"terminated": {"exitCode": 137, "signal": 9}})),
            &none,
            "web | 0/1 | Signal:9 | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            one(json!({"running": {}})),
            &json!({"metadata": {"deletionTimestamp": NOW}}),
            "web | 0/1 | Terminating | 0 | 5m12s | <none> | n | <none> | <none>",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "x/open", "status": "True"}]}),
            &json!({"spec": {"readinessGates": [{"conditionType": "x/open"}, {"conditionType": "x/y"}]}}),
            "web | 0/1 | Running | 0 | 5m12s | <none> | n | <none> | 1/2",
        ),
    ] {
        assert_eq!(shown(&status, extra), expected, "{status}");
    }
}

#[test]
fn a_typed_pod_keeps_its_meaning_through_defaulting() {
    use k8s_openapi::api::core::v1::Pod;
    let value = spec_with(&json!({
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}],
        "tolerations": [{"operator": "Exists"}],
        "hostNetwork": true,
    }));
    let typed: Pod = object(value).to_typed().unwrap();
    let mut through = Object::from_typed(&typed).unwrap();
    KIND.strategy.default(&mut through);
    let after: Pod = through.to_typed().unwrap();
    let (before, after) = (typed.spec.unwrap(), after.spec.unwrap());
    assert_eq!(before.tolerations, after.tolerations);
    assert_eq!(before.host_network, after.host_network);
    let limit = after.volumes.unwrap()[0].empty_dir.clone().unwrap().size_limit.unwrap();
    assert_eq!(limit.0, "1Gi");
}

/// What an update of the ephemeral containers makes of a pod, and what is wrong with it.
fn with_ephemeral(old: &Object, new: Value) -> (Object, Vec<String>) {
    let mut new = object(new);
    KIND.strategy.prepare_ephemeral_update(&mut new, old);
    let errors = texts(&KIND.strategy.validate_ephemeral_update(&new, old));
    (new, errors)
}

#[test]
fn ephemeral_containers_are_added_and_nothing_else_changes() {
    let old = created(&KIND, with_container(&json!({})));
    let debugger = json!({"name": "d", "image": "busybox:1", "targetContainerName": "c"});
    let mut new = spec_with(&json!({"ephemeralContainers": [debugger]}));
    new["spec"]["containers"][0]["image"] = json!("other");
    let (added, errors) = with_ephemeral(&old, new);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(added.str_at("/spec/ephemeralContainers/0/name"), "d");
    assert_eq!(added.str_at("/spec/containers/0/image"), "nginx");
    assert_eq!(added.generation(), 2);
    let (_, errors) = with_ephemeral(&added, spec_with(&json!({})));
    assert_eq!(
        errors,
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be \
          removed\n"]
    );
    let other = json!({"ephemeralContainers": [{"name": "d", "image": "other:1"}]});
    let (_, errors) = with_ephemeral(&added, spec_with(&other));
    assert!(errors[0].contains("\"d\" may not be changed\n"), "{errors:?}");
}

#[test]
fn rules_of_restarting_need_a_policy_and_exit_codes() {
    let errors =
        |more: Value| texts(&KIND.strategy.validate(&created(&KIND, with_container(&more))));
    let codes = json!({ "operator": "In", "values": [42] });
    let rule = json!({ "action": "Restart", "exitCodes": codes });
    assert!(errors(json!({ "restartPolicy": "Never", "restartPolicyRules": [rule] })).is_empty());
    assert_eq!(
        errors(json!({ "restartPolicyRules": [rule] })),
        [
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart \
          rules are used"
        ]
    );
    let none = json!({ "action": "Restart" });
    assert_eq!(
        errors(json!({ "restartPolicy": "Never", "restartPolicyRules": [none] })),
        ["spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified"]
    );
}
