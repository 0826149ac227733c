//! What roles and bindings have in common: rules, subjects, and the role that a binding gives.

use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::Column;
use crate::resources::defaults::{child, each, fill_empty, str_of};
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;
use crate::validation::names;

/// The group of all four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The columns of bindings.
pub static BINDING_COLUMNS: [Column; 6] = [
    NAME,
    table::text("Role", "The role it gives."),
    AGE,
    table::wide("Users", "Users in the binding"),
    table::wide("Groups", "Groups in the binding"),
    table::wide("ServiceAccounts", "ServiceAccounts in the binding"),
];

/// Whether rules may name paths that are no resources: only those of the whole cluster may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// They may.
    Allowed,
    /// They may not.
    Forbidden,
}

/// The rules of a role.
pub fn rules(errors: &mut Errors, at: &At<'_>, paths: Paths) {
    for rule in at.items() {
        let (verbs, urls) = (rule.at("verbs"), rule.at("nonResourceURLs"));
        if verbs.is_empty() {
            errors.required(&verbs, "verbs must contain at least one value");
        }
        if !urls.is_empty() {
            if paths == Paths::Forbidden {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            let others = ["apiGroups", "resources", "resourceNames"];
            if others.iter().any(|field| !rule.at(field).is_empty()) {
                errors.invalid(
                    &urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if rule.at("apiGroups").is_empty() {
            let groups = rule.at("apiGroups");
            errors.required(&groups, "resource rules must supply at least one api group");
        }
        if rule.at("resources").is_empty() {
            let resources = rule.at("resources");
            errors.required(&resources, "resource rules must supply at least one resource");
        }
    }
}

/// Which cluster roles a cluster role is made of.
pub fn aggregation(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return;
    }
    let selectors = at.at("clusterRoleSelectors");
    if selectors.is_empty() {
        let sentence = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        return errors.required(&selectors, sentence);
    }
    for selector in selectors.items() {
        label_selector(errors, &selector);
    }
}

/// The groups of a binding's role and subjects, where they are not said.
pub fn default_binding(object: &mut Object) {
    let root = object.value_mut();
    if let Some(role) = child(root, "roleRef") {
        fill_empty(role, "apiGroup", GROUP);
    }
    for subject in each(root, "subjects") {
        if ["User", "Group"].contains(&str_of(subject, "kind")) {
            fill_empty(subject, "apiGroup", GROUP);
        }
    }
}

/// The role and the subjects of a binding; `roles` are the kinds of role it may give.
pub fn binding(errors: &mut Errors, root: &At<'_>, roles: &[&str], is_namespaced: bool) {
    let role = root.at("roleRef");
    let (group, kind, name) = (role.at("apiGroup"), role.at("kind"), role.at("name"));
    if group.str() != GROUP {
        errors.not_supported(&group, &[GROUP]);
    }
    if !roles.contains(&kind.str()) {
        errors.not_supported(&kind, roles);
    }
    if name.str().is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, names::name_is_path_segment(name.str(), false));
    }
    for subject in root.at("subjects").items() {
        let (kind, name) = (subject.at("kind"), subject.at("name"));
        let (group, namespace) = (subject.at("apiGroup"), subject.at("namespace"));
        if name.str().is_empty() {
            errors.required(&name, "");
        }
        match kind.str() {
            "ServiceAccount" => {
                errors.optional_form(&name, names::dns1123_subdomain);
                if !group.str().is_empty() {
                    errors.not_supported(&group, &[""]);
                }
                if !is_namespaced && namespace.str().is_empty() {
                    errors.required(&namespace, "");
                }
            }
            "User" | "Group" => {
                if group.str() != GROUP {
                    errors.not_supported(&group, &[GROUP]);
                }
            }
            _ => errors.not_supported(&kind, &["ServiceAccount", "User", "Group"]),
        }
    }
}

/// A binding gives one role for life.
pub fn same_role(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    if new.at("roleRef").value() != old.at("roleRef").value() {
        errors.invalid(&new.at("roleRef"), "cannot change roleRef");
    }
}

/// The row of a binding.
pub fn binding_row(object: &Object, now: jiff::Timestamp) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let subjects = object.at("/subjects").and_then(Value::as_array);
        let names = subjects.into_iter().flatten().filter(|subject| subject["kind"] == kind);
        let names = names.map(|subject| match (kind, str_of(subject, "namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", str_of(subject, "name")),
            _ => str_of(subject, "name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    let role = format!("{}/{}", object.str_at("/roleRef/kind"), object.str_at("/roleRef/name"));
    vec![
        object.name().into(),
        role.into(),
        table::age(object, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
