//! RBAC: what roles allow to whom bindings name.
//!
//! There is no index of its own to keep current: the informers of the four kinds keep the bindings
//! by their subjects, and a decision goes from the user's names over bindings and roles to rules.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Attributes, ResourceAttributes, defaults};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User};
use crate::informer::{Informer, Informers};
use crate::resources::rbac::GROUP;
use crate::status::Status;

/// The index of bindings by whom they name.
const BY_SUBJECT: &str = "subject";

/// Roles and bindings of the whole cluster.
pub struct Rbac {
    roles: Arc<Informer<Role>>,
    cluster_roles: Arc<Informer<ClusterRole>>,
    bindings: Arc<Informer<RoleBinding>>,
    cluster_bindings: Arc<Informer<ClusterRoleBinding>>,
}

/// A rule that somebody has, and whence.
pub(crate) type Visit<'a> = dyn FnMut(&PolicyRule, Source<'_>) -> Search + 'a;

/// A binding, for one of whose subjects somebody is taken.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Empty for a binding of the whole cluster.
    namespace: &'a str,
    name: &'a str,
    role: &'a RoleRef,
    subjects: Option<&'a Vec<Subject>>,
    /// What the subject is found by.
    key: &'a str,
}

impl Source<'_> {
    /// In upstream's words.
    fn describe(&self) -> String {
        let Self { namespace, name, role, .. } = *self;
        let (kind, role) = (&role.kind, &role.name);
        let subject = subjects(self.subjects)
            .find(|subject| subject_key(namespace, subject) == self.key)
            .map(|subject| match (subject.kind.as_str(), subject.namespace.as_deref()) {
                ("ServiceAccount", None | Some("")) => {
                    format!("ServiceAccount {:?}", format!("{}/{namespace}", subject.name))
                }
                ("ServiceAccount", Some(own)) => {
                    format!("ServiceAccount {:?}", format!("{}/{own}", subject.name))
                }
                (other, _) => format!("{other} {:?}", subject.name),
            })
            .unwrap_or_default();
        if namespace.is_empty() {
            return format!("ClusterRoleBinding {name:?} of {kind} {role:?} to {subject}");
        }
        let name = format!("{name}/{namespace}");
        format!("RoleBinding {name:?} of {kind} {role:?} to {subject}")
    }
}

/// Whether to look at more rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// At the next one too.
    On,
    /// Enough was found.
    Over,
}

impl Rbac {
    pub(crate) fn new(informers: &Informers) -> Self {
        let rbac = Self {
            roles: informers.of(),
            cluster_roles: informers.of(),
            bindings: informers.of(),
            cluster_bindings: informers.of(),
        };
        rbac.cluster_bindings.index_by(BY_SUBJECT, |binding| {
            subjects(binding.subjects.as_ref()).map(|subject| subject_key("", subject)).collect()
        });
        rbac.bindings.index_by(BY_SUBJECT, |binding| {
            let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
            let key = |subject| format!("{namespace}|{}", subject_key(namespace, subject));
            subjects(binding.subjects.as_ref()).map(key).collect()
        });
        rbac
    }

    /// `Ok` with the binding where a role allows it; otherwise which roles could not be found.
    pub fn authorize(&self, user: &User, attributes: &Attributes) -> Result<String, String> {
        let mut allowed = None;
        let namespace = match attributes {
            Attributes::Resource(wanted) => wanted.namespace.as_str(),
            Attributes::Path { .. } => "",
        };
        let missing = self.visit(user, namespace, &mut |rule, source| {
            if !allows(rule, attributes) {
                return Search::On;
            }
            allowed = Some(format!("RBAC: allowed by {}", source.describe()));
            Search::Over
        });
        match (allowed, missing.as_slice()) {
            (Some(reason), _) => Ok(reason),
            (None, []) => Err(String::new()),
            (None, [one]) => Err(format!("RBAC: {one}")),
            (None, many) => Err(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    /// All rules of a user in a namespace (and everywhere, where that is empty), and which roles
    /// could not be found.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let missing = self.visit(user, namespace, &mut |rule, _| {
            rules.push(rule.clone());
            Search::On
        });
        (rules, missing)
    }

    /// The rules of the role that a binding in `namespace` names.
    pub fn rules_by_reference(
        &self,
        namespace: &str,
        role: &RoleRef,
    ) -> Result<Vec<PolicyRule>, Status> {
        let not_found = |plural| Status::not_found(GROUP, plural, &role.name);
        if role.kind == "ClusterRole" {
            let found = self.cluster_roles.get("", &role.name);
            let found = found.ok_or_else(|| not_found("clusterroles"))?;
            return Ok(found.rules.clone().unwrap_or_default());
        }
        let found = self.roles.get(namespace, &role.name).ok_or_else(|| not_found("roles"))?;
        Ok(found.rules.clone().unwrap_or_default())
    }

    /// The cluster roles.
    pub fn cluster_roles(&self) -> &Arc<Informer<ClusterRole>> {
        &self.cluster_roles
    }

    /// The bindings of cluster roles in the whole cluster.
    pub fn cluster_bindings(&self) -> &Arc<Informer<ClusterRoleBinding>> {
        &self.cluster_bindings
    }

    /// Waits until all default roles and bindings are there. Callers bound the wait.
    pub(crate) async fn furnished(&self) {
        let mut roles = self.cluster_roles.subscribe();
        let mut bindings = self.cluster_bindings.subscribe();
        while !self.has_defaults() {
            // Both are cancel-safe, and what they bring is looked for in the informers.
            tokio::select! {
                _ = roles.recv() => {}
                _ = bindings.recv() => {}
            }
        }
    }

