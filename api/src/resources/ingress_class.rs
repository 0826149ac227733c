//! IngressClass: who serves an Ingress.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE};
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "ingressclasses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &IngressClass,
};

const CONTROLLER_MAX_BYTES: usize = 250;

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Controller", "Controller that is responsible for handling this class"),
    table::text("Parameters", "A reference to a resource with additional parameters"),
    AGE,
];

#[derive(Debug)]
struct IngressClass;

impl Strategy for IngressClass {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        if object.at("/spec/parameters").is_some_and(Value::is_object) {
            object.set_default(&["spec", "parameters", "scope"], "Cluster");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let controller = spec.at("controller");
            match controller.str().split_once('/') {
                _ if controller.str().is_empty() => errors.required(&controller, ""),
                Some((host, path)) if !host.is_empty() && !path.is_empty() => {
                    for problem in names::dns1123_subdomain(host) {
                        errors.invalid_value(&controller, host, problem);
                    }
                }
                _ => errors.invalid(
                    &controller,
                    "must be a domain-prefixed path (such as \"acme.io/foo\")",
                ),
            }
            if controller.len() > CONTROLLER_MAX_BYTES {
                errors.too_long(&controller, CONTROLLER_MAX_BYTES);
            }
            let parameters = spec.at("parameters");
            if parameters.is_set() {
                for field in ["kind", "name"] {
                    if parameters.at(field).str().is_empty() {
                        errors.required(&parameters.at(field), format!("{field} is required"));
                    }
                }
                errors.one_of(&parameters.at("scope"), &["Cluster", "Namespace"]);
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("controller"), &old.at("controller"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let part = |field: &str| object.str_at(&format!("/spec/parameters/{field}"));
        let parameters = match (part("kind"), part("apiGroup")) {
            ("", _) => NONE.to_owned(),
            (kind, "") => format!("{kind}/{}", part("name")),
            (kind, group) => format!("{kind}.{group}/{}", part("name")),
        };
        vec![
            object.name().into(),
            object.str_at("/spec/controller").into(),
            parameters.into(),
            table::age(object, now),
        ]
    }
}
