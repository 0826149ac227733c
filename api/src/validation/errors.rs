//! [`Errors`]: what was found wrong with an object, in the order in which it was found.

use serde_json::Value;

use super::at::At;
use crate::status::FieldError;

/// A list of field errors that grows as an object is walked.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// Nothing wrong so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was found.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// The field must be set.
    pub fn required(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.push(FieldError::required(at.to_string(), detail));
    }

    /// The field's value breaks a rule.
    pub fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.invalid_value(at, at.value().clone(), detail);
    }

    /// A value that stands elsewhere, or nowhere, breaks a rule that is reported here.
    pub fn invalid_value(
        &mut self,
        at: &At<'_>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.push(FieldError::invalid(at.to_string(), value, detail));
    }

    /// The field's value breaks each of these rules.
    pub fn invalid_each(&mut self, at: &At<'_>, problems: impl IntoIterator<Item = String>) {
        for problem in problems {
            self.invalid(at, problem);
        }
    }

    /// The field may not be set, or not be changed.
    pub fn forbidden(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.push(FieldError::forbidden(at.to_string(), detail));
    }

    /// The field's value stands there twice.
    pub fn duplicate(&mut self, at: &At<'_>) {
        self.push(FieldError::duplicate(at.to_string(), at.value().clone()));
    }

    /// The field names something that is not there.
    pub fn not_found(&mut self, at: &At<'_>) {
        let value = if at.is_set() { at.value().clone() } else { Value::from("") };
        self.push(FieldError::not_found(at.to_string(), value));
    }

    /// The field's value is none of those allowed.
    pub fn not_supported(&mut self, at: &At<'_>, supported: &[&str]) {
        self.push(FieldError::not_supported(at.to_string(), at.value().clone(), supported));
    }

    /// The field must be set, to one of `supported`.
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if at.str().is_empty() {
            self.required(at, "");
        } else {
            self.optional_one_of(at, supported);
        }
    }

    /// The field, where set, must be one of `supported`.
    pub fn optional_one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if !at.str().is_empty() && !supported.contains(&at.str()) {
            self.not_supported(at, supported);
        }
    }

    /// The field has more than `max_bytes` bytes.
    pub fn too_long(&mut self, at: &At<'_>, max_bytes: usize) {
        self.push(FieldError::too_long(at.to_string(), max_bytes));
    }

    /// The list has more than `max_items` items.
    pub fn too_many(&mut self, at: &At<'_>, max_items: usize) {
        self.push(FieldError::too_many(at.to_string(), at.len(), max_items));
    }

    /// The field must be as it was.
    pub fn immutable(&mut self, at: &At<'_>, old: &At<'_>) {
        if !same(at.value(), old.value()) {
            self.invalid(at, IMMUTABLE);
        }
    }

    /// The field must be set, and have a form.
    pub fn required_form(&mut self, at: &At<'_>, check: impl Fn(&str) -> Vec<String>) {
        if at.str().is_empty() {
            self.required(at, "");
        } else {
            self.invalid_each(at, check(at.str()));
        }
    }

    /// The field, where set, must have a form.
    pub fn optional_form(&mut self, at: &At<'_>, check: impl Fn(&str) -> Vec<String>) {
        if !at.str().is_empty() {
            self.invalid_each(at, check(at.str()));
        }
    }
}

/// What Kubernetes says of a changed field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Whether two values mean the same: what is empty is what is absent.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let missing = &Value::Null;
            left.iter().all(|(key, value)| same(value, right.get(key).unwrap_or(missing)))
                && right.iter().all(|(key, value)| left.contains_key(key) || is_nothing(value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (left, right) => left == right || (is_nothing(left) && is_nothing(right)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_empty_is_the_same_as_what_is_absent() {
        assert!(same(&json!({"a": 1, "b": []}), &json!({"a": 1})));
        assert!(same(&json!({"a": 1}), &json!({"a": 1, "b": {}, "c": null})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": 0}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }
}
