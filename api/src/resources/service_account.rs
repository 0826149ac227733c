//! ServiceAccount: who a pod is.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::table::{self, AGE, NAME};

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "serviceaccounts",
    subresources: &[Subresource::TOKEN],
    verbs: ALL_VERBS,
    strategy: &ServiceAccount,
};

static COLUMNS: [Column; 3] =
    [NAME, table::text("Secrets", "How many secrets its pods may mount."), AGE];

#[derive(Debug)]
struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let secrets = object.at("/secrets").and_then(Value::as_array).map_or(0, Vec::len);
        vec![object.name().into(), secrets.into(), table::age(object, now)]
    }
}
