//! [`Policy`] and [`Binding`]: what their objects say, ready to be held against writes.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::admission::matching::{Conditions, Rule, Seen, Selectors, matched};
use crate::cel::{Expression, Outcome, Variables};
use crate::followed::Followed;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::resources::validating_admission_policy::variables;

/// Which writes something is about.
pub(in crate::admission) struct Match {
    /// `None` is all.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    pub(in crate::admission) is_equivalent: bool,
    pub(in crate::admission) selectors: Selectors,
}

impl Match {
    pub(in crate::admission) fn of(value: &Value) -> Self {
        let rules = Rule::list(value.get("resourceRules"));
        Self {
            rules: Some(rules).filter(|rules| !rules.is_empty()),
            excluded: Rule::list(value.get("excludeResourceRules")),
            is_equivalent: value.get("matchPolicy").and_then(Value::as_str) != Some("Exact"),
            selectors: Selectors::of(value),
        }
    }

    /// Whether its rules are about a write, taken for one of this kind's.
    pub(in crate::admission) fn is_about(&self, seen: &Seen<'_>, kind: &Kind) -> bool {
        let any = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(seen, kind));
        self.rules.as_deref().is_none_or(any) && !any(&self.excluded)
    }
}

/// One thing that must be true.
pub(in crate::admission) struct Validation {
    expression: Result<Expression, String>,
    text: String,
    pub(in crate::admission) fixed_message: String,
    pub(in crate::admission) message_expression: Option<Expression>,
    pub(in crate::admission) reason: String,
}

impl Validation {
    fn of(value: &Value, names: &[&str]) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        Self {
            expression: Expression::compile(text("expression"), names),
            text: text("expression").trim().to_owned(),
            fixed_message: text("message").trim().to_owned(),
            message_expression: Expression::compile(text("messageExpression"), names).ok(),
            reason: text("reason").to_owned(),
        }
    }

    /// Its expression.
    pub(in crate::admission) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is true.
    pub(in crate::admission) fn holds(&self, variables: &Variables) -> Result<bool, String> {
        self.expression.as_ref().map_err(Clone::clone)?.is_true(variables)
    }
}

/// A policy.
pub(in crate::admission) struct Policy {
    pub(in crate::admission) name: String,
    pub(in crate::admission) scope: Match,
    pub(in crate::admission) conditions: Conditions,
    /// In their order, each with its name.
    pub(in crate::admission) variables: Vec<(String, Result<Expression, String>)>,
    pub(in crate::admission) validations: Vec<Validation>,
    /// What it notes in the audit log, each under its key.
    pub(in crate::admission) annotations: Vec<(String, Result<Expression, String>)>,
    /// `apiVersion` and `kind`.
    pub(in crate::admission) param_kind: Option<(String, String)>,
    pub(in crate::admission) is_ignored_when_failing: bool,
}

impl Policy {
    pub(super) fn of(object: &Object) -> Self {
        let list =
            |pointer: &str| object.at(pointer).and_then(Value::as_array).into_iter().flatten();
        let names = variables(true);
        Self {
            name: object.name().to_owned(),
            scope: Match::of(object.at("/spec/matchConstraints").unwrap_or(&Value::Null)),
            conditions: Conditions::of(object.at("/spec/matchConditions"), &names),
            variables: variables_of(object, &names),
            validations: list("/spec/validations")
                .map(|value| Validation::of(value, &names))
                .collect(),
            annotations: list("/spec/auditAnnotations")
                .map(|value| named(value, "key", "valueExpression", &names))
                .collect(),
            param_kind: param_kind_of(object),
            is_ignored_when_failing: object.str_at("/spec/failurePolicy") == "Ignore",
        }
    }
}

/// An expression with its name.
pub(in crate::admission) type Named = (String, Result<Expression, String>);

fn named(value: &Value, name: &str, expression: &str, names: &[&str]) -> Named {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    (text(name).to_owned(), Expression::compile(text(expression), names))
}

/// A policy's own variables, in their order.
pub(in crate::admission) fn variables_of(policy: &Object, names: &[&str]) -> Vec<Named> {
    let list = policy.at("/spec/variables").and_then(Value::as_array).into_iter().flatten();
    list.map(|value| named(value, "name", "expression", names)).collect()
}

/// `apiVersion` and `kind` of a policy's parameters, where it has any.
pub(in crate::admission) fn param_kind_of(policy: &Object) -> Option<(String, String)> {
    let kind = policy.str_at("/spec/paramKind/kind");
    let version = policy.str_at("/spec/paramKind/apiVersion");
    (!kind.is_empty()).then(|| (version.to_owned(), kind.to_owned()))
}

/// Gives a policy's own variables their values, each seeing those before it. One that fails is not
/// there: who uses it fails as well.
pub(in crate::admission) fn name_variables(
    all: &[(String, Result<Expression, String>)],
    variables: &mut Variables,
) {
    let mut values: HashMap<String, Outcome> = HashMap::new();
    variables.set_all("variables", &values);
    for (name, expression) in all {
        if let Ok(value) = expression.as_ref().map_err(Clone::clone).and_then(|e| e.run(variables))
        {
            values.insert(name.clone(), value);
            variables.set_all("variables", &values);
        }
    }
}

