//! ValidatingAdmissionPolicyBinding: where a policy counts, with which parameters, and what comes of
//! a write that breaks it.

use jiff::Timestamp;
use serde_json::Value;

use super::admission_rules::{fill_match, match_resources};
use super::{check, defaults};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;

/// The kind.
pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "validatingadmissionpolicybindings",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &ValidatingAdmissionPolicyBinding,
};

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("PolicyName", "PolicyName indicates the policy definition which it is bound to."),
    table::text("ParamRef", "ParamRef indicates the param resource which sets the parameters."),
    AGE,
];

#[derive(Debug)]
struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn has_status(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = defaults::child(object.value_mut(), "spec") else { return };
        if let Some(resources) = defaults::child(spec, "matchResources") {
            fill_match(resources);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| check_spec(errors, &root.at("spec")))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at("/spec/policyName").into(),
            params_in_a_word(object).into(),
            table::age(object, now),
        ]
    }
}

/// What a table shows of a binding's parameters.
pub(super) fn params_in_a_word(object: &Object) -> String {
    let (namespace, name) =
        (object.str_at("/spec/paramRef/namespace"), object.str_at("/spec/paramRef/name"));
    let has_selector = object.at("/spec/paramRef/selector").is_some_and(Value::is_object);
    match (namespace, name) {
        (_, "") if has_selector => "<selector>".to_owned(),
        (_, "") => "<unset>".to_owned(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

fn check_spec(errors: &mut Errors, spec: &At<'_>) {
    let policy = spec.at("policyName");
    errors.required_form(&policy, crate::validation::names::dns1123_subdomain);
    check_params(errors, &spec.at("paramRef"));
    match_resources(errors, &spec.at("matchResources"));
    let actions = spec.at("validationActions");
    if actions.is_empty() {
        errors.required(&actions, "");
    }
    let mut seen = std::collections::BTreeSet::new();
    for action in actions.items() {
        errors.optional_one_of(&action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.str().to_owned()) {
            errors.duplicate(&action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(&actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
}

/// What is wrong with which objects set the parameters.
pub(super) fn check_params(errors: &mut Errors, params: &At<'_>) {
    if !params.is_set() {
        return;
    }
    let (name, selector) = (params.at("name"), params.at("selector"));
    if !name.str().is_empty() && selector.is_set() {
        errors.forbidden(&name, "name and selector are mutually exclusive");
    } else if name.str().is_empty() && !selector.is_set() {
        errors.required(params, "one of name or selector must be specified");
    }
    label_selector(errors, &selector);
    errors.one_of(&params.at("parameterNotFoundAction"), &["Allow", "Deny"]);
}
