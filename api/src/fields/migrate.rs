//! From `kubectl apply`, which keeps what it applied in an annotation, to `kubectl apply
//! --server-side`.

use serde_json::Value;

use super::compare::Comparison;
use super::owned::owned;
use super::place::Place;
use super::set::Set;
use crate::object::Object;

/// The only manager that client-side apply is taken over by.
pub(super) const KUBECTL: &str = "kubectl";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The paths that were applied by the client and are still as they were applied: what they are is
/// in conflict with nobody. Empty where nothing was applied that way.
pub(super) fn unchanged_since_client_side(live: &Object, place: Place) -> Set {
    let Some(Ok(last)) = live.annotation(LAST_APPLIED).map(serde_json::from_str::<Value>) else {
        return Set::default();
    };
    let changed = Comparison::of(&last, live.value(), place);
    owned(&last, place)
        .difference(&changed.modified)
        .difference(&changed.added)
        .difference(&changed.removed)
}

/// Keeps the annotation current where there is one, so that the client can go back.
pub(super) fn keep_last_applied(applied: &mut Object, config: &Object) {
    if applied.annotation(LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    config.remove(&["metadata", "managedFields"]);
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    let text = format!("{}\n", config.value());
    applied.set(&["metadata", "annotations", LAST_APPLIED], text);
}
