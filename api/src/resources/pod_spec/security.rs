//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use super::volumes::relative_path;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

const SYSCTL_REGEX: &str =
    "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const PROFILE_PATH_MAX_BYTES: usize = 4095;

/// The context of a pod.
pub fn pod_context(errors: &mut Errors, spec: &At<'_>) {
    let at = spec.at("securityContext");
    ids(errors, &at, &["fsGroup", "runAsUser", "runAsGroup"]);
    for group in at.at("supplementalGroups").items() {
        errors.invalid_each(&group, names::user_id(group.int_or_zero()));
    }
    let share = spec.at("shareProcessNamespace");
    if share.is_true() && spec.at("hostPID").is_true() {
        errors.invalid(
            &at.at("shareProcessNamespace").with(share.value()),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(errors, spec, &at.at("sysctls"));
    for (field, allowed) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        errors.optional_one_of(&at.at(field), &allowed);
    }
    profiles(errors, &at);
    if spec.at("hostUsers").value() == false {
        for (field, name) in
            [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if spec.at(field).is_true() {
                errors.forbidden(&spec.at(name), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

/// The context of a container.
pub fn container_context(errors: &mut Errors, at: &At<'_>, host_users: bool) {
    if !at.is_set() {
        return;
    }
    ids(errors, at, &["runAsUser", "runAsGroup"]);
    let mount = at.at("procMount");
    errors.optional_one_of(&mount, &["Default", "Unmasked"]);
    if host_users && mount.str() == "Unmasked" {
        errors.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
    }
    if at.at("allowPrivilegeEscalation").value() == false {
        if at.at("privileged").is_true() {
            errors.invalid(
                at,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if at.at("capabilities").at("add").strings().any(|added| added == "CAP_SYS_ADMIN") {
            errors.invalid(
                at,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    profiles(errors, at);
}

fn ids(errors: &mut Errors, at: &At<'_>, fields: &[&str]) {
    for field in fields {
        let id = at.at(field);
        if let Some(value) = id.int() {
            errors.invalid_each(&id, names::user_id(value));
        }
    }
}

fn sysctls(errors: &mut Errors, spec: &At<'_>, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for sysctl in at.items() {
        let name = sysctl.at("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !is_sysctl(name.str()) {
            errors.invalid(
                &name,
                format!(
                    "must have at most {} characters and match regex {SYSCTL_REGEX}",
                    names::SUBDOMAIN_MAX
                ),
            );
        } else if !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
        let normal = name.str().replace('/', ".");
        if spec.at("hostNetwork").is_true() && normal.starts_with("net.") {
            errors.invalid(&name, "may not be specified when 'hostNetwork' is true");
        }
        let is_ipc = normal.starts_with("fs.mqueue.")
            || ["kernel.sem", "kernel.shm", "kernel.msg"].iter().any(|p| normal.starts_with(p));
        if spec.at("hostIPC").is_true() && is_ipc {
            errors.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment = |segment: &str| {
        let alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = segment.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if alnum(*first) && alnum(*last))
            && bytes.iter().all(|byte| alnum(*byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= names::SUBDOMAIN_MAX && name.split(['.', '/']).all(segment)
}

fn profiles(errors: &mut Errors, at: &At<'_>) {
    let seccomp = at.at("seccompProfile");
    if seccomp.is_set() {
        let (kind, path) = (seccomp.at("type"), seccomp.at("localhostProfile"));
        match kind.str() {
            "" => errors.required(&kind, "type is required when seccompProfile is set"),
            _ => errors.optional_one_of(&kind, &PROFILE_TYPES),
        }
        match (kind.str(), path.is_set()) {
            ("Localhost", false) => {
                errors.required(&path, "must be set when seccomp type is Localhost");
            }
            ("Localhost", true) => relative_path(errors, &path),
            (_, true) => errors.invalid_value(
                &path,
                seccomp.value().clone(),
                "can only be set when seccomp type is Localhost",
            ),
            (_, false) => {}
        }
    }
    let app_armor = at.at("appArmorProfile");
    if app_armor.is_set() {
        app_armor_profile(errors, &app_armor);
    }
}

fn app_armor_profile(errors: &mut Errors, at: &At<'_>) {
    let (kind, path) = (at.at("type"), at.at("localhostProfile"));
    match kind.str() {
        "Localhost" => {
            if path.str().trim() != path.str() {
                errors.invalid(&path, "must not be padded with whitespace");
            } else if path.str().is_empty() {
                errors.required(&path, "must be set when AppArmor type is Localhost");
            }
            if path.len() > PROFILE_PATH_MAX_BYTES {
                errors.too_long(&path, PROFILE_PATH_MAX_BYTES);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if path.is_set() {
                errors.invalid(&path, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&kind, "type is required when appArmorProfile is set"),
        _ => errors.not_supported(&kind, &PROFILE_TYPES),
    }
}
