//! Lease: who holds something, and since when.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "leases",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Lease,
};

static COLUMNS: [Column; 3] = [NAME, table::text("Holder", "Who holds it."), AGE];

#[derive(Debug)]
struct Lease;

impl Strategy for Lease {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let duration = spec.at("leaseDurationSeconds");
            if duration.int().is_some_and(|seconds| seconds <= 0) {
                errors.invalid(&duration, "must be greater than 0");
            }
            non_negative(errors, &spec.at("leaseTransitions"));
            let strategy = spec.at("strategy");
            let preferred = spec.at("preferredHolder");
            if strategy.is_set() && strategy.str().is_empty() {
                errors.invalid(&strategy, "must not be empty");
            }
            if !preferred.str().is_empty() && strategy.str().is_empty() {
                errors.forbidden(&preferred, "may only be specified if `strategy` is defined");
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at("/spec/holderIdentity").into(),
            table::age(object, now),
        ]
    }
}
