use serde_json::{Value, json};

use crate::object::Object;
use crate::resources::pod::KIND;
use crate::status::FieldError;

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({ "cpu": cpu, "memory": memory })
}

/// A burstable pod that runs, with a sidecar and an init container.
fn running() -> Object {
    let resources = json!({ "requests": amounts("100m", "64Mi"), "limits": amounts("1", "1Gi") });
    let container = |name: &str| json!({ "name": name, "image": "i:1", "resources": resources });
    let mut sidecar = container("side");
    sidecar["restartPolicy"] = json!("Always");
    let mut object = Object::new(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "p", "namespace": "default", "generation": 1, "labels": { "a": "b" } },
        "spec": {
            "initContainers": [container("init"), sidecar],
            "containers": [container("c")],
        },
    }))
    .unwrap();
    KIND.strategy.default(&mut object);
    object.set(
        &["status"],
        json!({
            "qosClass": "Burstable",
            "containerStatuses": [{ "name": "c", "state": { "running": {} }, "resources": {} }],
        }),
    );
    object
}

/// What comes of a pod when `path` of it is set, and what is wrong with it.
fn resized(old: &Object, path: &str, value: Value) -> (Object, Vec<String>) {
    let mut new = old.clone();
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = new.value_mut().pointer_mut(parent).unwrap();
    match value {
        Value::Null => drop(parent.as_object_mut().unwrap().remove(field)),
        value => parent[field] = value,
    }
    KIND.strategy.prepare_resize_update(&mut new, old);
    let errors = KIND.strategy.validate_resize_update(&new, old);
    (new, errors.iter().map(FieldError::to_string).collect())
}

const REQUESTS: &str = "/spec/containers/0/resources/requests";

#[test]
fn a_resize_changes_amounts_and_counts_the_generation_up() {
    let old = running();
    let (new, errors) = resized(&old, REQUESTS, amounts("200m", "128Mi"));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(new.str_at("/spec/containers/0/resources/requests/cpu"), "200m");
    assert_eq!(new.generation(), 2);
    let path = "/spec/initContainers/1/resources/requests";
    let (_, errors) = resized(&old, path, amounts("200m", "64Mi"));
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn whatever_is_not_a_resource_stays_as_it_was() {
    let old = running();
    for path in ["/spec/containers/0/image", "/metadata/labels/a", "/status/phase"] {
        let (new, errors) = resized(&old, path, json!("other"));
        assert_eq!((new, errors), (old.clone(), Vec::new()), "{path}");
    }
}

#[test]
fn a_resize_may_not_do_more_than_resize() {
    let old = running();
    let forbidden = |why: &str| format!("spec: Forbidden: {why}");
    let only = || forbidden("only cpu and memory resources are mutable");
    let limits = json!({ "cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi" });
    let cases = [
        ("/spec/containers/0/resources/limits", limits, only()),
        (
            "/spec/containers/0/resizePolicy",
            json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]),
            only(),
        ),
        (
            "/spec/initContainers/0/resources/requests",
            amounts("200m", "64Mi"),
            forbidden("resources for non-sidecar init containers are immutable"),
        ),
        (
            REQUESTS,
            json!({ "cpu": "100m" }),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
                .to_owned(),
        ),
        (
            "/spec/containers/0/resources/limits",
            Value::Null,
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"
                .to_owned(),
        ),
        (
            "/spec/containers/0/name",
            json!("d"),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on \
             resize"
                .to_owned(),
        ),
        (
            "/spec/initContainers",
            json!([]),
            "spec.initContainers: Forbidden: initContainers may not be added or removed on resize"
                .to_owned(),
        ),
    ];
    for (path, value, expected) in cases {
        let (_, errors) = resized(&old, path, value);
        assert_eq!(errors, [expected], "{path}");
    }
}

#[test]
fn a_resize_does_not_change_how_well_a_pod_is_treated() {
    let mut old = running();
    for list in ["containers", "initContainers"] {
        let list = old.value_mut()["spec"][list].as_array_mut().unwrap();
        for container in list {
            container["resources"]["requests"] = amounts("1", "1Gi");
        }
    }
    old.set(&["status", "qosClass"], "Guaranteed");
    let (_, errors) = resized(&old, REQUESTS, amounts("500m", "1Gi"));
    assert_eq!(
        errors,
        ["spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of \
          resizing"]
    );
}

#[test]
fn pods_that_cannot_be_resized_say_so() {
    let mut old = running();
    old.value_mut()["status"]["containerStatuses"][0].as_object_mut().unwrap().remove("resources");
    let (_, errors) = resized(&old, REQUESTS, amounts("200m", "64Mi"));
    assert_eq!(errors, ["spec: Forbidden: Pod running on node without support for resize"]);
    let mut old = running();
    old.set(&["metadata", "annotations", "kubernetes.io/config.mirror"], "x");
    let (_, errors) = resized(&old, REQUESTS, amounts("200m", "64Mi"));
    assert!(errors[0].ends_with("Forbidden: static pods cannot be resized"), "{errors:?}");
}
