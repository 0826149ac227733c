//! CEL rules (`x-kubernetes-validations`), run by kube-cel, which brings Kubernetes' functions.
//!
//! A rule that names a function which that library does not have refuses the object: it fails
//! closed. Costs are bounded by the size of the object, not counted as Kubernetes counts them.

use kube_cel::{CompiledSchema, ErrorKind, RootContext, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::validate::restricted_metadata;
use crate::object::Object;
use crate::status::FieldError;

/// The rules of a version, compiled.
pub(super) struct Rules {
    compiled: CompiledSchema,
    root: RootContext,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rules of {}", self.root.kind)
    }
}

impl Rules {
    /// The rules of a schema; `None` where it has none.
    pub(super) fn of(schema: &Value, group: &str, api_version: &str, kind: &str) -> Option<Self> {
        has_rules(schema).then(|| Self {
            compiled: compile_schema(schema),
            root: RootContext {
                api_version: api_version.to_owned(),
                api_group: group.to_owned(),
                kind: kind.to_owned(),
            },
        })
    }

    /// What of an object, or of its change, breaks a rule.
    pub(super) fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let seen = |object: &Object| {
            let mut value = object.value().clone();
            value["metadata"] = restricted_metadata(object.at("/metadata"));
            value
        };
        let (new, old) = (seen(object), old.map(seen));
        let checked = Validator::new().validate_compiled_with_context(
            &self.compiled,
            &new,
            old.as_ref(),
            &self.root,
        );
        match checked {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_vec().iter().map(|error| field_error(error, &new)).collect(),
        }
    }
}

fn field_error(error: &ValidationError, object: &Value) -> FieldError {
    let path = error.field_path.as_str();
    let place = if path.is_empty() { "<nil>" } else { path };
    let value = at(object, path);
    let shown = match value {
        Value::Object(_) => Value::from("object"),
        Value::Array(_) => Value::from("array"),
        other => other,
    };
    match error.reason.as_deref() {
        Some("FieldValueRequired") => FieldError::required(place, error.message.clone()),
        Some("FieldValueForbidden") => FieldError::forbidden(place, error.message.clone()),
        Some("FieldValueDuplicate") => FieldError::duplicate(place, shown),
        _ if error.kind == ErrorKind::ValidationFailure => {
            FieldError::invalid(place, shown, error.message.clone())
        }
        _ => {
            let why = format!("rule {:?} cannot be evaluated: {}", error.rule, error.message);
            FieldError::invalid(place, shown, why)
        }
    }
}

/// The value at a path such as `spec.ports[0].name`.
fn at(object: &Value, path: &str) -> Value {
    let steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
    let found = steps.into_iter().try_fold(object, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step.trim_matches('"')),
    });
    found.cloned().unwrap_or(Value::Null)
}

/// Whether a schema has rules anywhere.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.contains_key("x-kubernetes-validations") || map.values().any(has_rules)
        }
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

/// What is wrong with the rules of one node of a schema, each with its place among them.
pub(super) fn compile_errors(node: &Value) -> Vec<(usize, String)> {
    let Some(rules) = node.get("x-kubernetes-validations") else { return Vec::new() };
    let alone = serde_json::json!({ "type": node.get("type"), "x-kubernetes-validations": rules });
    let compiled = compile_schema(&alone);
    let all = compiled.validations.iter().enumerate();
    all.filter_map(|(index, rule)| Some((index, rule.as_ref().err()?.to_string()))).collect()
}
