//! Patches onto objects: which kind of patch goes which way.

use super::options::Patch;
use super::strategy::Kind;
use crate::object::Object;
use crate::patch::{self, PatchType};
use crate::schema::{Gvk, Type};
use crate::status::Status;

/// The patched object.
pub(super) fn apply(kind: &Kind, old: &Object, patch: &Patch) -> Result<Object, Status> {
    apply_as(Gvk::new(kind.group, kind.version, kind.kind), old, patch)
}

/// The patched object, a document of this kind.
pub(super) fn apply_as(gvk: Gvk<'_>, old: &Object, patch: &Patch) -> Result<Object, Status> {
    let (kind, content) = match patch {
        Patch::Json(content) => (PatchType::Json, content),
        Patch::Merge(content) => (PatchType::Merge, content),
        Patch::Strategic(content) => (PatchType::Strategic, content),
    };
    let patched = patch::apply(kind, old.value(), content, Type::of_kind(gvk))?;
    Object::new(patched).ok_or_else(|| Status::internal("a patched object must be one"))
}
