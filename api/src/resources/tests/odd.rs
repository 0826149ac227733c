//! Objects in which something is of another type than it should be. Decoding refuses them before a
//! strategy sees them; a strategy must all the same not fall over, for controllers in this process
//! bring objects of their own.

use super::*;

/// An object that has something of everything that the rules look at.
fn full() -> Value {
    let pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{
                "name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}],
                "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}}],
                "envFrom": [{"secretRef": {"name": "s"}}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "securityContext": {"capabilities": {"add": ["X"]}, "seccompProfile": {"type": "Localhost"}},
            }],
            "initContainers": [{"name": "d", "image": "i"}],
            "volumes": [
                {"name": "v", "projected": {"sources": [{"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}]}},
                {"name": "w", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}}},
            ],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "labelSelector": {}}]}},
            "tolerations": [{"operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1}],
            "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a"]}],
            "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "o"}]},
            "nodeSelector": {"a": "b"}, "hostNetwork": true,
        },
    });
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "template": pod, "jobTemplate": {"spec": {"template": pod}}, "strategy": {"rollingUpdate": {"maxSurge": 1}},
        "updateStrategy": {"rollingUpdate": {"maxSurge": 1}},
        "ports": [{"port": 80, "nodePort": 30000}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
        "rules": [{"host": "a", "http": {"paths": [{"path": "/", "backend": {"service": {"name": "a", "port": {"number": 1}}}}]}}],
        "limits": [{"type": "Container", "max": {"cpu": "1"}}], "hard": {"cpu": "1"}, "drivers": [{"name": "a"}],
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Value"}}}],
        "behavior": {"scaleUp": {"policies": []}}, "volumeClaimTemplates": [{"spec": {}}],
        "ingress": [{"from": [{"ipBlock": {"cidr": "1.0.0.0/8"}}], "ports": [{"port": 1}]}],
        "finalizers": ["kubernetes"], "taints": [{"key": "a", "effect": "NoSchedule"}], "podCIDR": "10.0.0.0/24",
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "scaleTargetRef": {"name": "a"},
    });
    let own = pod["spec"].as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(own);
    json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b"}, "annotations": {"a": "b"}},
        "spec": spec, "template": pod, "data": {"a": "YQ=="}, "stringData": {"b": "c"}, "type": "kubernetes.io/tls",
        "status": {
            "phase": "Running", "capacity": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}], "podIPs": [{"ip": "1.1.1.1"}],
            "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}}],
            "initContainerStatuses": [{"name": "d", "state": {"waiting": {"reason": "x"}}}],
            "loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]},
        },
        "subsets": [{"addresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 1}]}],
        "endpoints": [{"addresses": ["1.1.1.1"]}], "addressType": "IPv4", "ports": [{"port": 1}],
        "involvedObject": {"kind": "Pod"}, "source": {"component": "c"}, "rules": [{"verbs": ["get"]}],
        "roleRef": {"kind": "Role"}, "subjects": [{"kind": "User", "name": "u"}], "overhead": {"podFixed": {"cpu": "1"}},
    })
}

/// The pointers of everything in a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut add = |key: &str, value: &Value| {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(value, &pointer, found);
        found.push(pointer);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| add(key, value)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| add(&n.to_string(), value));
        }
        _ => {}
    }
}

/// Each kind is tried with one place out of so many.
const STRIDE: usize = 8;

fn walk(kind: &Kind, sample: &Value, value: Value) {
    let strategy = kind.strategy;
    let mut new = object(value);
    let old = object(sample.clone());
    strategy.default(&mut new);
    let mut update = new.clone();
    strategy.prepare_for_create(&crate::resources::testing::context(), &mut new);
    strategy.prepare_for_update(&crate::resources::testing::context(), &mut update, &old);
    strategy.validate(&new);
    strategy.validate_update(&update, &old);
    strategy.validate_update(&old, &update);
    strategy.validate_status_update(&update, &old);
    strategy.row(&update, NOW.parse().unwrap());
    strategy.deletion_grace_seconds(&update, None);
    strategy.selectable().iter().for_each(|path| drop(strategy.field(&update, path)));
}

#[test]
fn no_kind_falls_over_a_value_of_the_wrong_type() {
    let mut places = Vec::new();
    pointers(&full(), "", &mut places);
    assert!(places.len() > 200, "the sample must be rich: {}", places.len());
    let odd = [json!(null), json!(""), json!(-1), json!([]), json!({}), json!(["x"]), json!(true)];
    // The whole product takes minutes: each kind takes its own share of it.
    let sample = full();
    for (turn, kind) in KINDS.iter().enumerate() {
        walk(kind, &sample, sample.clone());
        for (index, place) in places.iter().enumerate().skip(turn % STRIDE).step_by(STRIDE) {
            let mut object = sample.clone();
            *object.pointer_mut(place).unwrap() = odd[(index / STRIDE + turn) % odd.len()].clone();
            walk(kind, &sample, object);
        }
    }
}
