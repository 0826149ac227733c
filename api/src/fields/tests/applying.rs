//! Server-side apply, case by case.

use super::*;

#[test]
fn who_applies_owns_what_it_sends_and_nothing_else() {
    let object = created(
        "a",
        json!({
            "metadata": { "labels": { "app": "web" }, "finalizers": ["x/y"] },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "web" } },
                "template": { "spec": { "containers": [
                    { "name": "c", "image": "i", "ports": [{ "containerPort": 80 }],
                      "args": ["x"], "env": [], "securityContext": {} },
                ] } },
            },
            "status": { "replicas": 2 },
        }),
    );
    let container = r#".spec.template.spec.containers[name="c"]"#;
    let port = r#"ports[containerPort=80,protocol="TCP"]"#;
    assert_eq!(
        owners(&object),
        json!({ "a Apply": [
            ".metadata.finalizers[=\"x/y\"]",
            ".metadata.labels.app",
            ".spec.replicas",
            ".spec.selector",
            container,
            format!("{container}.args"),
            format!("{container}.image"),
            format!("{container}.name"),
            format!("{container}.securityContext"),
            format!("{container}.{port}"),
            format!("{container}.{port}.containerPort"),
        ] }),
    );
    let entry = &object.value()["metadata"]["managedFields"][0];
    assert_eq!(entry["time"], "2023-11-14T22:13:20Z");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert_eq!(entry.get("subresource"), None);
}

#[test]
fn the_same_again_changes_nothing_not_even_the_time() {
    let content = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "replicas": 1 } });
    let object = created("a", content.clone());
    assert_eq!(applied(&object, "a", content).unwrap(), object);
}

#[test]
fn a_field_of_another_manager_is_a_conflict_that_names_both() {
    let object = created("a", json!({ "spec": { "replicas": 1 } }));
    let refused = applied(&object, "b", json!({ "spec": { "replicas": 2 } })).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#
    );
    let status = crate::status::Status::from(refused);
    let value = status.to_value();
    assert_eq!((status.code(), &value["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        value["details"],
        json!({ "causes": [{
            "reason": "FieldManagerConflict",
            "message": r#"conflict with "a""#,
            "field": ".spec.replicas",
        }] })
    );
    let updated = updated(&object, "kubectl-edit", json!({ "spec": { "minReadySeconds": 3 } }));
    let both = json!({ "spec": { "replicas": 2, "minReadySeconds": 4 } });
    assert_eq!(
        applied(&updated, "b", both.clone()).unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.replicas\nconflicts with \
         \"kubectl-edit\" using apps/v1:\n- .spec.minReadySeconds"
    );
    let config = deployment(both);
    let forced = apply(place(), &updated, &config, &writer("b", 60), Conflicts::Force).unwrap();
    assert_eq!(
        owners(&forced),
        json!({ "b Apply": [".spec.minReadySeconds", ".spec.replicas"] }),
        "who loses all is forgotten"
    );
}

#[test]
fn the_same_value_is_shared() {
    let content = json!({ "spec": { "replicas": 1 } });
    let object = created("a", content.clone());
    let shared = applied(&object, "b", content).unwrap();
    let paths = json!([".spec.replicas"]);
    assert_eq!(owners(&shared), json!({ "a Apply": paths, "b Apply": paths }));
    // One gives it up: the other keeps it there.
    let left = applied(&shared, "a", json!({})).unwrap();
    assert_eq!(left.at("/spec/replicas"), Some(&json!(1)));
    assert_eq!(owners(&left), json!({ "b Apply": paths }));
    // The last gives it up: it goes, and the struct that held it.
    let gone = applied(&left, "b", json!({})).unwrap();
    assert_eq!(gone.at("/spec"), None);
}

#[test]
fn what_is_applied_no_more_is_removed_and_what_others_put_beside_it_stays() {
    let object = created(
        "a",
        containers(json!([{ "name": "c", "image": "i" }, { "name": "d", "image": "i" }])),
    );
    let other = containers(json!([{ "name": "d", "workingDir": "/" }]));
    let object = applied(&object, "b", other).unwrap();
    let object = applied(&object, "a", containers(json!([{ "name": "e", "image": "i" }]))).unwrap();
    assert_eq!(
        object.at("/spec/template/spec/containers").unwrap(),
        &json!([{ "name": "d", "workingDir": "/" }, { "name": "e", "image": "i" }])
    );
}

#[test]
fn an_element_goes_with_its_owner_and_with_what_updates_set_within() {
    let object = created("a", containers(json!([{ "name": "c", "image": "i" }])));
    let mut list = object.at("/spec/template/spec/containers").unwrap().clone();
    list[0]["args"] = json!(["x"]);
    let object = updated(&object, "e", containers(list));
    let object = applied(&object, "a", json!({})).unwrap();
    assert_eq!(object.at("/spec"), None, "a field within does not keep its element");
}

#[test]
fn atomic_lists_and_structs_are_owned_whole() {
    let content = json!({ "spec": { "selector": { "matchLabels": { "a": "b" } } } });
    let object = created("a", content);
    let other = json!({ "spec": { "selector": { "matchLabels": { "c": "d" } } } });
    let refused = applied(&object, "b", other.clone()).unwrap_err().to_string();
    assert!(refused.ends_with(r#"conflict with "a": .spec.selector"#), "{refused}");
    let object = applied(&object, "a", other).unwrap();
    assert_eq!(object.at("/spec/selector/matchLabels").unwrap(), &json!({ "c": "d" }));
}

#[test]
fn elements_of_a_set_are_owned_one_by_one() {
    let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } });
    let object = created("a", finalizers(json!(["x/1", "x/2"])));
    let object = applied(&object, "b", finalizers(json!(["x/2", "x/3"]))).unwrap();
    assert_eq!(object.finalizers(), ["x/1", "x/2", "x/3"]);
    let object = applied(&object, "a", finalizers(json!([]))).unwrap();
    assert_eq!(object.finalizers(), ["x/2", "x/3"]);
}

