//! [`Policy`] and [`Binding`]: what their objects say, ready to be held against writes.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::admission::matching::{Conditions, Rule, Seen, Selectors};
use crate::cel::{Expression, Variables};
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::resources::validating_admission_policy::variables;

/// Which writes something is about.
pub(super) struct Match {
    /// `None` is all.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    pub(super) is_equivalent: bool,
    pub(super) selectors: Selectors,
}

impl Match {
    fn of(value: &Value) -> Self {
        let rules = Rule::list(value.get("resourceRules"));
        Self {
            rules: Some(rules).filter(|rules| !rules.is_empty()),
            excluded: Rule::list(value.get("excludeResourceRules")),
            is_equivalent: value.get("matchPolicy").and_then(Value::as_str) != Some("Exact"),
            selectors: Selectors::of(value),
        }
    }

    /// Whether its rules are about a write, taken for one of this kind's.
    pub(super) fn is_about(&self, seen: &Seen<'_>, kind: &Kind) -> bool {
        let any = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(seen, kind));
        self.rules.as_deref().is_none_or(any) && !any(&self.excluded)
    }
}

/// One thing that must be true.
pub(super) struct Validation {
    expression: Result<Expression, String>,
    text: String,
    pub(super) fixed_message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: String,
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
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is true.
    pub(super) fn holds(&self, variables: &Variables) -> Result<bool, String> {
        self.expression.as_ref().map_err(Clone::clone)?.is_true(variables)
    }
}

/// A policy.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) scope: Match,
    pub(super) conditions: Conditions,
    /// In their order, each with its name.
    pub(super) variables: Vec<(String, Result<Expression, String>)>,
    pub(super) validations: Vec<Validation>,
    /// What it notes in the audit log, each under its key.
    pub(super) annotations: Vec<(String, Result<Expression, String>)>,
    /// `apiVersion` and `kind`.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) is_ignored_when_failing: bool,
}

impl Policy {
    fn of(object: &Object) -> Self {
        let list =
            |pointer: &str| object.at(pointer).and_then(Value::as_array).into_iter().flatten();
        let kind = object.str_at("/spec/paramKind/kind");
        let version = object.str_at("/spec/paramKind/apiVersion");
        let names = variables(true);
        let named = |value: &Value, name: &str, expression: &str| {
            let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
            (text(name).to_owned(), Expression::compile(text(expression), &names))
        };
        Self {
            name: object.name().to_owned(),
            scope: Match::of(object.at("/spec/matchConstraints").unwrap_or(&Value::Null)),
            conditions: Conditions::of(object.at("/spec/matchConditions"), &names),
            variables: list("/spec/variables")
                .map(|value| named(value, "name", "expression"))
                .collect(),
            validations: list("/spec/validations")
                .map(|value| Validation::of(value, &names))
                .collect(),
            annotations: list("/spec/auditAnnotations")
                .map(|value| named(value, "key", "valueExpression"))
                .collect(),
            param_kind: (!kind.is_empty()).then(|| (version.to_owned(), kind.to_owned())),
            is_ignored_when_failing: object.str_at("/spec/failurePolicy") == "Ignore",
        }
    }
}

/// What comes of a write that breaks a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is refused.
    Deny,
    /// Its client is told.
    Warn,
    /// It is written down.
    Audit,
}

impl Action {
    /// As bindings name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

/// Which objects set a policy's parameters.
pub(super) struct ParamRef {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) selector: Option<Value>,
    /// Whether a write is refused while there is none.
    pub(super) is_needed: bool,
}

/// Where a policy counts.
pub(super) struct Binding {
    pub(super) name: String,
    policy: String,
    pub(super) scope: Option<Match>,
    pub(super) params: Option<ParamRef>,
    pub(super) actions: Vec<Action>,
}

impl Binding {
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
pub(super) struct Bound {
    pub(super) policy: Arc<Policy>,
    pub(super) bindings: Vec<Binding>,
}

/// The policies at the versions at which they were last seen, compiled.
#[derive(Default)]
pub(super) struct Known(HashMap<String, (String, Arc<Policy>)>);

impl Known {
    /// The policies that any binding makes count, by name.
    pub(super) fn bound(
        &mut self,
        policies: &[Arc<Object>],
        bindings: &[Arc<Object>],
    ) -> Vec<Bound> {
        let mut of_policy: HashMap<String, Vec<Binding>> = HashMap::new();
        for binding in bindings {
            let binding = Binding::of(binding);
            of_policy.entry(binding.policy.clone()).or_default().push(binding);
        }
        let (mut all, mut known) = (Vec::new(), HashMap::new());
        for object in policies {
            let version = object.resource_version();
            let policy = match self.0.remove(object.name()) {
                Some((seen, policy)) if seen == version => policy,
                _ => Arc::new(Policy::of(object)),
            };
            if let Some(mut bindings) = of_policy.remove(object.name()) {
                bindings.sort_by(|a, b| a.name.cmp(&b.name));
                all.push(Bound { policy: Arc::clone(&policy), bindings });
            }
            known.insert(object.name().to_owned(), (version.to_owned(), policy));
        }
        self.0 = known;
        all.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
        all
    }
}
