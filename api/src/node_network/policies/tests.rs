//! Tables of policies: who may talk to the pod `web` of namespace `shop`, and whom it may talk to.

use serde_json::{Value, json};

use super::*;

fn pod(namespace: &str, name: &str, ip: &str, more: &Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": name, "labels": { "app": name },
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [
            { "name": "http", "containerPort": 8000 + name.len() },
        ] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": ip }] },
    });
    for (part, fields) in more.as_object().unwrap() {
        pod[part].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods() -> Vec<Arc<Pod>> {
    vec![
        pod("shop", "web", "10.0.0.1", &json!({})),
        pod("shop", "db", "10.0.0.2", &json!({ "spec": { "nodeName": "n2" } })),
        pod("other", "db", "10.0.0.3", &json!({ "spec": { "nodeName": "n2" } })),
        pod("shop", "ended", "10.0.0.4", &json!({ "status": { "phase": "Succeeded" } })),
        pod("shop", "agent", "192.0.2.1", &json!({ "spec": { "hostNetwork": true } })),
    ]
}

/// What the policies, all in namespace `shop`, say of the pods of node `n1`.
fn policed(specs: &[Value]) -> Vec<Value> {
    let policies: Vec<Arc<NetworkPolicy>> = specs
        .iter()
        .map(|spec| {
            let policy = json!({ "metadata": { "namespace": "shop" }, "spec": spec });
            Arc::new(serde_json::from_value(policy).unwrap())
        })
        .collect();
    let namespaces: Vec<Arc<Namespace>> = ["shop", "other"]
        .iter()
        .map(|name| {
            let metadata = json!({ "name": name, "labels": { "team": name } });
            Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
        })
        .collect();
    let pods = pods();
    let snapshot = Snapshot::new(&pods, &namespaces, &policies);
    let mut nodes = snapshot.by_node();
    nodes.remove("n1").unwrap_or_default().iter().map(|policed| json!(policed)).collect()
}

fn ingress(rule: &Value) -> Value {
    json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule] })
}

fn egress(rule: &Value) -> Value {
    json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] })
}

fn one(ip: &str) -> Value {
    json!({ "cidr": ip })
}

#[test]
fn what_no_policy_selects_is_left_alone() {
    assert!(policed(&[]).is_empty());
    let other =
        json!({ "podSelector": { "matchLabels": { "app": "x" } }, "policyTypes": ["Ingress"] });
    assert!(policed(&[other]).is_empty());
}

#[test]
fn a_policy_without_rules_denies_its_directions_and_only_those() {
    let deny = |types: &[&str]| {
        let all = policed(&[json!({ "podSelector": {}, "policyTypes": types })]);
        assert_eq!(all.len(), 1, "only the running pod of this node that has its own address");
        (all[0].get("ingress").cloned(), all[0].get("egress").cloned())
    };
    assert_eq!(deny(&["Ingress"]), (Some(json!([])), None));
    assert_eq!(deny(&["Egress"]), (None, Some(json!([]))));
    assert_eq!(deny(&["Ingress", "Egress"]), (Some(json!([])), Some(json!([]))));
}

#[test]
fn peers_are_pods_of_the_same_namespace_of_others_or_blocks() {
    let db = json!({ "matchLabels": { "app": "db" } });
    let shop = json!({ "matchLabels": { "team": "shop" } });
    let not_shop = json!({ "matchExpressions": [
        { "key": "team", "operator": "NotIn", "values": ["shop"] },
    ] });
    let block = json!({ "cidr": "172.16.0.0/12", "except": ["172.17.0.0/16"] });
    for (peer, expected) in [
        (json!({ "podSelector": db }), vec![one("10.0.0.2")]),
        (json!({ "podSelector": {} }), vec![one("10.0.0.1"), one("10.0.0.2")]),
        (json!({ "namespaceSelector": not_shop }), vec![one("10.0.0.3")]),
        (
            json!({ "namespaceSelector": {}, "podSelector": db }),
            vec![one("10.0.0.2"), one("10.0.0.3")],
        ),
        (json!({ "namespaceSelector": shop, "podSelector": db }), vec![one("10.0.0.2")]),
        (json!({ "ipBlock": block }), vec![block.clone()]),
    ] {
        let said = policed(&[ingress(&json!({ "from": [peer] }))]);
        assert_eq!(said[0]["ingress"], json!([{ "peers": expected }]), "{peer}");
    }
}

#[test]
fn peers_that_nobody_is_let_nobody_through_and_no_peers_let_everybody() {
    let nobody = json!({ "from": [{ "podSelector": { "matchLabels": { "app": "none" } } }] });
    assert_eq!(policed(&[ingress(&nobody)])[0]["ingress"], json!([]));
    assert_eq!(policed(&[ingress(&json!({}))])[0]["ingress"], json!([{}]));
}

#[test]
fn policies_that_select_the_same_pod_add_up() {
    let first =
        ingress(&json!({ "from": [{ "podSelector": { "matchLabels": { "app": "db" } } }] }));
    let second = ingress(&json!({ "ports": [{ "protocol": "UDP", "port": 53 }] }));
    let said = policed(&[first, second, egress(&json!({}))]);
    assert_eq!(
        said[0]["ingress"],
        json!([
            { "ports": [{ "protocol": "UDP", "from": 53, "to": 53 }] },
            { "peers": [one("10.0.0.2")] },
        ])
    );
    assert_eq!(said[0]["egress"], json!([{}]));
}

#[test]
fn ports_are_numbers_ranges_names_or_whole_protocols() {
    for (port, expected) in [
        (json!({ "port": 80 }), json!([{ "protocol": "TCP", "from": 80, "to": 80 }])),
        (
            json!({ "port": 80, "endPort": 90, "protocol": "SCTP" }),
            json!([{ "protocol": "SCTP", "from": 80, "to": 90 }]),
        ),
        (json!({ "protocol": "UDP" }), json!([{ "protocol": "UDP", "from": 0, "to": 65535 }])),
        (json!({ "port": "http" }), json!([{ "protocol": "TCP", "from": 8003, "to": 8003 }])),
    ] {
        let said = policed(&[ingress(&json!({ "ports": [port] }))]);
        assert_eq!(said[0]["ingress"], json!([{ "ports": expected }]), "{port}");
    }
    for unknown in [json!({ "port": "none" }), json!({ "port": "http", "protocol": "UDP" })] {
        let said = policed(&[ingress(&json!({ "ports": [unknown] }))]);
        assert_eq!(said[0]["ingress"], json!([]), "{unknown}");
    }
}

#[test]
fn a_named_port_of_what_goes_out_is_each_peers_own() {
    let rule = json!({
        "to": [{ "podSelector": {} }, { "ipBlock": { "cidr": "192.0.2.0/24" } }],
        "ports": [{ "port": "http" }, { "port": 53, "protocol": "UDP" }],
    });
    let port =
        |protocol: &str, port: u16| json!([{ "protocol": protocol, "from": port, "to": port }]);
    let said = policed(&[egress(&rule)]);
    assert_eq!(
        said[0]["egress"],
        json!([
            { "peers": [one("10.0.0.1")], "ports": port("TCP", 8003) },
            {
                "peers": [one("10.0.0.1"), one("10.0.0.2"), one("192.0.2.0/24")],
                "ports": port("UDP", 53),
            },
            { "peers": [one("10.0.0.2")], "ports": port("TCP", 8002) },
        ])
    );
}