#[test]
fn applied_elements_keep_their_order_and_others_their_place() {
    let named = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        containers(list.into())
    };
    let order = |object: &Object| -> Vec<String> {
        let list = object.at("/spec/template/spec/containers").and_then(Value::as_array).unwrap();
        list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let object = created("a", named(&["1", "2", "3"]));
    let object = applied(&object, "b", named(&["x", "3", "y", "1"])).unwrap();
    assert_eq!(order(&object), ["2", "x", "3", "y", "1"]);
    let object = applied(&object, "a", named(&["3", "1", "4"])).unwrap();
    assert_eq!(order(&object), ["x", "3", "y", "1", "4"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_without_the_server() {
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let content = json!({ "spec": { "replicas": 1, "minReadySeconds": 2 } });
    let last = deployment(content.clone()).value().to_string();
    let mut live = deployment(content);
    live.set(&["metadata", "annotations", annotation], last);
    let nothing = Object::empty("apps/v1", "Deployment");
    update(place(), &nothing, &mut live, &writer("kubectl-client-side-apply", 0));
    let change = json!({ "spec": { "replicas": 3, "minReadySeconds": 2 } });
    assert!(applied(&live, "helm", change.clone()).is_err(), "only kubectl takes over");
    let taken = applied(&live, "kubectl", change.clone()).unwrap();
    assert_eq!(taken.at("/spec/replicas"), Some(&json!(3)));
    let last: Value = serde_json::from_str(taken.annotation(annotation).unwrap()).unwrap();
    assert_eq!(last["spec"]["replicas"], 3, "the annotation goes along");
    // What was changed since by somebody else is in conflict still.
    let scaled = updated(&live, "kubectl-scale", json!({ "spec": { "replicas": 7 } }));
    let refused = applied(&scaled, "kubectl", change).unwrap_err().to_string();
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn a_part_is_applied_apart() {
    let object = created("a", json!({ "spec": { "replicas": 1 } }));
    let status = Writer { subresource: "status", reset: Reset::AllButStatus, ..writer("a", 60) };
    let config = deployment(json!({ "spec": { "replicas": 5 }, "status": { "replicas": 1 } }));
    let object = apply(place(), &object, &config, &status, Conflicts::Refuse).unwrap();
    let entries = object.value()["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({ "f:status": { "f:replicas": {} } }));
}

#[test]
fn what_is_not_of_its_type_is_refused_with_its_path() {
    let spec = |spec: Value| json!({ "spec": spec });
    let text = "&value.valueUnstructured{Value:";
    let table = [
        (spec(json!({ "foo": 1 })), ".spec.foo: field not declared in schema".to_owned()),
        (
            spec(json!({ "replicas": "two" })),
            ".spec.replicas: expected numeric (int or float), got string".to_owned(),
        ),
        (
            json!({ "metadata": { "labels": { "a": 1 } } }),
            format!(".metadata.labels.a: expected string, got {text}1}}"),
        ),
        (spec(json!([])), format!(".spec: expected map, got {text}[]}}")),
        (
            containers(json!([{ "name": "c", "env": [{ "name": "A" }, { "name": "A" }] }])),
            ".spec.template.spec.containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]"
                .to_owned(),
        ),
        (
            containers(json!([{ "name": "c", "imagePullPolicy": true, "tty": 1 }])),
            format!(
                "errors:\n  .spec.template.spec.containers[name=\"c\"].imagePullPolicy: expected \
                 string, got {text}true}}\n  .spec.template.spec.containers[name=\"c\"].tty: \
                 expected boolean, got {text}1}}"
            ),
        ),
    ];
    let prefix = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): ";
    for (content, expected) in table {
        let refused = check(&deployment(content), place(), "apps/v1").unwrap_err();
        assert_eq!(refused.to_string(), format!("{prefix}{expected}"));
    }
    let nameless = deployment(containers(json!([{ "image": "i" }])));
    let refused = check(&nameless, place(), "apps/v1").unwrap_err().to_string();
    assert!(refused.contains("omits all key fields [\"name\"]"), "{refused}");
    let managed = deployment(json!({ "metadata": { "managedFields": [] } }));
    let refused = check(&managed, place(), "apps/v1").unwrap_err();
    assert_eq!(refused, ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    assert_eq!(
        check(&deployment(json!({})), place(), "apps/v2").unwrap_err().to_string(),
        "Incorrect version specified in apply patch. Specified patch version: apps/v1, expected: \
         apps/v2"
    );
}
