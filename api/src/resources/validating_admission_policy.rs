//! ValidatingAdmissionPolicy: what writes must fulfil, in CEL. What comes of it is in
//! [`crate::admission`].

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admission_rules::{expression, fill_match, match_conditions, match_resources};
use super::{KINDS, check, defaults};
use crate::cel::{AUTHORIZER, Expression, VARIABLES};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "validatingadmissionpolicies",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &ValidatingAdmissionPolicy,
};

/// The most kinds whose types a policy is held against.
const KINDS_MAX: usize = 10;

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

static COLUMNS: [Column; 4] = [
    NAME,
    table::integer("Validations", "Validations indicates the number of validation rules defined."),
    table::text("ParamKind", "ParamKind specifies the kind of resources used to parameterize it."),
    AGE,
];

#[derive(Debug)]
struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn default(&self, object: &mut Object) {
        let Some(spec) = defaults::child(object.value_mut(), "spec") else { return };
        defaults::fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = defaults::child(spec, "matchConstraints") {
            fill_match(constraints);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        checked(object);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        self.prepare_update_default(object, old);
        if object.generation() != old.generation() {
            checked(object);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| check_spec(errors, &root.at("spec")))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let validations = object.at("/spec/validations").and_then(Value::as_array);
        let version = object.str_at("/spec/paramKind/apiVersion");
        let params = match object.str_at("/spec/paramKind/kind") {
            "" => "<unset>".to_owned(),
            kind => format!("{version}/{kind}"),
        };
        vec![
            object.name().into(),
            validations.map_or(0, Vec::len).into(),
            params.into(),
            table::age(object, now),
        ]
    }
}

/// Its expressions have been compiled, and held against the types of the kinds that they are about:
/// what does not compile is refused, what cannot be right for a kind is warned of.
fn checked(object: &mut Object) {
    let warnings = warnings(object);
    let generation = object.generation();
    object.set(&["status", "observedGeneration"], generation);
    let checking =
        if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) };
    object.set(&["status", "typeChecking"], checking);
}

/// What is warned of, each with its place.
fn warnings(policy: &Object) -> Vec<Value> {
    let kinds = kinds(policy);
    let known = variables(policy.at("/spec/paramKind").is_some_and(|kind| !kind.is_null()));
    let validations = policy.at("/spec/validations").and_then(Value::as_array);
    let mut warnings = Vec::new();
    for (index, validation) in validations.into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.get(field).and_then(Value::as_str).unwrap_or_default();
            let Ok(expression) = Expression::compile(text, &known) else { continue };
            let found: Vec<String> =
                kinds.iter().filter_map(|kind| warning(&expression, kind, text)).collect();
            if !found.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({ "fieldRef": place, "warning": found.join("\n") }));
            }
        }
    }
    warnings
}

fn warning(expression: &Expression, kind: &Kind, text: &str) -> Option<String> {
    let problems = expression.problems(kind);
    let problems = problems.iter().map(|problem| {
        format!("ERROR: <input>:1:1: {problem}\n | {}\n | ^", text.lines().next().unwrap_or(""))
    });
    let problems: Vec<String> = problems.collect();
    let what = format!("{}, Kind={}", kind.api_version(), kind.kind);
    (!problems.is_empty()).then(|| format!("{what}: {}", problems.join("\n")))
}

/// The built-in kinds that a policy names, without those it may mean by a `*`.
fn kinds(policy: &Object) -> Vec<&'static Kind> {
    let rules = policy.at("/spec/matchConstraints/resourceRules").and_then(Value::as_array);
    let mut kinds = Vec::new();
    for rule in rules.into_iter().flatten() {
        let has = |field: &str, wanted: &str| {
            let list = rule.get(field).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|one| one == wanted))
        };
        let named = KINDS.iter().copied().filter(|kind| {
            has("apiGroups", kind.group)
                && has("apiVersions", kind.version)
                && has("resources", kind.plural)
        });
        kinds.extend(named);
    }
    kinds.truncate(KINDS_MAX);
    kinds
}

/// The names that a policy's expressions have.
pub(crate) fn variables(has_params: bool) -> Vec<&'static str> {
    let params = has_params.then_some("params");
    VARIABLES.into_iter().chain(["variables"]).chain(params).collect()
}

fn check_spec(errors: &mut Errors, spec: &At<'_>) {
    errors.optional_one_of(&spec.at("failurePolicy"), &["Fail", "Ignore"]);
    let params = spec.at("paramKind");
    check_param_kind(errors, &params);
    let constraints = spec.at("matchConstraints");
    if !constraints.is_set() {
        errors.required(&constraints, "");
    } else if constraints.at("resourceRules").is_empty() {
        errors.required(&constraints.at("resourceRules"), "");
    }
    match_resources(errors, &constraints);
    let names = variables(params.is_set());
    // Conditions come before the variables are.
    let early: Vec<&str> = names.iter().copied().filter(|name| *name != "variables").collect();
    match_conditions(errors, &spec.at("matchConditions"), &early);
    check_variables(errors, &spec.at("variables"), &names);
    let (validations, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.required(&validations, "validations or auditAnnotations must be non-empty");
        errors.required(&annotations, "validations or auditAnnotations must be non-empty");
    }
    for validation in validations.items() {
        check_validation(errors, &validation, &names);
    }
    for annotation in annotations.items() {
        if annotation.at("key").str().is_empty() {
            errors.required(&annotation.at("key"), "");
        }
        expression(errors, &annotation.at("valueExpression"), &names);
    }
}

/// What is wrong with the kind of a policy's parameters.
pub(super) fn check_param_kind(errors: &mut Errors, params: &At<'_>) {
    for field in ["apiVersion", "kind"] {
        if params.is_set() && params.at(field).str().is_empty() {
            errors.required(&params.at(field), "");
        }
    }
}

/// What is wrong with a policy's own variables.
pub(super) fn check_variables(errors: &mut Errors, variables: &At<'_>, names: &[&str]) {
    let mut seen = BTreeSet::new();
    for variable in variables.items() {
        let name = variable.at("name");
        let is_identifier = names::http_header_name(name.str()).is_empty()
            && !name.str().contains(['-', '.'])
            && !name.str().starts_with(|first: char| first.is_ascii_digit());
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !is_identifier {
            errors.invalid(&name, "name is not a valid CEL identifier");
        } else if !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
        expression(errors, &variable.at("expression"), names);
    }
}

fn check_validation(errors: &mut Errors, validation: &At<'_>, names: &[&str]) {
    expression(errors, &validation.at("expression"), names);
    let message = validation.at("message");
    if message.str().contains('\n') {
        errors.invalid(&message, "message must not contain line breaks");
    }
    let made = validation.at("messageExpression");
    if !made.str().is_empty() {
        let names: Vec<&str> = names.iter().copied().filter(|name| *name != AUTHORIZER).collect();
        expression(errors, &made, &names);
    }
    errors.optional_one_of(&validation.at("reason"), &REASONS);
}
