//! Ephemeral containers: added to a pod that is there, never changed and never taken away.

use crate::object::Object;
use crate::resources::pod::update::{MIRROR, differences};
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};

/// Of the new pod only its ephemeral containers count, and the revision that it was read at.
pub fn prepare(object: &mut Object, old: &Object) {
    let asked = object.at("/spec/ephemeralContainers").cloned();
    let version = object.resource_version().to_owned();
    let managed = object.at("/metadata/managedFields").cloned();
    *object = old.clone();
    match asked {
        Some(asked) => object.set(&["spec", "ephemeralContainers"], asked),
        None => drop(object.remove(&["spec", "ephemeralContainers"])),
    }
    object.set_meta("resourceVersion", version);
    if let Some(managed) = managed {
        object.set_meta("managedFields", managed);
    }
}

/// What was there must still be there, as it was.
pub fn validate(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    if new.at("metadata").at("annotations").key(MIRROR).is_set() {
        return errors.forbidden(new, "static pods do not support ephemeral containers");
    }
    let (new, old) = (new.at("spec"), old.at("spec"));
    let (new, old) = (new.at("ephemeralContainers"), old.at("ephemeralContainers"));
    for before in old.items() {
        let name = before.at("name").str().to_owned();
        let Some(after) = new.items().find(|after| after.at("name").str() == name) else {
            let why = format!("existing ephemeral containers {name:?} may not be removed\n");
            errors.forbidden(&new, why);
            continue;
        };
        if !same(before.value(), after.value()) {
            let changes = differences(before.value(), after.value());
            let why =
                format!("existing ephemeral containers {name:?} may not be changed\n{changes}");
            errors.forbidden(&new, why);
        }
    }
}
