//! Sending a pod to a node.

use serde_json::{Value, json};

use super::KIND;
use crate::object::Object;
use crate::resources::check;
use crate::status::{FieldError, Status};

/// What is wrong with a binding.
pub fn validate(binding: &Object) -> Vec<FieldError> {
    check(binding, |errors, root| {
        let target = root.at("target");
        let (kind, name) = (target.at("kind"), target.at("name"));
        errors.optional_one_of(&kind, &["Node", "<empty>"]);
        if name.str().is_empty() {
            errors.required(&name, "");
        }
    })
}

/// Puts a pod on the node that a binding names; refuses where it has one, or where it may not go yet.
/// `now` is when it was scheduled.
pub fn apply(pod: &mut Object, binding: &Object, now: &str) -> Result<(), Status> {
    let errors = validate(binding);
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", binding.name(), &errors));
    }
    let conflict = |why: String| Err(Status::conflict(KIND.group, "pods/binding", pod.name(), why));
    let wanted = binding.str_at("/metadata/uid");
    if !wanted.is_empty() && wanted != pod.uid() {
        return conflict(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {}",
            pod.uid()
        ));
    }
    let name = pod.name();
    if pod.is_terminating() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod.str_at("/spec/nodeName");
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    let gates = pod.at("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set(&["spec", "nodeName"], binding.str_at("/target/name"));
    for (key, value) in binding.annotations() {
        pod.set(&["metadata", "annotations", key], value);
    }
    set_scheduled(pod, now);
    Ok(())
}

fn set_scheduled(pod: &mut Object, now: &str) {
    let conditions = pod.entry(&["status", "conditions"]);
    let scheduled = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    match conditions.as_array_mut() {
        None => *conditions = json!([scheduled]),
        Some(list) => {
            list.retain(|condition| condition["type"] != "PodScheduled");
            list.push(scheduled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pod(spec: &Value) -> Object {
        Object::new(json!({"metadata": {"name": "web", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn binding(target: &Value) -> Object {
        Object::new(json!({"metadata": {"name": "web"}, "target": target})).unwrap()
    }

    #[test]
    fn a_bound_pod_has_its_node_and_its_condition() {
        let mut pod = pod(&json!({}));
        apply(&mut pod, &binding(&json!({"kind": "Node", "name": "n"})), NOW).unwrap();
        assert_eq!(pod.str_at("/spec/nodeName"), "n");
        assert_eq!(pod.str_at("/status/conditions/0/status"), "True");
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = pod(&json!({"nodeName": "a"}));
        let error = apply(&mut pod, &binding(&json!({"name": "b"})), NOW).unwrap_err();
        assert!(error.is_conflict());
        let expected = "pod web is already assigned to node \"a\"";
        assert!(error.message().ends_with(expected), "{}", error.message());
    }

    #[test]
    fn a_gated_pod_is_not_bound() {
        let mut pod = pod(&json!({"schedulingGates": [{"name": "example.com/wait"}]}));
        let error = apply(&mut pod, &binding(&json!({"name": "b"})), NOW).unwrap_err();
        assert!(error.message().ends_with("non-empty .spec.schedulingGates"));
    }

    #[test]
    fn a_binding_must_name_a_node() {
        let problems = validate(&binding(&json!({"kind": "Pod"})));
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
                "target.name: Required value",
            ]
        );
    }
}
