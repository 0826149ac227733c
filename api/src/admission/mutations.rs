//! [`Mutations`]: MutatingAdmissionPolicies where their bindings make them count.
//!
//! Which policies are about a write is decided by the object as it was sent; each then sees what
//! those before it have made of it. Who wants to see what others did later is asked once more.

mod mutation;

use std::sync::Arc;

use serde_json::Value;

use self::mutation::Policy;
use super::Admit;
use super::matching::{Seen, matched};
use super::policies::params::params;
use super::policies::policy::{Bound, follow, name_variables};
use super::review::{self, Asking, Shown};
use super::webhooks::{both, settled};
use crate::cel::Variables;
use crate::crd;
use crate::followed::Followed;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::resources::{mutating_admission_policy, mutating_admission_policy_binding};
use crate::status::Status;

/// Changes writes as the policies of the store say.
pub(super) struct Mutations {
    bound: Arc<Followed<Vec<Bound<Policy>>>>,
    namespaces: Arc<Informer<Object>>,
}

/// A policy as one binding has it, with one set of parameters.
struct Invocation {
    policy: Arc<Policy>,
    binding: String,
    kind: &'static Kind,
    params: Value,
}

/// What policies have done to an object.
#[derive(Default)]
pub(super) struct Mutated {
    /// Whether it is another now.
    pub(super) is_changed: bool,
    /// Those who want to be asked again, with the object as they left it.
    left: Vec<(Invocation, Object)>,
}

/// What went wrong, where that is not to be ignored.
#[derive(Default)]
struct Errors(Vec<(String, &'static str)>);

impl Mutations {
    pub(super) fn new(informers: &Informers, namespaces: Arc<Informer<Object>>) -> Self {
        let kinds = [&mutating_admission_policy::KIND, &mutating_admission_policy_binding::KIND];
        let bound = follow(informers, kinds, Policy::of);
        Self { bound, namespaces }
    }

    /// Waits until the policies are known.
    pub(super) async fn furnished(&self) {
        self.bound.made().await;
    }

    /// Lets the policies change the object; on a delete there is none, and nothing to do.
    pub(super) async fn mutate(
        &self,
        admit: &Admit<'_>,
        object: Option<&mut Object>,
    ) -> Result<Mutated, Status> {
        let (bound, mut done) = (self.bound.now(), Mutated::default());
        let Some(object) = object.filter(|_| !bound.is_empty()) else { return Ok(done) };
        let mut errors = Errors::default();
        let about = self.about(&bound, &Seen { admit, object: Some(&*object) }, &mut errors).await;
        for invocation in about {
            done.is_changed |= self.invoke(&invocation, admit, object, &mut errors).await?;
            if invocation.policy.wants_again {
                done.left.push((invocation, object.clone()));
            }
        }
        errors.refuse(admit, object)?;
        Ok(done)
    }

    /// Asks those again who want it where others have changed the object since.
    pub(super) async fn mutate_again(
        &self,
        admit: &Admit<'_>,
        object: &mut Object,
        done: Mutated,
    ) -> Result<(), Status> {
        let mut errors = Errors::default();
        for (invocation, left) in done.left {
            if *object != left {
                self.invoke(&invocation, admit, object, &mut errors).await?;
            }
        }
        errors.refuse(admit, object)
    }

    /// The policies that are about a write, with their parameters.
    async fn about(
        &self,
        bound: &[Bound<Policy>],
        seen: &Seen<'_>,
        errors: &mut Errors,
    ) -> Vec<Invocation> {
        let mut about = Vec::new();
        for Bound { policy, bindings } in bound {
            let scope = &policy.scope;
            let kind = matched(seen, scope.is_equivalent, |kind| scope.is_about(seen, kind));
            let Some(kind) = kind else { continue };
            if !scope.selectors.select(seen, &self.namespaces).await {
                continue;
            }
            for binding in bindings {
                if !binding.is_about(seen, &self.namespaces).await {
                    continue;
                }
                match params(policy.param_kind.as_ref(), binding, seen).await {
                    Ok(all) => about.extend(all.into_iter().map(|params| Invocation {
                        policy: Arc::clone(policy),
                        binding: binding.name.clone(),
                        kind,
                        params,
                    })),
                    Err(why) => {
                        let why = format!("failed to configure binding: {why}");
                        errors.add(policy, &binding.name, &why, "");
                    }
                }
            }
        }
        about
    }

    /// Whether it changed the object.
    async fn invoke(
        &self,
        invocation: &Invocation,
        admit: &Admit<'_>,
        object: &mut Object,
        errors: &mut Errors,
    ) -> Result<bool, Status> {
        let (policy, kind) = (&invocation.policy, invocation.kind);
        let namespace = {
            let seen = Seen { admit, object: Some(&*object) };
            seen.namespace_object(&self.namespaces).await
        };
        let before = object.clone();
        for (place, mutation) in policy.mutations.iter().enumerate() {
            let seen = Seen { admit, object: Some(&*object) };
            let (Some(shown), old) = both(&seen, kind).await? else { return Ok(false) };
            let of = Shown { kind, object: Some(&shown), old: old.as_ref() };
            let asking = Asking::about(admit);
            let run = || {
                let mut variables = review::variables(&seen, &of, &asking);
                let namespace = namespace.as_deref().map_or(&Value::Null, Object::value);
                variables.set("namespaceObject", namespace);
                variables.set("params", &invocation.params);
                Ok::<_, String>(invocation.holds(place, &variables)?.then(|| {
                    name_variables(&policy.variables, &mut variables);
                    mutation.apply(&shown, kind, &variables)
                }))
            };
            let made = match asking.settle(run).await? {
                Ok(None) => return Ok(false),
                Ok(Some(made)) => made,
                Err(why) => {
                    errors.add(policy, &invocation.binding, &why, "Invalid");
                    return Ok(false);
                }
            };
            match made.and_then(|value| settled(&shown, value, kind)) {
                Ok(made) => *object = crd::convert_one(admit.registry, made, admit.kind).await?,
                Err(why) => errors.add(policy, &invocation.binding, &why, "Invalid"),
            }
        }
        Ok(*object != before)
    }
}

impl Invocation {
    /// Whether its conditions hold, which is asked before the first of its mutations.
    fn holds(&self, place: usize, variables: &Variables) -> Result<bool, String> {
        if place > 0 { Ok(true) } else { self.policy.conditions.hold(variables) }
    }
}

impl Errors {
    fn add(&mut self, policy: &Policy, binding: &str, why: &str, reason: &'static str) {
        if policy.is_ignored_when_failing {
            tracing::warn!(policy = policy.name, binding, why, "a policy failed: to be ignored");
            return;
        }
        let name = &policy.name;
        let message = format!("policy '{name}' with binding '{binding}' denied request: {why}");
        self.0.push((message, reason));
    }

    /// Refuses the write where anything went wrong.
    fn refuse(self, admit: &Admit<'_>, object: &Object) -> Result<(), Status> {
        let Some((message, reason)) = self.0.first() else { return Ok(()) };
        let name = Seen { admit, object: Some(object) }.name();
        let about = (admit.kind.group, admit.kind.plural, name);
        let refusal = Status::forbidden_by(about, message, reason);
        Err(self.0.iter().fold(refusal, |status, (message, _)| status.with_cause("", message, "")))
    }
}
