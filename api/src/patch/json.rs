//! JSON patch, bounded: in the number of operations, and in what copies may add up to.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// Most operations of one patch.
pub const OPERATIONS_MAX: usize = 10_000;
/// Most bytes that the copies of one patch may make.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The object after the operations; one that fails takes all back.
pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        )));
    }
    let operations: Vec<PatchOperation> = serde::Deserialize::deserialize(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut value = current.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&value).map_or(0, |source| source.to_string().len());
            if copied > COPIED_BYTES_MAX {
                return Err(PatchError::TooLarge(format!(
                    "the copies of a JSON patch may make {COPIED_BYTES_MAX} bytes at most"
                )));
            }
        }
        json_patch::patch(&mut value, std::slice::from_ref(operation))
            .map_err(|error| refused(index, operation, &error.kind))?;
    }
    Ok(value)
}

fn refused(index: usize, operation: &PatchOperation, kind: &PatchErrorKind) -> PatchError {
    let path = operation.path();
    match kind {
        PatchErrorKind::TestFailed => {
            PatchError::Untrue(format!("testing value {path} failed: test failed"))
        }
        other => {
            PatchError::Rejected(format!("operation {index} at {path:?} does not apply: {other}"))
        }
    }
}
