use std::path::Path;

use serde_json::json;

use super::*;

fn node() -> NodeFacts {
    NodeFacts {
        ip: "192.0.2.1".parse().unwrap(),
        cgroup_root: "/".into(),
        memory_bytes: 1 << 30,
        cpu_milli: 2000,
        host_dns: files::parse_resolv_conf("nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"),
        cluster_dns: None,
    }
}

fn pod(spec: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1" },
        "spec": spec,
    }))
    .unwrap()
}

fn build(pod: &Pod) -> Result<ContainerSpec, SpecError> {
    container(&ContainerInput {
        target: None,
        pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        attempt: 3,
        image: "sha256:abc",
        references: &References::default(),
        pod_ips: &["10.0.0.5".parse().unwrap()],
        node: &node(),
        paths: &Paths::new(Path::new("/d")),
    })
}

#[test]
fn a_container_carries_words_labels_and_mounts() {
    let pod = pod(&json!({ "containers": [{
        "name": "c", "image": "i",
        "env": [{ "name": "A", "value": "1" }],
        "command": ["run", "$(A)"], "args": ["$(B)"],
    }] }));
    let spec = build(&pod).unwrap();
    assert_eq!(spec.command, ["run", "1"]);
    assert_eq!(spec.args, ["$(B)"]);
    assert_eq!(spec.log_path, Path::new("c/3.log"));
    assert_eq!(spec.labels[labels::POD_UID], "u1");
    assert_eq!(spec.labels[labels::CONTAINER_NAME], "c");
    assert_eq!(spec.annotations[annotations::RESTART_COUNT], "3");
    let paths: Vec<_> = spec.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
    assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
}

#[test]
fn a_containers_security_overrides_its_pods() {
    let pod = pod(&json!({
        "securityContext": { "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000 },
        "containers": [{ "name": "c", "securityContext": {
            "runAsUser": 5, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        } }],
    }));
    let security = build(&pod).unwrap().security;
    assert_eq!((security.run_as_user, security.run_as_group), (Some(5), Some(1000)));
    assert_eq!(security.supplemental_groups, [2000]);
    assert!(security.no_new_privileges && security.read_only_root && security.seccomp_default);
    assert_eq!(security.drop_capabilities, ["ALL"]);
}

#[test]
fn root_is_refused_to_a_container_that_must_not_be_root() {
    let pod = pod(&json!({ "containers": [{ "name": "c",
        "securityContext": { "runAsNonRoot": true, "runAsUser": 0 } }] }));
    assert!(matches!(build(&pod), Err(SpecError::Root)));
}

#[test]
fn a_sandbox_carries_ports_names_and_its_cgroup() {
    let pod = pod(&json!({
        "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 }] }],
        "dnsPolicy": "Default",
        "dnsConfig": { "nameservers": ["1.1.1.1"] },
    }));
    let sandbox = sandbox(&pod, &node(), &Paths::new(Path::new("/d")), 2);
    assert_eq!(sandbox.port_mappings.len(), 1);
    assert_eq!(sandbox.port_mappings[0].host_port, 8080);
    assert_eq!(sandbox.hostname, "web");
    assert_eq!(sandbox.cgroup_parent, "/kubepods/besteffort/podu1");
    assert_eq!(sandbox.dns.servers, ["9.9.9.9", "1.1.1.1"]);
    assert_eq!(sandbox.dns.searches, ["a", "b"]);
    assert_eq!(sandbox.log_directory, Path::new("/d/logs/shop_web_u1"));
}

#[test]
fn the_hosts_file_names_the_pod_and_its_aliases() {
    let pod = pod(&json!({
        "containers": [{ "name": "c" }],
        "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }],
    }));
    let text = files::hosts_text(&pod, &["10.0.0.5".parse().unwrap()]);
    assert!(text.contains("127.0.0.1\tlocalhost\n"));
    assert!(text.contains("10.0.0.5\tweb\n"));
    assert!(text.ends_with("1.2.3.4\ta\tb\n"));
}
