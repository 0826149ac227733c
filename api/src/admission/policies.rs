//! [`Policies`]: ValidatingAdmissionPolicies where their bindings make them count.

mod noted;
pub(super) mod params;
pub(super) mod policy;

use std::sync::Arc;

use serde_json::Value;

use self::noted::Noted;
use self::params::params;
use self::policy::{Action, Binding, Bound, Policy, Validation, follow, name_variables};
use super::Admit;
use super::matching::{Seen, matched};
use super::review::{self, Asking, Shown};
use crate::cel::{Outcome, Variables};
use crate::crd;
use crate::followed::Followed;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::resources::{validating_admission_policy, validating_admission_policy_binding};
use crate::status::Status;

/// Holds writes against the policies of the store.
pub(super) struct Policies {
    bound: Arc<Followed<Vec<Bound<Policy>>>>,
    namespaces: Arc<Informer<Object>>,
}

/// Something that a policy says against a write.
struct Finding {
    message: String,
    reason: String,
    /// Which of its validations says so.
    place: usize,
}

impl Policies {
    pub(super) fn new(informers: &Informers, namespaces: Arc<Informer<Object>>) -> Self {
        let kinds =
            [&validating_admission_policy::KIND, &validating_admission_policy_binding::KIND];
        let bound = follow(informers, kinds, Policy::of);
        Self { bound, namespaces }
    }

    /// Waits until the policies are known.
    pub(super) async fn furnished(&self) {
        self.bound.made().await;
    }

    /// Refuses a write that a policy with the action Deny finds fault with; warns of others.
    pub(super) async fn validate(
        &self,
        admit: &Admit<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        let bound = self.bound.now();
        let mut noted = Noted::default();
        let held = self.hold_all(&bound, admit, object, &mut noted).await;
        noted.tell(admit.ctx);
        held
    }

    async fn hold_all(
        &self,
        bound: &[Bound<Policy>],
        admit: &Admit<'_>,
        object: Option<&Object>,
        noted: &mut Noted,
    ) -> Result<(), Status> {
        let seen = Seen { admit, object };
        for Bound { policy, bindings } in bound {
            let Some(kind) = self.wanted(policy, &seen).await else { continue };
            for binding in bindings {
                if binding.is_about(&seen, &self.namespaces).await {
                    self.hold(policy, binding, &seen, kind, noted).await?;
                }
            }
        }
        Ok(())
    }

    /// The kind as whose object a policy wants to see the write, if it is about it.
    async fn wanted(&self, policy: &Policy, seen: &Seen<'_>) -> Option<&'static Kind> {
        let kind =
            matched(seen, policy.scope.is_equivalent, |kind| policy.scope.is_about(seen, kind))?;
        policy.scope.selectors.select(seen, &self.namespaces).await.then_some(kind)
    }

    async fn hold(
        &self,
        policy: &Policy,
        binding: &Binding,
        seen: &Seen<'_>,
        kind: &'static Kind,
        noted: &mut Noted,
    ) -> Result<(), Status> {
        let refuse = |finding: &Finding| refusal(policy, binding, seen, finding);
        let params = match params(policy.param_kind.as_ref(), binding, seen).await {
            Ok(params) => params,
            Err(_) if policy.is_ignored_when_failing => return Ok(()),
            Err(why) => {
                let message = format!("failed to configure binding: {why}");
                return Err(refuse(&Finding { message, reason: String::new(), place: 0 }));
            }
        };
        let namespace = seen.namespace_object(&self.namespaces).await;
        for params in params {
            let found = evaluate(policy, seen, kind, namespace.as_deref(), &params, noted).await?;
            for finding in &found {
                for action in &binding.actions {
                    match action {
                        Action::Deny => return Err(refuse(finding)),
                        Action::Warn => seen.admit.ctx.warn(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding \
                             '{}': {}",
                            policy.name, binding.name, finding.message
                        )),
                        Action::Audit => noted.failure(policy, binding, finding),
                    }
                }
            }
        }
        Ok(())
    }
}

fn refusal(policy: &Policy, binding: &Binding, seen: &Seen<'_>, finding: &Finding) -> Status {
    let (kind, name) = (seen.admit.kind, seen.name());
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, finding.message
    );
    Status::forbidden(kind.group, kind.plural, name, &message)
        .for_reason(&finding.reason)
        .with_cause("", message, "")
}

/// What a policy says against a write.
async fn evaluate(
    policy: &Policy,
    seen: &Seen<'_>,
    kind: &'static Kind,
    namespace: Option<&Object>,
    params: &Value,
    noted: &mut Noted,
) -> Result<Vec<Finding>, Status> {
    let registry = seen.admit.registry;
    let mut both = [None, None];
    for (place, object) in both.iter_mut().zip([seen.object, seen.admit.old]) {
        if let Some(object) = object {
            *place = Some(crd::convert_one(registry, object.clone(), kind).await?);
        }
    }
    let [object, old] = &both;
    let shown = Shown { kind, object: object.as_ref(), old: old.as_ref() };
    let asking = Asking::about(seen.admit);
    let run = || {
        let mut variables = review::variables(seen, &shown, &asking);
        variables.set("namespaceObject", namespace.map_or(&Value::Null, Object::value));
        variables.set("params", params);
        judge(policy, &mut variables)
    };
    let (findings, notes) = asking.settle(run).await?;
    noted.extend(notes);
    Ok(findings)
}

/// What a policy says against a write that these variables describe, and what it notes.
fn judge(policy: &Policy, variables: &mut Variables) -> (Vec<Finding>, Noted) {
    let mut noted = Noted::default();
    let failed = |why: String| {
        let message = why;
        let found = Finding { message, reason: String::new(), place: 0 };
        if policy.is_ignored_when_failing { Vec::new() } else { vec![found] }
    };
    match policy.conditions.hold(variables) {
        Ok(true) => {}
        Ok(false) => return (Vec::new(), noted),
        Err(why) => return (failed(why), noted),
    }
    name_variables(&policy.variables, variables);
    let mut findings = Vec::new();
    for (place, validation) in policy.validations.iter().enumerate() {
        match validation.holds(variables) {
            Ok(true) => {}
            Ok(false) => findings.push(Finding {
                message: validation.message(variables),
                reason: validation.reason.clone(),
                place,
            }),
            Err(why) => findings.extend(failed(format!(
                "expression '{}' resulted in error: {why}",
                validation.text()
            ))),
        }
    }
    findings.extend(noted.annotations(policy, variables).into_iter().flat_map(failed));
    (findings, noted)
}

impl Validation {
    fn message(&self, variables: &Variables) -> String {
        let made = self.message_expression.as_ref().and_then(|made| match made.run(variables) {
            Ok(Outcome::String(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let fits = |text: &String| !text.is_empty() && !text.contains('\n');
        made.filter(fits)
            .or_else(|| Some(self.fixed_message.clone()).filter(|text| !text.is_empty()))
            .unwrap_or_else(|| format!("failed expression: {}", self.text()))
    }
}
