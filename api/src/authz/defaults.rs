//! The roles and bindings of every cluster, as Kubernetes has them, from `defaults.txt`:
//!
//! ```text
//! clusterrole NAME [to=AGGREGATE,…] [of=AGGREGATE,…]
//!   VERBS GROUPS RESOURCES [names=NAME,…]      the core's group is written `core`
//!   VERBS url PATHS
//! clusterbinding NAME ROLE SUBJECT…            user:U group:G account:NAMESPACE/NAME
//! role NAMESPACE NAME
//! binding NAMESPACE NAME ROLE SUBJECT…
//! controller NAME                              role, binding and account of a controller
//! ```

use std::sync::LazyLock;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::resources::rbac::GROUP;
use crate::resources::{cluster_role, cluster_role_binding, role, role_binding};

/// An object that a cluster must have.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) kind: &'static Kind,
    pub(crate) object: Object,
}

static ALL: LazyLock<Vec<Wanted>> = LazyLock::new(|| parse(include_str!("defaults.txt")));

/// All of them, roles before the bindings that name them.
pub(crate) fn all() -> &'static [Wanted] {
    &ALL
}

/// The rules of a default cluster role.
pub(crate) fn rules_of(name: &str) -> Vec<PolicyRule> {
    let mut roles = ALL.iter().filter(|wanted| wanted.kind.plural == "clusterroles");
    let found = roles.find(|wanted| wanted.object.name() == name);
    found.map(|found| rules(&found.object)).unwrap_or_default()
}

/// The rules of a role object; what is no rule is left out.
pub(crate) fn rules(role: &Object) -> Vec<PolicyRule> {
    let rules = role.at("/rules").and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

fn parse(text: &str) -> Vec<Wanted> {
    let (mut roles, mut bindings) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            rule if line.starts_with(' ') => add_rule(&mut roles, rule),
            ["clusterrole", name, options @ ..] => roles.push(cluster_role(name, options)),
            ["role", namespace, name] => roles.push(wanted(&role::KIND, namespace, name)),
            ["controller", name] => {
                let full = format!("system:controller:{name}");
                roles.push(cluster_role(&full, &[]));
                let account = format!("account:kube-system/{name}");
                bindings.push(binding("", &full, &full, &[&account]));
            }
            ["clusterbinding", name, role, subjects @ ..] => {
                bindings.push(binding("", name, role, subjects));
            }
            ["binding", namespace, name, role, subjects @ ..] => {
                bindings.push(binding(namespace, name, role, subjects));
            }
            _ => unreachable!("the default roles must be well formed: {line}"),
        }
    }
    roles.extend(bindings);
    roles
}

fn wanted(kind: &'static Kind, namespace: &str, name: &str) -> Wanted {
    let mut object = Object::empty(&kind.api_version(), kind.kind);
    object.set_meta("name", name);
    if !namespace.is_empty() {
        object.set_meta("namespace", namespace);
    }
    object
        .set_meta("annotations", json!({ "rbac.authorization.kubernetes.io/autoupdate": "true" }));
    object.set_meta("labels", json!({ "kubernetes.io/bootstrapping": "rbac-defaults" }));
    if kind.plural.ends_with("roles") {
        object.set(&["rules"], json!([]));
    }
    Wanted { kind, object }
}

/// The label by which a cluster role is found that belongs into an aggregate.
fn aggregate_label(aggregate: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{aggregate}")
}

fn cluster_role(name: &str, options: &[&str]) -> Wanted {
    let mut wanted = wanted(&cluster_role::KIND, "", name);
    for option in options {
        if let Some(aggregates) = option.strip_prefix("to=") {
            for label in aggregates.split(',').map(aggregate_label) {
                wanted.object.set(&["metadata", "labels", &label], json!("true"));
            }
        }
        if let Some(aggregates) = option.strip_prefix("of=") {
            let selector = |label: String| json!({ "matchLabels": { label: "true" } });
            let selectors: Vec<Value> =
                aggregates.split(',').map(aggregate_label).map(selector).collect();
            wanted.object.set(&["aggregationRule"], json!({ "clusterRoleSelectors": selectors }));
        }
    }
    wanted
}

fn add_rule(roles: &mut [Wanted], words: &[&str]) {
    let list = |text: &str| -> Vec<String> {
        let of_core = |word: &str| if word == "core" { String::new() } else { word.to_owned() };
        text.split(',').map(of_core).collect()
    };
    let rule = match words {
        [verbs, "url", paths] => json!({ "verbs": list(verbs), "nonResourceURLs": list(paths) }),
        [verbs, groups, resources, names @ ..] => {
            let mut rule = json!({
                "verbs": verbs_of(verbs), "apiGroups": list(groups), "resources": list(resources),
            });
            if let Some(names) = names.first().and_then(|names| names.strip_prefix("names=")) {
                rule["resourceNames"] = json!(list(names));
            }
            rule
        }
        _ => unreachable!("a default rule must have three words: {words:?}"),
    };
    let role = roles.last_mut().expect("a rule must follow its role");
    let mut rules = role.object.at("/rules").and_then(Value::as_array).cloned().unwrap_or_default();
    rules.push(rule);
    role.object.set(&["rules"], Value::Array(rules));
}

/// Verbs, where `R` stands for all that read and `W` for all that write.
fn verbs_of(text: &str) -> Vec<&str> {
    text.split(',')
        .flat_map(|verb| match verb {
            "R" => vec!["get", "list", "watch"],
            "W" => vec!["create", "delete", "deletecollection", "patch", "update"],
            other => vec![other],
        })
        .collect()
}

/// A binding; the role is one of its namespace where it begins with `role:`.
fn binding(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Wanted {
    let kind = if namespace.is_empty() { &cluster_role_binding::KIND } else { &role_binding::KIND };
    let mut wanted = wanted(kind, namespace, name);
    let (role_kind, role) = match role.strip_prefix("role:") {
        Some(role) => ("Role", role),
        None => ("ClusterRole", role),
    };
    wanted.object.set(&["roleRef"], json!({ "apiGroup": GROUP, "kind": role_kind, "name": role }));
    let subjects: Vec<Value> =
        subjects.iter().filter_map(|subject| self::subject(subject)).collect();
    if !subjects.is_empty() {
        wanted.object.set(&["subjects"], Value::Array(subjects));
    }
    wanted
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "user" => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
        "group" => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name })
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_defaults_are_good_objects_and_each_is_there_once() {
        let mut names = HashSet::new();
        for wanted in all() {
            let object = &wanted.object;
            let name = (wanted.kind.kind, object.namespace(), object.name());
            assert!(names.insert(name), "{name:?} is there twice");
            let mut defaulted = object.clone();
            wanted.kind.strategy.default(&mut defaulted);
            let errors = wanted.kind.strategy.validate(&defaulted);
            assert!(errors.is_empty(), "{name:?}: {errors:?}");
        }
    }

    #[test]
    fn every_binding_names_a_role_that_is_there() {
        let roles: HashSet<(&str, &str)> = all()
            .iter()
            .filter(|wanted| wanted.kind.plural.ends_with("roles"))
            .map(|wanted| (wanted.object.namespace(), wanted.object.name()))
            .collect();
        for wanted in all().iter().filter(|wanted| wanted.kind.plural.ends_with("bindings")) {
            let is_own = wanted.object.str_at("/roleRef/kind") == "Role";
            let namespace = if is_own { wanted.object.namespace() } else { "" };
            let role = (namespace, wanted.object.str_at("/roleRef/name"));
            assert!(roles.contains(&role), "{role:?}");
        }
    }
}
