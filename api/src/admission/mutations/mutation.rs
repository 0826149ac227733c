//! [`Policy`] and [`Mutation`]: what a MutatingAdmissionPolicy says, ready to be done.

use serde_json::{Map, Value};

use crate::admission::matching::Conditions;
use crate::admission::policies::policy::{self, Match};
use crate::cel::{Expression, Outcome, Variables, Yields};
use crate::fields;
use crate::object::Object;
use crate::patch::{self, PatchError, PatchType};
use crate::registry::strategy::Kind;
use crate::resources::validating_admission_policy::variables;
use crate::schema::Gvk;
use crate::status::Status;

/// A policy.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) scope: Match,
    pub(super) conditions: Conditions,
    /// In their order, each with its name.
    pub(super) variables: Vec<(String, Result<Expression, String>)>,
    pub(super) mutations: Vec<Mutation>,
    /// `apiVersion` and `kind`.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) is_ignored_when_failing: bool,
    pub(super) wants_again: bool,
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
            variables: policy::variables_of(object, &names),
            mutations: list("/spec/mutations").map(|one| Mutation::of(one, &names)).collect(),
            param_kind: policy::param_kind_of(object),
            is_ignored_when_failing: object.str_at("/spec/failurePolicy") == "Ignore",
            wants_again: object.str_at("/spec/reinvocationPolicy") == "IfNeeded",
        }
    }
}

/// One patch that is made by an expression.
pub(super) struct Mutation {
    yields: Yields,
    expression: Result<Expression, String>,
}

impl Mutation {
    fn of(value: &Value, names: &[&str]) -> Self {
        let (field, yields) = match value.get("patchType").and_then(Value::as_str) {
            Some("JSONPatch") => ("/jsonPatch/expression", Yields::Patch),
            _ => ("/applyConfiguration/expression", Yields::Object),
        };
        let text = value.pointer(field).and_then(Value::as_str).unwrap_or_default();
        Self { yields, expression: Expression::making(text, names, yields) }
    }

    /// The object as it is with the patch.
    pub(super) fn apply(
        &self,
        object: &Object,
        kind: &Kind,
        variables: &Variables,
    ) -> Result<Value, String> {
        let expression = self.expression.as_ref().map_err(Clone::clone)?;
        let made = expression.run(variables)?;
        self.yields.check(&made)?;
        match self.yields {
            Yields::Object => configured(object, kind, &made),
            Yields::Patch => patched(object, &made),
        }
    }
}

fn configured(object: &Object, kind: &Kind, made: &Outcome) -> Result<Value, String> {
    let mut config = crate::cel::to_json(made)?;
    if let Value::Object(fields) = &mut config {
        fields.insert("apiVersion".to_owned(), object.api_version().into());
        fields.insert("kind".to_owned(), object.kind().into());
    }
    let (api_version, name) = (object.api_version(), object.kind());
    let is_whole = name == kind.kind && api_version == kind.api_version();
    let place =
        if is_whole { kind.place() } else { fields::Place::of_kind(Gvk::parse(api_version, name)) };
    fields::configure(place, object.value(), &config)
        .map_err(|why| format!("error applying patch: {why}"))
}

fn patched(object: &Object, made: &Outcome) -> Result<Value, String> {
    let steps = crate::cel::to_json(made)?;
    let steps: Vec<Value> = steps.as_array().into_iter().flatten().map(step).collect();
    match patch::apply(PatchType::Json, object.value(), &Value::from(steps), None) {
        Ok(patched) => Ok(patched),
        // What a test of it does not find is left as it is.
        Err(PatchError::Untrue(_)) => Ok(object.value().clone()),
        Err(error) => Err(format!("JSONPath: {}", Status::from(error).message())),
    }
}

/// What is not set is not there.
fn step(made: &Value) -> Value {
    let fields = made.as_object().into_iter().flatten();
    let set = fields.filter(|(field, value)| *field != "from" || *value != "");
    Value::Object(set.map(|(field, value)| (field.clone(), value.clone())).collect::<Map<_, _>>())
}
