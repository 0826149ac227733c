//! [`PodSecurity`]: pods may do only what their namespace's labels let them. `enforce` refuses pods,
//! `warn` tells who writes pods, or what makes pods; `audit` tells the audit log.

mod baseline;
mod policy;
mod restricted;
mod spec;

use async_trait::async_trait;
use serde_json::Value;

use super::{Admit, Operation, Plugin};
use crate::object::Object;
use crate::registry::options::{Freshness, ListOptions};
use crate::resources::{namespace, pod};
use crate::status::Status;
use policy::{Level, Limit, Policy};
use spec::Pod;

/// The parts of a pod whose writes are looked at: its containers are in no other.
const PARTS: [&str; 2] = ["", "ephemeralcontainers"];
/// How many pods of a namespace are looked at when its labels change, as upstream has it.
const PODS_MAX: u64 = 3000;

/// Holds pods to the standards of their namespaces.
#[derive(Debug)]
pub struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        if !matches!(admit.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        match (admit.kind.group, admit.kind.plural, admit.subresource) {
            ("", "namespaces", "") => of_namespace(admit, object).await,
            ("", "pods", part) if PARTS.contains(&part) => of_pod(admit, object).await,
            (_, _, "") => {
                let Some(template) = template_of(admit, object) else { return Ok(()) };
                let policy = policy_of(admit).await?;
                let pod = Pod::of_template(template);
                note(admit, &policy, &pod);
                warn(admit, &policy, &pod);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The pods that an object makes.
fn template_of<'o>(admit: &Admit<'_>, object: &'o Object) -> Option<&'o Value> {
    let pointer = match (admit.kind.group, admit.kind.plural) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.at(pointer)
}

async fn policy_of(admit: &Admit<'_>) -> Result<Policy, Status> {
    let kind = &namespace::KIND;
    let found =
        admit.registry.get_fresh(admit.ctx, kind, "", admit.namespace, Freshness::Any).await?;
    Ok(Policy::of(&found).0)
}

async fn of_pod(admit: &Admit<'_>, object: &Object) -> Result<(), Status> {
    if admit.old.is_some_and(|old| !matters(object, old)) {
        return Ok(());
    }
    let policy = policy_of(admit).await?;
    let pod = Pod::of_object(object);
    admit.ctx.annotate(format!("{}enforce-policy", policy::PREFIX), policy.enforce.to_string());
    note(admit, &policy, &pod);
    let violations = violations(&policy.enforce, &pod);
    if violations.is_empty() {
        warn(admit, &policy, &pod);
        return Ok(());
    }
    let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, in_full(&violations));
    Err(Status::forbidden(admit.kind.group, admit.kind.plural, object.name(), why))
}

/// Whether a change can make a pod violate what it did not violate before.
fn matters(object: &Object, old: &Object) -> bool {
    let images = |object: &Object| -> Vec<(String, String)> {
        let pod = Pod::of_object(object);
        let image = |container: &Value| {
            let text = |field| container[field].as_str().unwrap_or_default().to_owned();
            (text("name"), text("image"))
        };
        pod.containers().map(image).collect()
    };
    let profiles = |object: &Object| -> Vec<(String, String)> {
        let annotations = object.annotations();
        let own = annotations.iter().filter(|(key, _)| key.contains(".security."));
        own.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    images(object) != images(old) || profiles(object) != profiles(old)
}

/// Tells the audit log what would be refused if the audited standard were the enforced one.
fn note(admit: &Admit<'_>, policy: &Policy, pod: &Pod<'_>) {
    let violations = violations(&policy.audit, pod);
    if !violations.is_empty() {
        let all = in_full(&violations);
        let text = format!("would violate PodSecurity \"{}\": {all}", policy.audit);
        admit.ctx.annotate(format!("{}audit-violations", policy::PREFIX), text);
    }
}

fn warn(admit: &Admit<'_>, policy: &Policy, pod: &Pod<'_>) {
    let violations = violations(&policy.warn, pod);
    if !violations.is_empty() {
        let all = in_full(&violations);
        admit.ctx.warn(format!("would violate PodSecurity \"{}\": {all}", policy.warn));
    }
}

async fn of_namespace(admit: &Admit<'_>, object: &Object) -> Result<(), Status> {
    let (policy, errors) = Policy::of(object);
    let old = admit.old.map(Policy::of);
    let had_them = old.as_ref().is_some_and(|(_, old)| *old == errors);
    if !errors.is_empty() && !had_them {
        return Err(Status::invalid("", admit.kind.kind, object.name(), &errors));
    }
    if !old.is_some_and(|(old, _)| policy.enforce.is_tighter_than(&old.enforce)) {
        return Ok(());
    }
    for warning in of_pods_there(admit, object.name(), &policy.enforce).await? {
        admit.ctx.warn(warning);
    }
    Ok(())
}

/// What is to say about the pods that a namespace has already: they stay.
async fn of_pods_there(
    admit: &Admit<'_>,
    namespace: &str,
    limit: &Limit,
) -> Result<Vec<String>, Status> {
    let options =
        ListOptions { freshness: Freshness::Any, limit: PODS_MAX, ..ListOptions::default() };
    let pods = admit.registry.list(admit.ctx, &pod::KIND, namespace, &options).await?.items;
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for pod in &pods {
        let found = violations(limit, &Pod::of_object(pod));
        let reasons: Vec<&str> = found.iter().map(|one| one.reason.as_str()).collect();
        let reasons = reasons.join(", ");
        match groups.iter_mut().find(|(known, _)| *known == reasons) {
            _ if reasons.is_empty() => {}
            Some((_, names)) => names.push(pod.name()),
            None => groups.push((reasons, vec![pod.name()])),
        }
    }
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut warnings = vec![format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \
         \"{limit}\""
    )];
    warnings.extend(groups.iter().map(|(reasons, names)| match names[..] {
        [name] => format!("{name}: {reasons}"),
        [name, _] => format!("{name} (and 1 other pod): {reasons}"),
        _ => format!("{} (and {} other pods): {reasons}", names[0], names.len() - 1),
    }));
    Ok(warnings)
}

/// What a pod does and may not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

fn in_full(violations: &[Violation]) -> String {
    let all: Vec<String> =
        violations.iter().map(|one| format!("{} ({})", one.reason, one.detail)).collect();
    all.join(", ")
}

fn violations(limit: &Limit, pod: &Pod<'_>) -> Vec<Violation> {
    let version = limit.version.minor();
    match limit.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::check(pod, version, &[]),
        Level::Restricted => {
            let mut all = baseline::check(pod, version, &restricted::overrides(version));
            all.extend(restricted::check(pod, version));
            all
        }
    }
}

#[cfg(test)]
mod tests;
