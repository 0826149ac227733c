//! PodDisruptionBudget: how many pods may be missing on purpose.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::labels::label_selector;
use crate::validation::numbers::{non_negative_int_or_percent, not_more_than_all};

/// The kind.
pub static KIND: Kind = Kind {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "poddisruptionbudgets",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &PodDisruptionBudget,
};

static COLUMNS: [Column; 5] = [
    NAME,
    table::text("Min Available", "The minimum number of pods that must be available."),
    table::text("Max Unavailable", "The maximum number of pods that may be unavailable."),
    table::integer(
        "Allowed Disruptions",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    AGE,
];

#[derive(Debug)]
struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn initial_status(&self) -> Value {
        serde_json::json!({
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "disruptionsAllowed": 0,
            "expectedPods": 0,
        })
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let (least, most) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
            if least.is_set() && most.is_set() {
                errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
            }
            for count in [&least, &most] {
                non_negative_int_or_percent(errors, count);
                not_more_than_all(errors, count);
            }
            label_selector(errors, &spec.at("selector"));
            let policy = spec.at("unhealthyPodEvictionPolicy");
            errors.optional_one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"]);
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let shown = |pointer: &str| match object.at(pointer) {
            None | Some(Value::Null) => Value::from("N/A"),
            Some(Value::String(text)) => text.clone().into(),
            Some(number) => number.to_string().into(),
        };
        vec![
            object.name().into(),
            shown("/spec/minAvailable"),
            shown("/spec/maxUnavailable"),
            table::count(object, "/status/disruptionsAllowed"),
            table::age(object, now),
        ]
    }
}
