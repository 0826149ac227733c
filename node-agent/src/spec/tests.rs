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
    build_of(pod, &Image { id: "sha256:abc".into(), ..Image::default() })
}

fn build_of(pod: &Pod, image: &Image) -> Result<ContainerSpec, SpecError> {
    container(&ContainerInput {
        target: None,
        pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        attempt: 3,
        image,
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
    let of = |user: serde_json::Value| {
        pod(&json!({ "containers": [{ "name": "c",
            "securityContext": { "runAsNonRoot": true, "runAsUser": user } }] }))
    };
    let image = |uid: Option<i64>, user: &str| Image { uid, user: user.into(), ..Image::default() };
    let refused = |pod: &Pod, image: &Image| build_of(pod, image).err().map(|e| e.to_string());
    let silent = of(json!(null));
    for (pod, image, why) in [
        (&of(json!(0)), image(Some(5), ""), Some("container's runAsUser breaks non-root policy")),
        (&of(json!(5)), image(Some(0), ""), None),
        (&silent, image(Some(5), ""), None),
        (
            &silent,
            image(Some(0), ""),
            Some("container has runAsNonRoot and image will run as root"),
        ),
        (&silent, image(None, ""), Some("container has runAsNonRoot and image will run as root")),
        (&silent, image(None, "www"), Some("image has non-numeric user (www), cannot verify")),
    ] {
        let said = refused(pod, &image);
        let is_right = match why {
            Some(why) => said.as_deref().is_some_and(|said| said.contains(why)),
            None => said.is_none(),
        };
        assert!(is_right, "{said:?}");
    }
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
    let text = files::hosts_text(&pod, &["10.0.0.5".parse().unwrap()], None);
    assert_eq!(
        text,
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         10.0.0.5\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    );
}

#[test]
fn a_pod_below_a_subdomain_has_a_full_name_and_bears_it_where_it_asks_to() {
    let mut node = node();
    let address = "10.96.0.10".parse().unwrap();
    node.cluster_dns = Some(ClusterDns { address, domain: "cluster.local".into() });
    let of = |more: serde_json::Value| {
        let mut spec = json!({ "containers": [{ "name": "c" }], "subdomain": "sub" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod(&spec)
    };
    let name = |pod: &Pod| sandbox(pod, &node, &Paths::new(Path::new("/d")), 0).hostname;
    let plain = of(json!({ "hostname": "h1" }));
    assert_eq!(name(&plain), "h1");
    let domain = host_domain(&plain, &node);
    let hosts = files::hosts_text(&plain, &["10.0.0.5".parse().unwrap()], domain.as_deref());
    assert!(hosts.ends_with("10.0.0.5\th1.sub.shop.svc.cluster.local\th1\n"), "{hosts}");
    let full = of(json!({ "hostname": "h1", "setHostnameAsFQDN": true }));
    assert_eq!(name(&full), "h1.sub.shop.svc.cluster.local");
    let named = of(json!({ "hostnameOverride": "x.example", "setHostnameAsFQDN": true }));
    assert_eq!(name(&named), "x.example");
    let long = of(json!({ "hostname": "h".repeat(60), "setHostnameAsFQDN": true }));
    assert!(check_name(&long, &node).unwrap_err().contains("too long"));
    assert_eq!(check_name(&full, &node), Ok(()));
}
