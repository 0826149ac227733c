//! Resizing: what the containers of a pod ask for changes while they run, and nothing else does.

use serde_json::{Map, Value};

use super::qos;
use crate::object::Object;
use crate::resources::defaults::each;
use crate::resources::pod::update::{MIRROR, differences};
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const RESIZED: [&str; 2] = ["resources", "resizePolicy"];
const MUTABLE: [&str; 2] = ["cpu", "memory"];
const ONLY_MUTABLE: &str = "only cpu and memory resources are mutable";

/// Of the new pod only its containers' resources count, and the revision that it was read at.
/// Containers that are not those of the old pod stay, for the validation to find.
pub fn prepare(object: &mut Object, old: &Object) {
    let asked = std::mem::replace(object, old.clone());
    object.remove(&["metadata", "resourceVersion"]);
    if let Some(version) = asked.at("/metadata/resourceVersion") {
        object.set_meta("resourceVersion", version.clone());
    }
    if let Some(managed) = asked.at("/metadata/managedFields") {
        object.set_meta("managedFields", managed.clone());
    }
    for list in LISTS {
        let path = format!("/spec/{list}");
        if names(asked.at(&path)) == names(old.at(&path)) {
            let spec = object.value_mut().pointer_mut("/spec");
            let new = asked.at(&path).and_then(Value::as_array).into_iter().flatten();
            for (container, new) in spec.into_iter().flat_map(|spec| each(spec, list)).zip(new) {
                for field in RESIZED {
                    take_over(container, new, field);
                }
            }
        } else if let Some(new) = asked.at(&path) {
            object.set(&["spec", list], new.clone());
        } else {
            object.remove(&["spec", list]);
        }
    }
}

fn names(list: Option<&Value>) -> Vec<&str> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.map(|container| container["name"].as_str().unwrap_or_default()).collect()
}

fn take_over(into: &mut Value, from: &Value, field: &str) {
    let Some(into) = into.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => into.insert(field.to_owned(), value.clone()),
        None => into.remove(field),
    };
}

/// The rules of a resize.
pub fn validate(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    if old.at("metadata").at("annotations").key(MIRROR).is_set() {
        return errors.forbidden(new, "static pods cannot be resized");
    }
    let spec = new.at("spec");
    if old.at("spec").at("os").at("name").str() == "windows" {
        return errors.forbidden(new, "windows pods cannot be resized");
    }
    let status = old.at("status");
    let class = status.at("qosClass");
    if qos::class(new.value()).as_str() != class.str() {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.invalid_value(&spec, class.str(), why);
    }
    if !is_supported(&status) {
        errors.forbidden(&spec, "Pod running on node without support for resize");
    }
    if !same_containers(errors, &spec, &old.at("spec")) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (new, old) in spec.at(list).items().zip(old.at("spec").at(list).items()) {
            nothing_removed(errors, &new.at("resources"), &old.at("resources"));
        }
    }
    only_mutable(errors, &spec, &old.at("spec"));
}

/// A node that can resize says what the containers have that it runs.
fn is_supported(status: &At<'_>) -> bool {
    let statuses = status.at("containerStatuses");
    let running = statuses.items().find(|status| status.at("state").at("running").is_set());
    running.is_none_or(|running| running.at("resources").is_set())
}

fn same_containers(errors: &mut Errors, new: &At<'_>, old: &At<'_>) -> bool {
    let mut is_same = true;
    for list in LISTS {
        let (new, old) = (new.at(list), old.at(list));
        if new.len() != old.len() {
            errors.forbidden(&new, format!("{list} may not be added or removed on resize"));
            is_same = false;
            continue;
        }
        for (new, old) in new.items().zip(old.items()) {
            if new.at("name").str() != old.at("name").str() {
                let why = format!("{list} may not be renamed or reordered on resize");
                errors.forbidden(&new.at("name"), why);
                is_same = false;
            }
        }
    }
    is_same
}

fn nothing_removed(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        let (new, old) = (new.at(list), old.at(list));
        if old.entries().any(|(name, _)| !new.key(name).is_set()) {
            errors.forbidden(&new, format!("resource {what} cannot be removed"));
        }
    }
}

/// With the old amounts in the place of the new ones there is no difference left.
fn only_mutable(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let mut rest = new.value().clone();
    let before = |list: &str| old.value().get(list).and_then(Value::as_array).into_iter().flatten();
    let mut is_forbidden = false;
    for (container, old) in each(&mut rest, "containers").zip(before("containers")) {
        put_amounts_back(container, old);
        if !same(container, old) {
            errors.forbidden(new, ONLY_MUTABLE);
            is_forbidden = true;
        }
    }
    for (container, old) in each(&mut rest, "initContainers").zip(before("initContainers")) {
        if old["restartPolicy"] == "Always" {
            put_amounts_back(container, old);
            if !same(container, old) {
                errors.forbidden(new, ONLY_MUTABLE);
                is_forbidden = true;
            }
        } else if !same(container, old) {
            let why = "resources for non-sidecar init containers are immutable";
            errors.forbidden(new, why);
            is_forbidden = true;
        }
    }
    if !is_forbidden && !same(&rest, old.value()) {
        let changes = differences(old.value(), &rest);
        errors.forbidden(new, format!("{ONLY_MUTABLE}\n{changes}"));
    }
}

fn put_amounts_back(container: &mut Value, old: &Value) {
    for list in ["requests", "limits"] {
        let before = old.pointer(&format!("/resources/{list}"));
        let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
            continue;
        };
        let amounts = resources.entry(list).or_insert_with(|| Value::Object(Map::new()));
        let Some(amounts) = amounts.as_object_mut() else { continue };
        for name in MUTABLE {
            match before.and_then(|before| before.get(name)) {
                Some(amount) => amounts.insert(name.to_owned(), amount.clone()),
                None => amounts.remove(name),
            };
        }
    }
}

#[cfg(test)]
mod tests;
