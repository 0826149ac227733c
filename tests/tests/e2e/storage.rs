//! A claim just works: its folder is made where its first pod goes, outlives that pod, and goes with
//! the claim.

use std::fs;
use std::path::{Path, PathBuf};

use kontiki_tests::wait;
use serde_json::{Value, json};

use super::node::{Node, WITHIN, shell};

fn using(script: &str, more: &Value) -> Value {
    let mut mounted = json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let fields = mounted.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let mut spec = shell(script, &mounted);
    spec["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    spec
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn a_claim_just_works_and_what_it_holds_outlives_its_pods() {
    let Some(node) = Node::start() else { return };
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    node.kubectl.apply(&claim.to_string()).expect("the claim must be taken");
    let user = json!({ "securityContext": { "runAsUser": 1000 } });
    node.create("writer", &using("echo kept > /data/file", &user));
    assert_eq!(node.ended("writer")["exitCode"], 0, "any user may write");
    node.create("reader", &using("test \"$(cat /data/file)\" = kept", &json!({})));
    assert_eq!(node.ended("reader")["exitCode"], 0, "another pod finds it");
    let listed = node.kubectl.ok(&["get", "pvc", "data"]);
    assert!(listed.contains("Bound") && listed.contains("local-path"), "{listed}");

    let root = node.data_dir().join("local-volumes");
    assert_eq!(folders(&root).len(), 1);
    node.kubectl.ok(&["delete", "pvc", "data", "--wait=false"]);
    assert!(node.kubectl.ok(&["get", "pvc", "data"]).contains("Terminating"), "pods use it");
    node.kubectl.ok(&["delete", "pod", "writer", "reader", "--timeout=60s"]);
    wait::until("the folder to go with the claim", WITHIN, || {
        let left = folders(&root);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let volumes = node.kubectl.ok(&["get", "pv", "-o", "name"]);
    assert!(volumes.is_empty(), "{volumes}");
}

#[test]
fn pods_bear_their_names_and_are_refused_what_the_kubelet_refuses() {
    let Some(node) = Node::start() else { return };
    let names = "hostname > /dev/termination-log; cat /etc/hosts >> /dev/termination-log";
    let mut spec = shell(names, &json!({}));
    spec["hostname"] = json!("h1");
    spec["subdomain"] = json!("sub");
    spec["setHostnameAsFQDN"] = json!(true);
    spec["hostAliases"] = json!([{ "ip": "192.0.2.9", "hostnames": ["far", "away"] }]);
    node.create("named", &spec);
    let root = shell("true", &json!({ "securityContext": { "runAsNonRoot": true } }));
    node.create("root", &root);
    let mut unsafe_sysctl = shell("true", &json!({}));
    unsafe_sysctl["securityContext"] =
        json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "10000" }] });
    node.create("sysctl", &unsafe_sysctl);

    let message = node.ended("named")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("h1.sub.default.svc.cluster.local\n"), "{message}");
    assert!(message.contains("# Kubernetes-managed hosts file.\n"), "{message}");
    assert!(message.contains("\th1.sub.default.svc.cluster.local\th1\n"), "{message}");
    assert!(message.ends_with("HostAliases.\n192.0.2.9\tfar\taway\n"), "{message}");
    node.waiting("root", "CreateContainerConfigError");
    wait::until("the pod to be refused", WITHIN, || {
        let pod = node.kubectl.attempt(&["get", "pod", "sysctl"])?;
        if pod.contains("SysctlForbidden") { Ok(()) } else { Err(pod) }
    });
}