/// What comes of a write that breaks a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) enum Action {
    /// It is refused.
    Deny,
    /// Its client is told.
    Warn,
    /// It is written down.
    Audit,
}

impl Action {
    /// As bindings name it.
    pub(in crate::admission) fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

/// Which objects set a policy's parameters.
pub(in crate::admission) struct ParamRef {
    pub(in crate::admission) namespace: String,
    pub(in crate::admission) name: String,
    pub(in crate::admission) selector: Option<Value>,
    /// Whether a write is refused while there is none.
    pub(in crate::admission) is_needed: bool,
}

/// Where a policy counts.
pub(in crate::admission) struct Binding {
    pub(in crate::admission) name: String,
    policy: String,
    pub(in crate::admission) scope: Option<Match>,
    pub(in crate::admission) params: Option<ParamRef>,
    pub(in crate::admission) actions: Vec<Action>,
}

impl Binding {
    /// Whether it makes its policy count for a write.
    pub(in crate::admission) async fn is_about(
        &self,
        seen: &Seen<'_>,
        namespaces: &Informer<Object>,
    ) -> bool {
        let Some(scope) = &self.scope else { return true };
        matched(seen, scope.is_equivalent, |kind| scope.is_about(seen, kind)).is_some()
            && scope.selectors.select(seen, namespaces).await
    }

    fn of(object: &Object) -> Self {
        let text = |pointer: &str| object.str_at(pointer).to_owned();
        let actions = object.at("/spec/validationActions").and_then(Value::as_array);
        let action = |value: &Value| match value.as_str()? {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        };
        let has_params = object.at("/spec/paramRef").is_some_and(Value::is_object);
        Self {
            name: object.name().to_owned(),
            policy: text("/spec/policyName"),
            scope: object.at("/spec/matchResources").filter(|one| one.is_object()).map(Match::of),
            params: has_params.then(|| ParamRef {
                namespace: text("/spec/paramRef/namespace"),
                name: text("/spec/paramRef/name"),
                selector: object.at("/spec/paramRef/selector").filter(|s| s.is_object()).cloned(),
                is_needed: object.str_at("/spec/paramRef/parameterNotFoundAction") != "Allow",
            }),
            actions: actions.into_iter().flatten().filter_map(action).collect(),
        }
    }
}

/// A policy with its bindings.
pub(in crate::admission) struct Bound<P> {
    pub(in crate::admission) policy: Arc<P>,
    pub(in crate::admission) bindings: Vec<Binding>,
}

/// The policies at the versions at which they were last seen, compiled.
struct Known<P>(HashMap<String, (String, Arc<P>)>);

impl<P> Default for Known<P> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// The policies that bindings make count, compiled anew whenever the store's change: `kinds` are
/// theirs and their bindings'.
pub(in crate::admission) fn follow<P: Send + Sync + 'static>(
    informers: &Informers,
    kinds: [&'static Kind; 2],
    make: impl Fn(&Object) -> P + Send + 'static,
) -> Arc<Followed<Vec<Bound<P>>>> {
    let bound: Arc<Followed<Vec<Bound<P>>>> = Arc::default();
    let sources = kinds.map(|kind| informers.objects(kind)).to_vec();
    let mut known = Known::default();
    let made = move |lists: Vec<Vec<Arc<Object>>>| known.bound(&lists[0], &lists[1], &make);
    let task = Arc::clone(&bound);
    informers.attend(|stop| task.follow(sources, made, stop));
    bound
}

impl<P> Known<P> {
    /// The policies that any binding makes count, by name.
    fn bound(
        &mut self,
        policies: &[Arc<Object>],
        bindings: &[Arc<Object>],
        make: impl Fn(&Object) -> P,
    ) -> Vec<Bound<P>> {
        let mut of_policy: HashMap<String, Vec<Binding>> = HashMap::new();
        for binding in bindings {
            let binding = Binding::of(binding);
            of_policy.entry(binding.policy.clone()).or_default().push(binding);
        }
        let (mut all, mut known) = (Vec::new(), HashMap::new());
        let mut sorted: Vec<&Arc<Object>> = policies.iter().collect();
        sorted.sort_by(|a, b| a.name().cmp(b.name()));
        for object in sorted {
            let version = object.resource_version();
            let policy = match self.0.remove(object.name()) {
                Some((seen, policy)) if seen == version => policy,
                _ => Arc::new(make(object)),
            };
            if let Some(mut bindings) = of_policy.remove(object.name()) {
                bindings.sort_by(|a, b| a.name.cmp(&b.name));
                all.push(Bound { policy: Arc::clone(&policy), bindings });
            }
            known.insert(object.name().to_owned(), (version.to_owned(), policy));
        }
        self.0 = known;
        all
    }
}
