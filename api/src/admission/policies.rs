//! [`Policies`]: ValidatingAdmissionPolicies where their bindings make them count.

mod noted;
mod policy;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use self::noted::Noted;
use self::policy::{Action, Binding, Bound, Known, Policy, Validation};
use super::Admit;
use super::followed::Followed;
use super::matching::{Seen, matched};
use super::review::{self, Shown};
use crate::cel::{Outcome, Variables};
use crate::crd;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::registry::options::ListOptions;
use crate::registry::strategy::Kind;
use crate::resources::{validating_admission_policy, validating_admission_policy_binding};
use crate::selectors::LabelSelector;
use crate::status::Status;

/// Holds writes against the policies of the store.
pub(super) struct Policies {
    bound: Arc<Followed<Vec<Bound>>>,
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
        let bound = Arc::new(Followed::default());
        let sources = vec![
            informers.objects(&validating_admission_policy::KIND),
            informers.objects(&validating_admission_policy_binding::KIND),
        ];
        let mut known = Known::default();
        let make = move |lists: Vec<Vec<Arc<Object>>>| known.bound(&lists[0], &lists[1]);
        let task = Arc::clone(&bound);
        informers.attend(|stop| task.follow(sources, make, stop));
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
        bound: &[Bound],
        admit: &Admit<'_>,
        object: Option<&Object>,
        noted: &mut Noted,
    ) -> Result<(), Status> {
        let seen = Seen { admit, object };
        for Bound { policy, bindings } in bound {
            let Some(kind) = self.wanted(policy, &seen).await else { continue };
            for binding in bindings {
                if self.is_in(binding, &seen).await {
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

    async fn is_in(&self, binding: &Binding, seen: &Seen<'_>) -> bool {
        let Some(scope) = &binding.scope else { return true };
        matched(seen, scope.is_equivalent, |kind| scope.is_about(seen, kind)).is_some()
            && scope.selectors.select(seen, &self.namespaces).await
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
        let params = match params(policy, binding, seen).await {
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
    let mut variables = review::variables(seen, &shown);
    variables.set("namespaceObject", namespace.map_or(&Value::Null, Object::value));
    variables.set("params", params);
    let failed = |why: String| {
        let message = why;
        let found = Finding { message, reason: String::new(), place: 0 };
        if policy.is_ignored_when_failing { Vec::new() } else { vec![found] }
    };
    match policy.conditions.hold(&variables) {
        Ok(true) => {}
        Ok(false) => return Ok(Vec::new()),
        Err(why) => return Ok(failed(why)),
    }
    name_variables(policy, &mut variables);
    let mut findings = Vec::new();
    for (place, validation) in policy.validations.iter().enumerate() {
        match validation.holds(&variables) {
            Ok(true) => {}
            Ok(false) => findings.push(Finding {
                message: validation.message(&variables),
                reason: validation.reason.clone(),
                place,
            }),
            Err(why) => findings.extend(failed(format!(
                "expression '{}' resulted in error: {why}",
                validation.text()
            ))),
        }
    }
    findings.extend(noted.annotations(policy, &variables).into_iter().flat_map(failed));
    Ok(findings)
}

/// Gives a policy's own variables their values, each seeing those before it. One that fails is not
/// there: who uses it fails as well.
fn name_variables(policy: &Policy, variables: &mut Variables) {
    let mut values: HashMap<String, Outcome> = HashMap::new();
    variables.set_all("variables", &values);
    for (name, expression) in &policy.variables {
        if let Ok(value) = expression.as_ref().map_err(Clone::clone).and_then(|e| e.run(variables))
        {
            values.insert(name.clone(), value);
            variables.set_all("variables", &values);
        }
    }
}

/// The objects by which a binding sets a policy's parameters; null where it has none. The error says
/// why they cannot be told.
async fn params(policy: &Policy, binding: &Binding, seen: &Seen<'_>) -> Result<Vec<Value>, String> {
    let (Some((api_version, name)), Some(wanted)) = (&policy.param_kind, &binding.params) else {
        return Ok(vec![Value::Null]);
    };
    let registry = seen.admit.registry;
    let kind = registry.scheme().kind_of(api_version, name).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={name}'")
    })?;
    let own = seen.namespace();
    let namespace = match (kind.is_namespaced(), wanted.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                .to_owned());
        }
        (true, "") if own.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => own,
        (true, namespace) => namespace,
    };
    let ctx = seen.admit.ctx;
    let found = match &wanted.selector {
        Some(selector) => {
            let selector = LabelSelector::from_value(selector).unwrap_or_default().to_string();
            let options = ListOptions::labels(selector);
            registry.list(ctx, kind, namespace, &options).await.map(|list| list.items)
        }
        None => match registry.get(ctx, kind, namespace, &wanted.name).await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other.map(|object| vec![object]),
        },
    };
    let found = found.map_err(|error| error.message().to_owned())?;
    if found.is_empty() && wanted.is_needed {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
        );
    }
    Ok(found.into_iter().map(Object::into_value).collect())
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
