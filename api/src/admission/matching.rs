//! Which writes a webhook or a policy is about: rules, selectors and match conditions, as both have
//! them.

use serde_json::{Map, Value};

use super::{Admit, Operation};
use crate::cel::{Expression, Variables};
use crate::informer::Informer;
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::validation::labels;

/// A write as those outside see it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) admit: &'a Admit<'a>,
    /// The object as it is to be; nothing on a delete.
    pub(super) object: Option<&'a Object>,
}

impl<'a> Seen<'a> {
    /// The namespace, which of a namespace is its own name.
    pub(super) fn namespace(&self) -> &'a str {
        if self.is_namespace() { self.admit.name } else { self.admit.namespace }
    }

    /// The name, also one that was generated a moment ago.
    pub(super) fn name(&self) -> &'a str {
        match self.object {
            Some(object) if self.admit.name.is_empty() => object.name(),
            _ => self.admit.name,
        }
    }

    /// Whether it is about a namespace itself.
    pub(super) fn is_namespace(&self) -> bool {
        is_namespaces(self.admit.kind)
    }

    /// The operation in words.
    pub(super) fn operation(&self) -> &'static str {
        match self.admit.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    /// The namespace's object, where there is one.
    pub(super) async fn namespace_object(
        &self,
        namespaces: &Informer<Object>,
    ) -> Option<std::sync::Arc<Object>> {
        let name = self.namespace();
        if name.is_empty() {
            return None;
        }
        if self.is_namespace() && self.admit.operation != Operation::Delete {
            return self.object.cloned().map(std::sync::Arc::new);
        }
        if let Some(known) = namespaces.get("", name) {
            return Some(known);
        }
        let read = self.admit.registry.get(self.admit.ctx, namespaces.kind(), "", name).await;
        read.ok().map(std::sync::Arc::new)
    }
}

fn is_namespaces(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "namespaces"
}

/// Whether nobody outside is asked about this kind: else a webhook could lock out who repairs it.
pub(super) fn is_exempt(kind: &Kind) -> bool {
    kind.group == "admissionregistration.k8s.io"
}

/// One rule: operations on resources.
#[derive(Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

impl Rule {
    /// The rules of a list of them.
    pub(super) fn list(value: Option<&Value>) -> Vec<Self> {
        value.and_then(Value::as_array).into_iter().flatten().map(Self::of).collect()
    }

    fn of(value: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: value.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
        }
    }

    /// Whether it is about a write, taken for one of the objects as `kind` has them.
    pub(super) fn matches(&self, seen: &Seen<'_>, kind: &Kind) -> bool {
        let has =
            |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let is_cluster = seen.namespace().is_empty() || seen.is_namespace();
        let in_scope = match self.scope.as_str() {
            "Cluster" => is_cluster,
            "Namespaced" => !is_cluster,
            _ => true,
        };
        in_scope
            && has(&self.operations, seen.operation())
            && has(&self.groups, kind.group)
            && has(&self.versions, kind.version)
            && (self.names.is_empty() || self.names.iter().any(|name| name == seen.admit.name))
            && self
                .resources
                .iter()
                .any(|one| is_resource(one, kind.plural, seen.admit.subresource))
    }
}

/// `*` is every resource, `*/*` also every part of each, `pods/*` all of pods.
fn is_resource(wanted: &str, resource: &str, part: &str) -> bool {
    let (wanted, wanted_part) = wanted.split_once('/').unwrap_or((wanted, ""));
    let is_one = wanted == "*" || wanted == resource;
    is_one && (wanted_part == "*" || wanted_part == part)
}

/// The kind as whose write one is looked at: its own where the rules are about it, else, where
/// `Equivalent` ones count, another version of it that they are about.
pub(super) fn matched(
    seen: &Seen<'_>,
    is_equivalent: bool,
    are_about: impl Fn(&'static Kind) -> bool,
) -> Option<&'static Kind> {
    let own = seen.admit.kind;
    if are_about(own) {
        return Some(own);
    }
    if !is_equivalent || own.strategy.definition().is_none() {
        return None;
    }
    let custom = seen.admit.registry.scheme().custom();
    let same = |kind: &&&'static Kind| kind.storage == own.storage && kind.version != own.version;
    custom.served.iter().filter(same).copied().find(|kind| are_about(kind))
}

/// Whether a selector selects an object's labels; one that says nothing selects all.
fn selects(selector: &Value, object: &Object) -> bool {
    let nothing = Map::new();
    let own = object.at("/metadata/labels").and_then(Value::as_object).unwrap_or(&nothing);
    selector.is_null() || labels::selects_everything(selector) || labels::selects(selector, own)
}

/// The selectors of a webhook or a policy.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    namespace: Value,
    object: Value,
}

impl Selectors {
    /// Those of a document that has `namespaceSelector` and `objectSelector`.
    pub(super) fn of(value: &Value) -> Self {
        let part = |field: &str| value.get(field).cloned().unwrap_or_default();
        Self { namespace: part("namespaceSelector"), object: part("objectSelector") }
    }

    /// Whether both select.
    pub(super) async fn select(&self, seen: &Seen<'_>, namespaces: &Informer<Object>) -> bool {
        let all = self.namespace.is_null() || labels::selects_everything(&self.namespace);
        let in_namespace = all
            || match seen.namespace_object(namespaces).await {
                Some(namespace) => selects(&self.namespace, &namespace),
                None => seen.namespace().is_empty(),
            };
        let objects = [seen.object, seen.admit.old];
        let everything = self.object.is_null() || labels::selects_everything(&self.object);
        let of_object = || objects.into_iter().flatten().any(|one| selects(&self.object, one));
        in_namespace && (everything || of_object())
    }
}

/// What must be true beside, each with its name.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<(String, Result<Expression, String>)>);

impl Conditions {
    /// Those of a list that may name these variables.
    pub(super) fn of(list: Option<&Value>, variables: &[&str]) -> Self {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let each = |value: &Value| {
            let expression = Expression::compile(&text(value, "expression"), variables);
            (text(value, "name"), expression)
        };
        Self(list.map(each).collect())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that is false wins over those that fail.
    pub(super) fn hold(&self, variables: &Variables) -> Result<bool, String> {
        let mut failed = None;
        for (name, expression) in &self.0 {
            let found = match expression {
                Ok(expression) => expression.is_true(variables),
                Err(why) => Err(why.clone()),
            };
            match found {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => {
                    failed.get_or_insert(format!("error evaluating condition {name:?}: {why}"));
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_their_parts_are_told_apart() {
        let table = [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/status", "pods", "", false),
            ("*", "pods", "", true),
            ("*", "pods", "attach", false),
            ("*/*", "pods", "attach", true),
            ("*/*", "pods", "", true),
            ("pods/*", "pods", "exec", true),
            ("pods/*", "services", "", false),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
        ];
        for (wanted, resource, part, expected) in table {
            assert_eq!(is_resource(wanted, resource, part), expected, "{wanted} {resource}/{part}");
        }
    }
}
