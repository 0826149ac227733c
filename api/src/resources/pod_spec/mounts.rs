//! Where containers see volumes.

use std::collections::BTreeSet;

use super::containers::Surroundings;
use super::volumes::{no_backsteps, relative_path};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// The mounts of a container.
pub fn volume_mounts(errors: &mut Errors, container: &At<'_>, around: &Surroundings<'_>) {
    let (at, devices) = (container.at("volumeMounts"), container.at("volumeDevices"));
    let mut mounted = BTreeSet::new();
    for mount in at.items() {
        let (name, path) = (mount.at("name"), mount.at("mountPath"));
        if name.str().is_empty() {
            errors.required(&name, "");
        }
        if !around.volumes.contains_key(name.str()) {
            errors.not_found(&name);
        }
        if path.str().is_empty() {
            errors.required(&path, "");
        }
        if !mounted.insert(path.str().to_owned()) {
            errors.invalid_value(&path, path.str(), "must be unique");
        }
        if devices.items().any(|device| device.at("name").str() == name.str()) {
            errors.invalid(&name, "must not already exist in volumeDevices");
        }
        if devices.items().any(|device| device.at("devicePath").str() == path.str()) {
            errors.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        sub_paths(errors, &mount);
        propagation(errors, container, &mount);
    }
}

fn sub_paths(errors: &mut Errors, mount: &At<'_>) {
    let (path, expression) = (mount.at("subPath"), mount.at("subPathExpr"));
    if !path.str().is_empty() {
        relative_path(errors, &path);
    }
    if !expression.str().is_empty() {
        if !path.str().is_empty() {
            errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        relative_path(errors, &expression);
    }
}

fn propagation(errors: &mut Errors, container: &At<'_>, mount: &At<'_>) {
    let at = mount.at("mountPropagation");
    errors.optional_one_of(&at, &["Bidirectional", "HostToContainer", "None"]);
    let context = container.at("securityContext");
    if at.str() == "Bidirectional" && !context.at("privileged").is_true() {
        errors.forbidden(
            &at,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

/// The block devices of a container.
pub fn volume_devices(errors: &mut Errors, container: &At<'_>, around: &Surroundings<'_>) {
    let (at, mounts) = (container.at("volumeDevices"), container.at("volumeMounts"));
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in at.items() {
        let (name, path) = (device.at("name"), device.at("devicePath"));
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !names.insert(name.str().to_owned()) {
            errors.invalid(&name, "must be unique");
        }
        match around.volumes.get(name.str()) {
            None => errors.not_found(&name),
            Some(volume) => {
                if volume.get("persistentVolumeClaim").is_none()
                    && volume.get("ephemeral").is_none()
                {
                    errors.invalid(
                        &name,
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral for \
                         block mode",
                    );
                }
            }
        }
        if path.str().is_empty() {
            errors.required(&path, "");
        } else if !no_backsteps(path.str()) {
            errors.invalid(&path, "can not contain backsteps ('..')");
        } else if !paths.insert(path.str().to_owned()) {
            errors.invalid(&path, "must be unique");
        }
        if mounts.items().any(|mount| mount.at("name").str() == name.str()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if mounts.items().any(|mount| mount.at("mountPath").str() == path.str()) {
            errors.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}
