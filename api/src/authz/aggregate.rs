//! Aggregated cluster roles: their rules are those of the roles that their selectors find.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The rules that `role` must have, in the order of its selectors and of the names found; `None`
/// where it is no aggregate. `all` must be in the order of names.
pub fn aggregate<'a>(
    role: &ClusterRole,
    all: impl Iterator<Item = &'a ClusterRole> + Clone,
) -> Option<Vec<PolicyRule>> {
    let rule = role.aggregation_rule.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        let found = all.clone().filter(|other| {
            other.metadata.name != role.metadata.name
                && matches(selector, other.metadata.labels.as_ref())
        });
        for rule in found.flat_map(|found| found.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal =
        selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    let expressed = selector.match_expressions.iter().flatten().all(|wanted| {
        let values = wanted.values.as_deref().unwrap_or_default();
        let found = value(&wanted.key);
        match wanted.operator.as_str() {
            "In" => found.is_some_and(|found| values.contains(found)),
            "NotIn" => found.is_none_or(|found| !values.contains(found)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    equal && expressed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(value: Value) -> ClusterRole {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_rules_of_all_that_is_selected_are_taken_once() {
        let rule = |resource: &str| json!({ "verbs": ["get"], "apiGroups": [""], "resources": [resource] });
        let selected = |name: &str, rules: Value| {
            role(json!({ "metadata": { "name": name, "labels": { "to": "x" } }, "rules": rules }))
        };
        let sum = role(json!({
            "metadata": { "name": "sum", "labels": { "to": "x" } },
            "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "to": "x" } }] },
        }));
        let all = [
            selected("a", json!([rule("pods"), rule("nodes")])),
            selected("b", json!([rule("pods")])),
            role(json!({ "metadata": { "name": "c" }, "rules": [rule("secrets")] })),
            sum.clone(),
        ];
        let rules = aggregate(&sum, all.iter()).unwrap();
        let resources: Vec<_> =
            rules.iter().flat_map(|rule| rule.resources.clone().unwrap()).collect();
        assert_eq!(resources, ["pods", "nodes"]);
        assert_eq!(aggregate(&all[0], all.iter()), None);
    }
}
