use serde_json::json;

use super::*;

#[test]
fn a_name_that_must_be_known_is_an_error_where_it_is_not() {
    let value = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let values = BTreeMap::from([value("A", "1"), value("EMPTY", "")]);
    assert_eq!(expand_strictly("$(A)/$$(B)", &values).as_deref(), Ok("1/$(B)"));
    assert_eq!(expand_strictly("$(A)/$(B)", &values), Err("missing value for B".to_owned()));
    assert_eq!(expand_strictly("$(EMPTY)", &values), Err("missing value for EMPTY".to_owned()));
    assert_eq!(expand("<$(EMPTY)>", &values), "<>");
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1", "labels": { "app": "web" } },
        "spec": {
            "nodeName": "n1",
            "containers": [{
                "name": "c",
                "resources": { "limits": { "memory": "64Mi" }, "requests": { "cpu": "250m" } },
                "envFrom": [{ "prefix": "CM_", "configMapRef": { "name": "settings" } }],
                "env": [
                    { "name": "A", "value": "1" },
                    { "name": "B", "value": "$(A)-$(NONE)-$$(A)" },
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "APP", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                    { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
                    { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                    { "name": "PW", "valueFrom": { "secretKeyRef": { "name": "login", "key": "pw" } } },
                    { "name": "MAYBE", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "k", "optional": true } } }
                ]
            }]
        }
    }))
    .unwrap()
}

fn references() -> References {
    let settings: ConfigMap =
        serde_json::from_value(json!({ "data": { "color": "red" } })).unwrap();
    let login: Secret = serde_json::from_value(json!({ "data": { "pw": "c2VjcmV0" } })).unwrap();
    References {
        volumes: BTreeMap::new(),
        config_maps: BTreeMap::from([("settings".into(), Some(settings)), ("no".into(), None)]),
        secrets: BTreeMap::from([("login".into(), Some(login))]),
        services: vec![("A".into(), "of a Service".into()), ("SHOP_PORT".into(), "80".into())],
    }
}

fn facts() -> Facts {
    Facts {
        host_ip: "192.0.2.1".into(),
        pod_ips: vec!["10.0.0.5".into()],
        cpu_milli: 2000,
        memory_bytes: 1 << 30,
    }
}

#[test]
fn every_source_of_a_value_is_read() {
    let pod = pod();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let env = environment(&pod, container, &references(), &facts()).unwrap();
    let env: BTreeMap<_, _> = env.into_iter().collect();
    let want = [
        ("SHOP_PORT", "80"),
        ("CM_color", "red"),
        ("A", "1"),
        ("B", "1-$(NONE)-$(A)"),
        ("NAME", "web"),
        ("APP", "web"),
        ("IP", "10.0.0.5"),
        ("MEM", "64"),
        ("CPUS", "2"),
        ("PW", "secret"),
    ];
    for (name, value) in want {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!env.contains_key("MAYBE"));
}

#[test]
fn what_is_missing_is_named() {
    let pod = pod();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let mut references = references();
    references.secrets.insert("login".into(), Some(Secret::default()));
    let error = environment(&pod, container, &references, &facts()).unwrap_err();
    assert_eq!(error.to_string(), "couldn't find key pw in Secret shop/login");
    references.secrets.insert("login".into(), None);
    let error = environment(&pod, container, &references, &facts()).unwrap_err();
    assert_eq!(error.to_string(), "secret \"login\" not found");
}

#[test]
fn words_expand_as_kubernetes_documents() {
    let values = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
    let cases = [
        ("$(A)", "x"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$x"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("a$", "a$"),
        ("", ""),
        ("$(A)$(A)", "xx"),
    ];
    for (text, want) in cases {
        assert_eq!(expand(text, &values), want, "{text}");
    }
}
