//! Whether somebody who gives rights has them: rules taken apart into single rights and compared,
//! and the rights that are missing put into words.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rbac::covers_url;
use crate::authn::User;

/// One right: one verb on one resource of one group, perhaps on one object; or on one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Resource { group: String, resource: String, name: Option<String>, verb: String },
    Path { url: String, verb: String },
}

/// The rights of `wanted` that none of `owned` gives.
pub fn missing(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let missing =
        wanted.iter().flat_map(rights).filter(|right| !owned.iter().any(|rule| gives(rule, right)));
    compact(missing.collect())
}

/// Whether `owned` gives everything of `wanted`.
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> bool {
    missing(owned, wanted).is_empty()
}

/// The refusal of who gives what they do not have; nothing where they have it.
pub fn check(user: &User, owned: &[PolicyRule], wanted: &[PolicyRule]) -> Result<(), String> {
    let missing = missing(owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let texts: BTreeSet<String> = missing.iter().map(text).collect();
    let texts: Vec<String> = texts.into_iter().collect();
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        texts.join("\n")
    ))
}

/// All rights of the cluster.
pub fn everything() -> Vec<PolicyRule> {
    let star = || vec!["*".to_owned()];
    vec![
        PolicyRule {
            verbs: star(),
            api_groups: Some(star()),
            resources: Some(star()),
            ..PolicyRule::default()
        },
        PolicyRule { verbs: star(), non_resource_urls: Some(star()), ..PolicyRule::default() },
    ]
}

fn rights(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    let names: Vec<Option<String>> = match rule.resource_names.as_deref() {
        None | Some([]) => vec![None],
        Some(names) => names.iter().cloned().map(Some).collect(),
    };
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.extend(names.iter().map(|name| Right::Resource {
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
    for url in rule.non_resource_urls.iter().flatten() {
        let right = |verb: &String| Right::Path { url: url.clone(), verb: verb.clone() };
        rights.extend(rule.verbs.iter().map(right));
    }
    rights
}

fn gives(rule: &PolicyRule, right: &Right) -> bool {
    let has = |values: &[String], wanted: &str| {
        values.iter().any(|value| value == "*" || value == wanted)
    };
    match right {
        Right::Path { url, verb } => {
            has(&rule.verbs, verb)
                && rule.non_resource_urls.iter().flatten().any(|own| covers_url(own, url))
        }
        Right::Resource { group, resource, name, verb } => {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            let part = resource.split_once('/').map(|(_, part)| part);
            let is_resource = |own: &String| {
                own == "*"
                    || own == resource
                    || part.is_some_and(|part| own.strip_prefix("*/") == Some(part))
            };
            has(&rule.verbs, verb)
                && has(rule.api_groups.as_deref().unwrap_or_default(), group)
                && rule.resources.iter().flatten().any(is_resource)
                && (names.is_empty() || name.as_ref().is_some_and(|name| names.contains(name)))
        }
    }
}

/// Rights that differ in nothing but their verb, as one rule each.
fn compact(rights: Vec<Right>) -> Vec<PolicyRule> {
    let mut verbs: BTreeMap<Right, Vec<String>> = BTreeMap::new();
    for mut right in rights {
        let (Right::Resource { verb, .. } | Right::Path { verb, .. }) = &mut right;
        let verb = std::mem::take(verb);
        let found = verbs.entry(right).or_default();
        if !found.contains(&verb) {
            found.push(verb);
        }
    }
    let rule = |(right, verbs)| match right {
        Right::Resource { group, resource, name, .. } => PolicyRule {
            verbs,
            api_groups: Some(vec![group]),
            resources: Some(vec![resource]),
            resource_names: name.map(|name| vec![name]),
            ..PolicyRule::default()
        },
        Right::Path { url, .. } => {
            PolicyRule { verbs, non_resource_urls: Some(vec![url]), ..PolicyRule::default() }
        }
    };
    verbs.into_iter().map(rule).collect()
}

/// A rule as messages give it.
fn text(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", rule.api_groups.as_deref()),
        ("Resources", rule.resources.as_deref()),
        ("NonResourceURLs", rule.non_resource_urls.as_deref()),
        ("ResourceNames", rule.resource_names.as_deref()),
        ("Verbs", Some(rule.verbs.as_slice())),
    ];
    let said = fields.into_iter().filter_map(|(name, values)| {
        let values = values.filter(|values| !values.is_empty())?;
        Some(format!("{name}:{}", quoted(values)))
    });
    format!("{{{}}}", said.collect::<Vec<_>>().join(", "))
}

/// A list as Go prints it: `["a" "b"]`.
fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        PolicyRule {
            verbs: owned(verbs),
            api_groups: Some(vec![String::new()]),
            resources: Some(owned(resources)),
            resource_names: (!names.is_empty()).then(|| owned(names)),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn who_has_all_may_give_anything_and_nobody_gives_more_than_they_have() {
        let wanted = [rule(&["get", "list"], &["pods", "pods/log"], &[])];
        assert!(covers(&everything(), &wanted));
        assert!(covers(&wanted, &wanted));
        assert!(covers(&[rule(&["*"], &["*"], &[])], &wanted));
        assert!(!covers(&[rule(&["get"], &["pods", "*/log"], &[])], &wanted));
        assert!(!covers(&wanted, &everything()));
    }

    #[test]
    fn a_right_on_one_object_does_not_give_all_objects() {
        let one = [rule(&["get"], &["secrets"], &["a"])];
        assert!(covers(&[rule(&["get"], &["secrets"], &[])], &one));
        assert!(!covers(&one, &[rule(&["get"], &["secrets"], &[])]));
        assert!(!covers(&one, &[rule(&["get"], &["secrets"], &["a", "b"])]));
    }

    #[test]
    fn what_is_missing_is_told_as_kubernetes_words_it() {
        let user = User::authenticated("bob", &[]);
        let owned = [rule(&["get"], &["pods"], &[])];
        let wanted = [rule(&["get", "list", "watch"], &["pods"], &[])];
        assert_eq!(
            check(&user, &owned, &wanted).unwrap_err(),
            "user \"bob\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC \
             permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
             Verbs:[\"list\" \"watch\"]}"
        );
    }
}
