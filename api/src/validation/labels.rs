//! Labels and the selectors that choose by them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::at::At;
use super::errors::Errors;
use super::names;

/// Every key must be a qualified name, every value a label's.
pub fn labels(errors: &mut Errors, at: &At<'_>) {
    for (key, value) in at.entries() {
        for problem in names::qualified_name(key) {
            errors.invalid_value(at, key, problem);
        }
        for problem in names::label_value(value.str()) {
            errors.invalid_value(at, value.str(), problem);
        }
    }
}

/// A label's key that stands alone.
pub fn label_name(errors: &mut Errors, at: &At<'_>) {
    let key = at.str();
    for problem in names::qualified_name(key) {
        errors.invalid_value(at, key, problem);
    }
}

/// A `LabelSelector`.
pub fn label_selector(errors: &mut Errors, at: &At<'_>) {
    labels(errors, &at.at("matchLabels"));
    for requirement in at.at("matchExpressions").items() {
        let values = requirement.at("values");
        let operator = requirement.at("operator");
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        label_name(errors, &requirement.at("key"));
        for value in values.items() {
            errors.invalid_each(&value, names::label_value(value.str()));
        }
    }
}

/// Whether a `LabelSelector` has no condition at all: it would choose everything.
pub fn selects_everything(selector: &Value) -> bool {
    let empty = |field: &str| match selector.get(field) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}

/// Whether a `LabelSelector` chooses these labels.
pub fn selects(selector: &Value, labels: &Map<String, Value>) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && requirements(selector).all(|requirement| {
            let key = requirement.get("key").and_then(Value::as_str).unwrap_or_default();
            let label = labels.get(key);
            let listed = || {
                let values = requirement.get("values").and_then(Value::as_array);
                values.into_iter().flatten().any(|value| label == Some(value))
            };
            match requirement.get("operator").and_then(Value::as_str) {
                Some("In") => listed(),
                Some("NotIn") => !listed(),
                Some("Exists") => label.is_some(),
                Some("DoesNotExist") => label.is_none(),
                _ => false,
            }
        })
}

fn requirements(selector: &Value) -> impl Iterator<Item = &Value> {
    selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten()
}

/// A `LabelSelector` or a plain map of labels in the form of a query: `app=web,tier in (a,b)`.
pub fn selector_text(selector: &Value) -> String {
    let structured = selector.get("matchLabels").is_some_and(|labels| !labels.is_string())
        || selector.get("matchExpressions").is_some_and(|list| !list.is_string());
    let labels = if structured { selector.get("matchLabels") } else { Some(selector) };
    let mut parts: BTreeMap<(String, usize), String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            ((key.clone(), 0), format!("{key}={}", value.as_str().unwrap_or_default()))
        })
        .collect();
    if structured {
        for (index, requirement) in requirements(selector).enumerate() {
            let key = requirement.get("key").and_then(Value::as_str).unwrap_or_default();
            parts.insert((key.to_owned(), index + 1), requirement_text(key, requirement));
        }
    }
    parts.into_values().collect::<Vec<_>>().join(",")
}

fn requirement_text(key: &str, requirement: &Value) -> String {
    let mut values: Vec<&str> = requirement
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    values.sort_unstable();
    let values = values.join(",");
    match requirement.get("operator").and_then(Value::as_str) {
        Some("In") => format!("{key} in ({values})"),
        Some("NotIn") => format!("{key} notin ({values})"),
        Some("DoesNotExist") => format!("!{key}"),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(selector: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        label_selector(&mut errors, &At::named("selector", selector));
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_selector_with_an_unknown_operator_or_missing_values_is_refused() {
        assert_eq!(problems(&json!({"matchLabels": {"a": "b"}})), Vec::<String>::new());
        assert_eq!(
            problems(&json!({"matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "a", "operator": "Near"},
            ]})),
            [
                "selector.matchExpressions[0].values: Required value: must be specified when \
                 `operator` is 'In' or 'NotIn'",
                "selector.matchExpressions[1].values: Forbidden: may not be specified when \
                 `operator` is 'Exists' or 'DoesNotExist'",
                "selector.matchExpressions[2].operator: Invalid value: \"Near\": not a valid \
                 selector operator",
            ]
        );
    }

    #[test]
    fn a_selector_chooses_by_all_its_conditions() {
        let labels = json!({"app": "web", "tier": "front"});
        let labels = labels.as_object().unwrap();
        let chosen = |selector: Value| selects(&selector, labels);
        assert!(chosen(json!({"matchLabels": {"app": "web"}})));
        assert!(!chosen(json!({"matchLabels": {"app": "db"}})));
        let one = |operator: &str, key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert!(chosen(one("In", "tier", json!(["front"]))));
        assert!(chosen(one("NotIn", "tier", json!(["back"]))));
        assert!(chosen(one("NotIn", "missing", json!(["back"]))));
        assert!(chosen(one("DoesNotExist", "missing", json!([]))));
        assert!(!chosen(one("Exists", "missing", json!([]))));
    }

    #[test]
    fn a_selector_reads_as_a_query() {
        assert_eq!(selector_text(&json!({"b": "2", "a": "1"})), "a=1,b=2");
        assert_eq!(
            selector_text(&json!({"matchLabels": {"c": "3"}, "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "d", "operator": "DoesNotExist"},
                {"key": "b", "operator": "Exists"},
            ]})),
            "a in (x,y),b,c=3,!d"
        );
        assert_eq!(selector_text(&json!({})), "");
    }
}
