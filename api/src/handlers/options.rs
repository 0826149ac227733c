//! The options of writes, as far as they can be wrong.

use crate::fields::MANAGER_BYTES_MAX;
use crate::query::Query;
use crate::request_info::Verb;
use crate::status::{FieldError, Status};

/// Checks the options of a create or an update.
pub(super) fn check_write(query: &Query, verb: Verb) -> Result<(), Status> {
    let kind = if verb == Verb::Create { "CreateOptions" } else { "UpdateOptions" };
    refuse(kind, field_manager(query))
}

/// Checks the options of a patch.
pub(super) fn check_patch(query: &Query, is_apply: bool) -> Result<(), Status> {
    let mut errors = Vec::new();
    if !is_apply && query.has("force") {
        let why = "may not be specified for non-apply patch";
        errors.push(FieldError::forbidden("force", why));
    }
    if is_apply && query.get("fieldManager").is_empty() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    errors.extend(field_manager(query));
    refuse("PatchOptions", errors)
}

fn field_manager(query: &Query) -> Vec<FieldError> {
    let manager = query.get("fieldManager");
    let mut errors = Vec::new();
    if manager.len() > MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES_MAX));
    }
    if let Some((index, _)) = manager.char_indices().find(|(_, letter)| letter.is_control()) {
        let why = "should only contain printable characters";
        errors.push(FieldError::invalid(format!("fieldManager[{index}]"), manager, why));
    }
    errors
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("meta.k8s.io", kind, "", &errors))
}
