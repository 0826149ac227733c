//! Tolerations, and the taints they meet.

use serde_json::{Value, json};

use crate::resources::defaults::{fill, str_of};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::{labels, names};

/// The effects a taint can have.
pub const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// How long a pod stays on a node that does not answer, where it does not say.
const DEFAULT_SECONDS: i64 = 300;

/// The tolerations of a pod.
pub fn validate(errors: &mut Errors, at: &At<'_>) {
    for toleration in at.items() {
        let (key, operator) = (toleration.at("key"), toleration.at("operator"));
        let (effect, value) = (toleration.at("effect"), toleration.at("value"));
        if key.str().is_empty() {
            if operator.str() != "Exists" {
                errors.invalid_value(
                    &operator,
                    operator.str(),
                    "operator must be Exists when `key` is empty, which means \"match all values \
                     and all keys\"",
                );
            }
        } else {
            labels::label_name(errors, &key);
        }
        if toleration.at("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            errors.invalid_value(
                &effect,
                effect.str(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.str() {
            "" | "Equal" => {
                let problems = names::label_value(value.str());
                if !problems.is_empty() {
                    errors.invalid_value(&operator, value.str(), problems.join(";"));
                }
            }
            "Exists" if !value.str().is_empty() => errors.invalid_value(
                &operator,
                value.str(),
                "value must be empty when `operator` is 'Exists'",
            ),
            "Exists" => {}
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        errors.optional_one_of(&effect, &EFFECTS);
    }
}

/// Tolerations may only be added, or change how long they last.
pub fn validate_update(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = |old: &Value| {
        let old = without_seconds(old);
        new.items().any(|new| without_seconds(new.value()) == old)
    };
    if old.items().all(|old| kept(old.value())) {
        validate(errors, new);
    } else {
        errors
            .forbidden(new, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// Every pod stays a while on a node that is not ready or cannot be reached, unless it says how long.
pub fn add_defaults(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |toleration: &Value| {
            ["", key].contains(&str_of(toleration, "key"))
                && matches!(str_of(toleration, "effect"), "" | "NoExecute")
        };
        fill(spec, "tolerations", json!([]));
        if let Some(list) = spec.get_mut("tolerations").and_then(Value::as_array_mut)
            && !list.iter().any(tolerated)
        {
            list.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": DEFAULT_SECONDS,
            }));
        }
    }
}
