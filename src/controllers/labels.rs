//! Label selectors of objects (`matchLabels`, `matchExpressions`), as the controllers and the
//! scheduler evaluate them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` takes an object with `labels`. An empty selector takes everything; one with
/// an operator that does not exist takes nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let empty = Labels::new();
    let labels = labels.unwrap_or(&empty);
    let pairs =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    pairs
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| requirement_matches(requirement, labels))
}

/// Whether a selector selects by anything at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether `labels` hold every pair of `selector` (a Service's way to select); an empty selector
/// selects nothing.
pub fn pairs_match(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn requirement_matches(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn each_operator_selects_as_documented() {
        let web = labels(&[("app", "web")]);
        for (operator, values, with, without) in [
            ("In", vec!["web", "db"], true, false),
            ("In", vec!["db"], false, false),
            ("NotIn", vec!["web"], false, true),
            ("NotIn", vec!["db"], true, true),
            ("Exists", vec![], true, false),
            ("DoesNotExist", vec![], false, true),
            ("Near", vec!["web"], false, false),
        ] {
            let selector = expression("app", operator, &values);
            assert_eq!(matches(&selector, Some(&web)), with, "{operator} {values:?} with");
            assert_eq!(matches(&selector, None), without, "{operator} {values:?} without");
        }
    }

    #[test]
    fn pairs_and_expressions_must_both_hold() {
        let mut selector = expression("tier", "Exists", &[]);
        selector.match_labels = Some(labels(&[("app", "web")]));
        assert!(!matches(&selector, Some(&labels(&[("app", "web")]))));
        assert!(matches(&selector, Some(&labels(&[("app", "web"), ("tier", "front")]))));
        assert!(matches(&LabelSelector::default(), None), "the empty selector takes everything");
    }

    #[test]
    fn a_service_without_a_selector_selects_nothing() {
        let web = labels(&[("app", "web")]);
        assert!(!pairs_match(None, Some(&web)));
        assert!(!pairs_match(Some(&Labels::new()), Some(&web)));
        assert!(pairs_match(Some(&web), Some(&web)));
        assert!(!pairs_match(Some(&web), None));
    }
}
