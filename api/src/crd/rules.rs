//! CEL rules (`x-kubernetes-validations`), run by kube-cel, which brings Kubernetes' functions.
//!
//! A rule that cannot be run refuses the object: it fails closed. What a rule may cost is estimated
//! when its definition is written, roughly; it is not counted while it runs. [`super::check`] refuses
//! what would be judged otherwise than Kubernetes does: `oldSelf` within lists, `optionalOldSelf`.

use std::collections::HashMap;

use kube_cel::{
    CompiledSchema, ValidationError, WarningKind, compile_schema, estimate_rule_cost,
    validate_compiled,
};
use serde_json::{Value, json};

use crate::status::FieldError;

/// What Kubernetes has for rules in a schema.
pub(super) const RULES: &str = "x-kubernetes-validations";

/// The rules of a version, compiled.
pub(super) struct Rules {
    compiled: CompiledSchema,
    /// The field that each rule which names one blames, by the rule's text.
    blamed: HashMap<String, String>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rules that blame {:?}", self.blamed)
    }
}

impl Rules {
    /// The rules of a schema; `None` where it has none.
    pub(super) fn of(schema: &Value) -> Option<Self> {
        let mut blamed = HashMap::new();
        let has_rules = collect(schema, &mut blamed);
        has_rules.then(|| Self { compiled: compile_schema(schema), blamed })
    }

    /// What of an object, or of its change, breaks a rule. A rule about what stays as it was in
    /// `old` is not broken by it, unless it is one about changes.
    pub(super) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let (new, old) = (seen(object), old.map(seen));
        let checked = validate_compiled(&self.compiled, &new, old.as_ref());
        let Err(errors) = checked else { return Vec::new() };
        let errors = errors.into_vec();
        errors.iter().filter_map(|error| self.field_error(error, &new, old.as_ref())).collect()
    }

    fn field_error(
        &self,
        error: &ValidationError,
        new: &Value,
        old: Option<&Value>,
    ) -> Option<FieldError> {
        let path = error.field_path.as_str();
        let blamed = self.blamed.get(&error.rule).map_or("", String::as_str);
        let node = path.strip_suffix(blamed).unwrap_or(path).trim_end_matches('.');
        let value = at(new, node);
        let stays = old.is_some_and(|old| at(old, node) == value);
        if stays && !error.rule.contains("oldSelf") {
            return None;
        }
        let place = if path.is_empty() { "<nil>" } else { path };
        let (shown, why) = (type_of(value), error.message.clone());
        Some(match error.reason.as_deref() {
            Some("FieldValueRequired") => FieldError::required(place, why),
            Some("FieldValueForbidden") => FieldError::forbidden(place, why),
            Some("FieldValueDuplicate") => FieldError::duplicate(place, shown),
            _ => FieldError::invalid(place, shown, why),
        })
    }
}

/// An object as rules see it: of the metadata only the names.
fn seen(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| matches!(field.as_str(), "name" | "generateName"));
    }
    object
}

/// The value at a path such as `spec.ports[0].name`.
fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.try_fold(object, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

fn type_of(value: Option<&Value>) -> &'static str {
    match value {
        Some(Value::Array(_)) => "array",
        Some(Value::String(_)) => "string",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Object(_)) | None => "object",
        Some(Value::Null) => "null",
    }
}

/// Whether a schema has rules anywhere, and what they blame.
fn collect(schema: &Value, blamed: &mut HashMap<String, String>) -> bool {
    match schema {
        Value::Object(map) => {
            let rules = map.get(RULES).and_then(Value::as_array).into_iter().flatten();
            for rule in rules {
                if let (Some(text), Some(path)) =
                    (rule["rule"].as_str(), rule["fieldPath"].as_str())
                {
                    blamed.insert(text.to_owned(), path.to_owned());
                }
            }
            let below = map.values().map(|value| collect(value, blamed));
            below.fold(map.contains_key(RULES), |found, more| found | more)
        }
        Value::Array(list) => {
            list.iter().map(|value| collect(value, blamed)).fold(false, |found, more| found | more)
        }
        _ => false,
    }
}

/// What is wrong with a rule of a node of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It does not compile.
    Uncompilable(String),
    /// It may run for too long.
    Costly(String),
}

/// What is wrong with one rule of a node, if anything.
pub(super) fn problem(node: &Value, rule: &Value) -> Option<Problem> {
    let mut alone = node.clone();
    alone[RULES] = json!([rule]);
    let compiled = compile_schema(&alone);
    if let Some(error) = compiled.compilation_errors().first() {
        return Some(Problem::Uncompilable(error.to_string()));
    }
    let warnings = estimate_rule_cost(rule["rule"].as_str().unwrap_or_default(), &compiled);
    let costly = warnings.into_iter().find(|warning| warning.kind == WarningKind::CostExceeded);
    costly.map(|warning| Problem::Costly(warning.message))
}
