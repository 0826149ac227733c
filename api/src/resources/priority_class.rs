//! PriorityClass: which pods go before which.

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};

/// The kind.
pub static KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "priorityclasses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &PriorityClass,
};

/// What is above this is for the cluster itself.
const VALUE_MAX: i64 = 1_000_000_000;
/// The prefix of the cluster's own classes.
const SYSTEM_PREFIX: &str = "system-";
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

static COLUMNS: [Column; 5] = [
    NAME,
    table::integer("Value", "The number: pods with more go first."),
    Column {
        kind: "boolean",
        ..table::text("Global-Default", "Whether pods without a class have it.")
    },
    AGE,
    table::wide("PreemptionPolicy", "Whether its pods push others off."),
];

#[derive(Debug)]
struct PriorityClass;

impl Strategy for PriorityClass {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.set_default(&["preemptionPolicy"], "PreemptLowerPriority");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let metadata = root.at("metadata");
            let (name, value) = (metadata.at("name"), root.at("value"));
            let known = (name.str(), value.int_or_zero());
            if name.str().starts_with(SYSTEM_PREFIX) {
                if !SYSTEM.contains(&known) {
                    errors.forbidden(
                        &name,
                        format!(
                            "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for \
                             system use only. error: {} is not a known system priority class",
                            name.str()
                        ),
                    );
                }
            } else if value.int_or_zero() > VALUE_MAX {
                errors.forbidden(
                    &value,
                    format!("maximum allowed value of a user defined priority is {VALUE_MAX}"),
                );
            }
            let policy = root.at("preemptionPolicy");
            errors.optional_one_of(&policy, &["PreemptLowerPriority", "Never"]);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (value, before) = (new.at("value"), old.at("value"));
            if value.int_or_zero() != before.int_or_zero() {
                errors.forbidden(&value, "may not be changed in an update.");
            }
            errors.immutable(&new.at("preemptionPolicy"), &old.at("preemptionPolicy"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            table::count(object, "/value"),
            object.bool_at("/globalDefault").into(),
            table::age(object, now),
            object.str_at("/preemptionPolicy").into(),
        ]
    }
}
