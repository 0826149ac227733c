//! Between the versions of a definition.

use crate::object::Object;
use crate::registry::Registry;
use crate::registry::strategy::Kind;
use crate::status::Status;

/// An object as another version of its kind has it. What is not of that kind stays as it is: the
/// document of a part.
pub(crate) async fn convert_one(
    _registry: &Registry,
    mut object: Object,
    to: &'static Kind,
) -> Result<Object, Status> {
    let api_version = to.api_version();
    if object.kind() == to.kind && object.api_version() != api_version {
        object.set_type(&api_version, to.kind);
    }
    Ok(object)
}
