//! A pod says by labels and names which nodes it must have.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// The terms of which one must take the node.
pub fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Whether one of the terms takes the node.
pub fn takes(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether a pod of that specification may, by node selector and required affinity, be on the node.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let by_labels = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| label(node, key) == Some(value.as_str()));
    by_labels && required(spec).is_none_or(|required| takes(required, node))
}

/// What a node has written under a label.
pub fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a term says nothing.
pub fn is_blank(term: &NodeSelectorTerm) -> bool {
    term.match_expressions.as_ref().is_none_or(Vec::is_empty)
        && term.match_fields.as_ref().is_none_or(Vec::is_empty)
}

/// Whether all conditions of the term hold; one without conditions takes no node.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    !is_blank(term)
        && term
            .match_expressions
            .iter()
            .flatten()
            .all(|one| requirement_matches(one, label(node, &one.key)))
        && term.match_fields.iter().flatten().all(|one| {
            // The name is the only field there is.
            one.key == "metadata.name" && requirement_matches(one, node.metadata.name.as_deref())
        })
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let contains = |value: &str| values.iter().any(|one| one == value);
    let ordered = |holds: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|bound| bound.parse().ok());
        let own = value.and_then(|value| value.parse().ok());
        own.zip(bound).is_some_and(|(own, bound)| holds(own, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(contains),
        "NotIn" => !value.is_some_and(contains),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => ordered(|own, bound| own > bound),
        "Lt" => ordered(|own, bound| own < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }
    }

    #[test]
    fn each_operator_takes_the_nodes_it_should() {
        for (operator, values, present, absent) in [
            ("In", &["7", "8"][..], true, false),
            ("NotIn", &["7"][..], false, true),
            ("Exists", &[][..], true, false),
            ("DoesNotExist", &[][..], false, true),
            ("Gt", &["6"][..], true, false),
            ("Gt", &["7"][..], false, false),
            ("Lt", &["8"][..], true, false),
            ("Lt", &["x"][..], false, false),
            ("Near", &["7"][..], false, false),
        ] {
            let requirement = requirement("size", operator, values);
            assert_eq!(
                requirement_matches(&requirement, Some("7")),
                present,
                "{operator} {values:?}"
            );
            assert_eq!(requirement_matches(&requirement, None), absent, "{operator} without");
        }
    }
}
