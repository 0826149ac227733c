//! Patches onto objects: which kind of patch goes which way.

use serde_json::Value;

use super::options::Patch;
use super::strategy::Kind;
use crate::object::Object;
use crate::status::Status;

/// The patched object.
pub(super) fn apply(_kind: &Kind, old: &Object, patch: &Patch) -> Result<Object, Status> {
    apply_plain(old, patch)
}

/// The patched object, for documents whose lists have no merge keys.
pub(super) fn apply_plain(old: &Object, patch: &Patch) -> Result<Object, Status> {
    let mut value: Value = old.value().clone();
    match patch {
        Patch::Json(patch) => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut value, &operations)
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
        Patch::Merge(patch) | Patch::Strategic(patch) => json_patch::merge(&mut value, patch),
    }
    Object::new(value).ok_or_else(|| Status::bad_request("a patch must leave an object"))
}
