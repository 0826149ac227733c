//! What may change in a pod: its images, and little else.

use serde_json::{Map, Value};

use crate::object::Object;
use crate::resources::check;
use crate::resources::defaults::each;
use crate::resources::pod_spec::tolerations;
use crate::status::FieldError;
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};
use crate::validation::names;

/// The annotation of pods that an agent made from a file: they mirror what the node runs anyway.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const CHANGEABLE: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What a new pod may not say.
pub fn validate_create(pod: &Object) -> Vec<FieldError> {
    check(pod, |errors, root| {
        let spec = root.at("spec");
        let (ephemeral, node) = (spec.at("ephemeralContainers"), spec.at("nodeName"));
        if !ephemeral.is_empty() {
            errors.forbidden(&ephemeral, "cannot be set on create");
        }
        if !node.str().is_empty() && !spec.at("schedulingGates").is_empty() {
            errors.forbidden(&node, "cannot be set until all schedulingGates have been cleared");
        }
    })
}

/// The annotations that mean something in pods.
pub fn annotations(errors: &mut Errors, at: &At<'_>, spec: &At<'_>) {
    let mirror = at.key(MIRROR);
    if mirror.is_set() && spec.at("nodeName").str().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = at.key(DELETION_COST);
    let text = cost.str();
    let odd = text.starts_with('+') || (text.starts_with('0') && text.len() > 1);
    if cost.is_set() && (odd || text.parse::<i32>().is_err()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
}

/// The rules of an update of the pod itself.
pub fn validate(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    mirror_annotation(errors, new, old);
    let (new, old) = (new.at("spec"), old.at("spec"));
    for field in ["containers", "initContainers"] {
        let list = new.at(field);
        if list.len() != old.at(field).len() {
            return errors.forbidden(&list, "pod updates may not add or remove containers");
        }
    }
    if !deadline(errors, &new, &old) {
        return;
    }
    tolerations::validate_update(errors, &new.at("tolerations"), &old.at("tolerations"));
    gates(errors, &new.at("schedulingGates"), &old.at("schedulingGates"));
    let rest = with_changeable_of(new.value(), old.value());
    if !same(&rest, old.value()) {
        errors.forbidden(&new, format!("{CHANGEABLE}\n{}", differences(old.value(), &rest)));
    }
}

fn mirror_annotation(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.at("metadata"), old.at("metadata"));
    let (new, old) = (new.at("annotations"), old.at("annotations"));
    let (new, old) = (new.key(MIRROR), old.key(MIRROR));
    match (old.is_set(), new.value() == old.value()) {
        (_, true) => {}
        (true, false) => errors.forbidden(&new, "may not remove or update mirror pod annotation"),
        (false, false) => errors.forbidden(&new, "may not add mirror pod annotation"),
    }
}

/// The deadline may be set, and come nearer. False where nothing else need be said.
fn deadline(errors: &mut Errors, new: &At<'_>, old: &At<'_>) -> bool {
    let most = i64::from(i32::MAX);
    let (new, old) = (new.at("activeDeadlineSeconds"), old.at("activeDeadlineSeconds"));
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=most).contains(&seconds) => {
            errors.invalid(&new, names::inclusive_range(0, most));
            return false;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.invalid(&new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => {
            errors.invalid_value(
                &new,
                "null",
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
    true
}

fn gates(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    for gate in new.items() {
        let name = gate.at("name");
        if !old.items().any(|old| old.at("name").str() == name.str()) {
            let gate = name.str();
            errors.forbidden(
                &name,
                format!("only deletion is allowed, but found new scheduling gate '{gate}'"),
            );
        }
    }
}

/// The new specification with everything that may change put back to what it was.
fn with_changeable_of(new: &Value, old: &Value) -> Value {
    let mut rest = new.clone();
    for list in ["containers", "initContainers"] {
        let before = old.get(list).and_then(Value::as_array);
        for (container, before) in each(&mut rest, list).zip(before.into_iter().flatten()) {
            put_back(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(&mut rest, old, field);
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(&rest) == Some(1) && grace(old).is_some_and(|seconds| seconds < 0) {
        put_back(&mut rest, old, "terminationGracePeriodSeconds");
    }
    if old.get("schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        node_selector_of_gated(&mut rest, old);
    }
    rest
}

/// While a pod waits at a gate its choice of nodes may still narrow.
fn node_selector_of_gated(rest: &mut Value, old: &Value) {
    let none = Map::new();
    let selector =
        |spec: &Value| spec.get("nodeSelector").and_then(Value::as_object).unwrap_or(&none).clone();
    let (new, before) = (selector(rest), selector(old));
    if before.iter().all(|(key, value)| new.get(key) == Some(value)) {
        put_back(rest, old, "nodeSelector");
    }
}

fn put_back(spec: &mut Value, old: &Value, field: &str) {
    let Some(spec) = spec.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => spec.insert(field.to_owned(), value.clone()),
        None => spec.remove(field),
    };
}

/// The fields that differ, one to a line.
pub(super) fn differences(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    differ("spec", old, new, &mut lines);
    lines.join("\n")
}

fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if same(old, new) => {}
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differ(&format!("{path}.{key}"), &of(before), &of(after), lines);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for index in 0..before.len().max(after.len()) {
                let of = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                differ(&format!("{path}[{index}]"), &of(before), &of(after), lines);
            }
        }
        _ => lines.push(format!("  {path}: {old} -> {new}")),
    }
}