    fn has_defaults(&self) -> bool {
        defaults::all().iter().all(|wanted| {
            let name = wanted.object.name();
            match wanted.kind.kind {
                "ClusterRole" => self.cluster_roles.get("", name).is_some(),
                "ClusterRoleBinding" => self.cluster_bindings.get("", name).is_some(),
                _ => true,
            }
        })
    }

    /// Whether all roles and bindings are in memory.
    pub fn is_synced(&self) -> bool {
        self.roles.is_synced()
            && self.cluster_roles.is_synced()
            && self.bindings.is_synced()
            && self.cluster_bindings.is_synced()
    }

    /// Waits until everything up to `revision` counts. Callers bound the wait.
    pub(crate) async fn reached(&self, revision: u64) {
        self.roles.reached(revision).await;
        self.cluster_roles.reached(revision).await;
        self.bindings.reached(revision).await;
        self.cluster_bindings.reached(revision).await;
    }

    /// Shows the user's rules until enough was seen. Gives the roles that are not there.
    fn visit(&self, user: &User, namespace: &str, visit: &mut Visit<'_>) -> Vec<String> {
        let mut missing = Vec::new();
        for key in keys_of(user) {
            for binding in self.cluster_bindings.indexed(BY_SUBJECT, &key) {
                let source = Source {
                    namespace: "",
                    name: binding.metadata.name.as_deref().unwrap_or_default(),
                    role: &binding.role_ref,
                    subjects: binding.subjects.as_ref(),
                    key: &key,
                };
                if self.visit_role(source, visit, &mut missing) == Search::Over {
                    return missing;
                }
            }
            if namespace.is_empty() {
                continue;
            }
            for binding in self.bindings.indexed(BY_SUBJECT, &format!("{namespace}|{key}")) {
                let source = Source {
                    namespace,
                    name: binding.metadata.name.as_deref().unwrap_or_default(),
                    role: &binding.role_ref,
                    subjects: binding.subjects.as_ref(),
                    key: &key,
                };
                if self.visit_role(source, visit, &mut missing) == Search::Over {
                    return missing;
                }
            }
        }
        missing
    }

    fn visit_role(
        &self,
        source: Source<'_>,
        visit: &mut Visit<'_>,
        missing: &mut Vec<String>,
    ) -> Search {
        let Source { namespace, role, .. } = source;
        let mut show = |rules: &Option<Vec<PolicyRule>>| {
            let is_over = rules.iter().flatten().any(|rule| visit(rule, source) == Search::Over);
            if is_over { Search::Over } else { Search::On }
        };
        let found = if role.kind == "ClusterRole" {
            self.cluster_roles.get("", &role.name).map(|found| show(&found.rules))
        } else {
            self.roles.get(namespace, &role.name).map(|found| show(&found.rules))
        };
        found.unwrap_or_else(|| {
            let kind = role.kind.to_ascii_lowercase();
            missing.push(format!("{kind}.{GROUP} {:?} not found", role.name));
            Search::On
        })
    }
}

fn subjects(subjects: Option<&Vec<Subject>>) -> impl Iterator<Item = &Subject> {
    subjects.into_iter().flatten()
}

/// How a subject is found; `namespace` is its binding's.
fn subject_key(namespace: &str, subject: &Subject) -> String {
    let name = &subject.name;
    match subject.kind.as_str() {
        "User" => format!("u:{name}"),
        "Group" => format!("g:{name}"),
        _ => {
            let namespace =
                subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
            format!("u:{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
        }
    }
}

/// How the subjects are found that a user is.
fn keys_of(user: &User) -> impl Iterator<Item = String> {
    let groups = user.groups.iter().map(|group| format!("g:{group}"));
    std::iter::once(format!("u:{}", user.name)).chain(groups)
}

/// Whether a rule allows it.
pub(crate) fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    match attributes {
        Attributes::Resource(wanted) => allows_resource(rule, wanted),
        Attributes::Path { verb, path } => {
            has(Some(&rule.verbs), verb)
                && rule.non_resource_urls.iter().flatten().any(|url| covers_url(url, path))
        }
    }
}

fn allows_resource(rule: &PolicyRule, wanted: &ResourceAttributes) -> bool {
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(Some(&rule.verbs), &wanted.verb)
        && has(rule.api_groups.as_ref(), &wanted.group)
        && covers_resource(rule, wanted)
        && (names.is_empty() || names.contains(&wanted.name))
}

fn covers_resource(rule: &PolicyRule, wanted: &ResourceAttributes) -> bool {
    let part: Cow<'_, str> = wanted.part();
    rule.resources.iter().flatten().any(|resource| {
        resource == "*"
            || *resource == part
            || (!wanted.subresource.is_empty()
                && resource.strip_prefix("*/") == Some(&wanted.subresource))
    })
}

fn has(values: Option<&Vec<String>>, wanted: &str) -> bool {
    values.into_iter().flatten().any(|value| value == "*" || value == wanted)
}

/// Whether a path of a rule, perhaps with a star at its end, is that path.
pub(crate) fn covers_url(rule: &str, path: &str) -> bool {
    rule == "*"
        || rule == path
        || rule.strip_suffix('*').is_some_and(|start| path.starts_with(start.trim_end_matches('*')))
}

#[cfg(test)]
mod tests;
