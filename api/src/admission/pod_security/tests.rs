use serde_json::json;

use super::policy::Version;
use super::*;

fn pod(spec: Value) -> Object {
    Object::new(json!({"metadata": {"name": "p"}, "spec": spec})).expect("an object")
}

fn said(level: Level, version: Version, spec: Value) -> String {
    in_full(&violations(&Limit { level, version }, &Pod::of_object(&pod(spec))))
}

#[test]
fn a_pod_that_says_nothing_is_no_restricted_pod() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(said(Level::Baseline, Version::Latest, spec.clone()), "");
    assert_eq!(
        said(Level::Restricted, Version::Latest, spec.clone()),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \
         \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod \
         or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    let old = said(Level::Restricted, Version::Of(7), spec);
    assert!(old.starts_with("runAsNonRoot"), "the rest came later: {old}");
}

#[test]
fn a_careful_pod_violates_nothing() {
    let context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    });
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": context}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "t", "projected": {}}],
    });
    assert_eq!(said(Level::Restricted, Version::Latest, spec), "");
}

#[test]
fn each_way_to_the_node_is_named() {
    let containers = |container: Value| json!({"containers": [container]});
    let context = |context: Value| containers(json!({"name": "a", "securityContext": context}));
    for (spec, expected) in [
        (
            json!({"hostNetwork": true, "hostIPC": true, "containers": []}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            containers(json!({"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]})),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            containers(json!({"name": "a", "livenessProbe": {"httpGet": {"host": "1.2.3.4"}}})),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"1.2.3.4\")",
        ),
        (
            context(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            context(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            context(json!({"seLinuxOptions": {"type": "x", "user": "u"}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \
             \"x\"; user may not be set)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \
             \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.x"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            "forbidden sysctls (kernel.x)",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set \
             securityContext.appArmorProfile.type to \"Unconfined\")",
        ),
    ] {
        assert_eq!(said(Level::Baseline, Version::Latest, spec), expected);
    }
}

#[test]
fn a_check_of_restricted_stands_for_its_weaker_sister() {
    let spec = json!({
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}}],
        "containers": [],
    });
    assert_eq!(
        said(Level::Restricted, Version::Latest, spec),
        "restricted volume types (volumes \"v\", \"n\" use restricted volume types \"hostPath\", \
         \"nfs\")"
    );
}

#[test]
fn labels_that_mean_nothing_are_refused_and_forbid_everything() {
    let namespace = |labels: Value| {
        Object::new(json!({"metadata": {"name": "n", "labels": labels}})).expect("an object")
    };
    let (policy, errors) = Policy::of(&namespace(json!({
        "pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/warn": "baseline",
        "pod-security.kubernetes.io/warn-version": "v1.20",
        "pod-security.kubernetes.io/audit-version": "1.20",
    })));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be \
             one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.20\": must \
             be \"latest\" or \"v1.x\"",
        ]
    );
    assert_eq!(policy.enforce.to_string(), "restricted:latest");
    assert_eq!(policy.warn.to_string(), "baseline:v1.20");
}
