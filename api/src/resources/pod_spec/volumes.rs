//! The volumes of a pod.

use std::collections::BTreeSet;

use super::env::{self, InVolume};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::numbers::non_negative_quantity;
use crate::validation::{labels, names};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MODE_MAX: i64 = 0o777;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const HOST_PATH_TYPES: [&str; 7] = [
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// Every source a volume can have.
pub const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
/// What a source cannot do without.
const NEEDED: [(&str, &[&str]); 18] = [
    ("persistentVolumeClaim", &["claimName"]),
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("portworxVolume", &["volumeID"]),
    ("vsphereVolume", &["volumePath"]),
    ("csi", &["driver"]),
];

/// The volumes, whose names must be labels and unique.
pub fn validate(errors: &mut Errors, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for volume in at.items() {
        source(errors, &volume);
        let name = volume.at("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.invalid_each(&name, names::dns1123_label(name.str()));
        }
        if !name.str().is_empty() && !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
    }
}

fn source(errors: &mut Errors, volume: &At<'_>) {
    let mut first = true;
    for name in SOURCES {
        let source = volume.at(name);
        if !source.is_set() {
            continue;
        }
        if !first {
            errors.forbidden(&source, "may not specify more than 1 volume type");
            continue;
        }
        first = false;
        needed(errors, name, &source);
        of_kind(errors, name, &source);
    }
    if first {
        errors.required(volume, "must specify a volume type");
    }
}

/// Reports what a source lacks: the same in volumes and in persistent volumes.
pub fn needed(errors: &mut Errors, name: &str, source: &At<'_>) {
    let fields =
        NEEDED.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |(_, fields)| *fields);
    for field in fields {
        let field = source.at(field);
        if field.is_empty() {
            errors.required(&field, "");
        }
    }
}

fn of_kind(errors: &mut Errors, name: &str, source: &At<'_>) {
    match name {
        "emptyDir" => {
            let limit = source.at("sizeLimit");
            let amount = non_negative_quantity(&mut Errors::new(), &limit);
            if amount.is_some_and(crate::quantity::Quantity::is_negative) {
                errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => host_path(errors, source),
        "nfs" => {
            let path = source.at("path");
            if !path.str().starts_with('/') {
                errors.invalid_value(&path, path.str(), "must be an absolute path");
            }
        }
        "secret" | "configMap" => {
            mode(errors, &source.at("defaultMode"));
            for item in source.at("items").items() {
                key_to_path(errors, &item);
            }
        }
        "downwardAPI" => {
            mode(errors, &source.at("defaultMode"));
            for file in source.at("items").items() {
                downward_file(errors, source, &file);
            }
        }
        "projected" => projected(errors, source),
        "ephemeral" => ephemeral(errors, source),
        "csi" => errors.optional_form(&source.at("driver"), |driver| {
            names::dns1123_subdomain(&driver.to_lowercase())
        }),
        "image" => {
            let reference = source.at("reference");
            if reference.str().is_empty() {
                errors.required(&reference, "");
            }
            errors.one_of(&source.at("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        _ => {}
    }
}

/// A path of the node.
pub fn host_path(errors: &mut Errors, source: &At<'_>) {
    let path = source.at("path");
    if path.str().is_empty() {
        return errors.required(&path, "");
    }
    if !no_backsteps(path.str()) {
        errors.invalid(&path, "must not contain '..'");
    }
    let kind = source.at("type");
    if !kind.str().is_empty() && !HOST_PATH_TYPES.contains(&kind.str()) {
        let mut supported = vec![""];
        supported.extend(HOST_PATH_TYPES);
        errors.not_supported(&kind, &supported);
    }
}

fn mode(errors: &mut Errors, at: &At<'_>) {
    if at.int().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        errors.invalid(at, FILE_MODE);
    }
}

fn key_to_path(errors: &mut Errors, item: &At<'_>) {
    for field in ["key", "path"] {
        let field = item.at(field);
        if field.str().is_empty() {
            errors.required(&field, "");
        }
    }
    file_path(errors, &item.at("path"));
    mode(errors, &item.at("mode"));
}

/// Upstream reports the files of a downward volume at the volume, not at the file.
fn downward_file(errors: &mut Errors, parent: &At<'_>, file: &At<'_>) {
    let path = file.at("path");
    let reported = parent.at("path");
    let reported = reported.with(path.value());
    if path.str().is_empty() {
        errors.required(&reported, "");
    }
    file_path(errors, &reported);
    let (field, resource) = (file.at("fieldRef"), file.at("resourceFieldRef"));
    if field.is_set() {
        let at = parent.at("fieldRef");
        env::field_selector(errors, &at.with(field.value()), &env::VOLUME_FIELDS);
        if resource.is_set() {
            errors.invalid_value(
                parent,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if resource.is_set() {
        let at = parent.at("resourceFieldRef");
        env::resource_selector(errors, &at.with(resource.value()), InVolume::Yes);
    } else {
        errors.required(parent, "one of fieldRef and resourceFieldRef is required");
    }
    mode(errors, &parent.at("mode").with(file.at("mode").value()));
}

fn projected(errors: &mut Errors, at: &At<'_>) {
    mode(errors, &at.at("defaultMode"));
    let mut paths = BTreeSet::new();
    let sources = at.at("sources");
    for source in sources.items() {
        let mut count = 0;
        for name in ["secret", "configMap"] {
            let part = source.at(name);
            if !part.is_set() {
                continue;
            }
            count += 1;
            let object = part.at("name");
            if object.str().is_empty() {
                errors.required(&object, "");
            }
            for item in part.at("items").items() {
                key_to_path(errors, &item);
                let path = item.at("path").str();
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    errors.invalid_value(at, object.str(), "conflicting duplicate paths");
                }
            }
        }
        let downward = source.at("downwardAPI");
        if downward.is_set() {
            count += 1;
            for file in downward.at("items").items() {
                downward_file(errors, &downward, &file);
                let path = file.at("path").str();
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    errors.invalid_value(at, path, "conflicting duplicate paths");
                }
            }
        }
        let token = source.at("serviceAccountToken");
        if token.is_set() {
            count += 1;
            service_account_token(errors, at, &token);
        }
        count += usize::from(source.at("clusterTrustBundle").is_set());
        count += usize::from(source.at("podCertificate").is_set());
        if count > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}

fn service_account_token(errors: &mut Errors, volume: &At<'_>, token: &At<'_>) {
    let seconds = token.at("expirationSeconds");
    if let Some(value) = seconds.int() {
        if value < TOKEN_SECONDS_MIN {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
        if value > TOKEN_SECONDS_MAX {
            errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
    let path = token.at("path");
    let reported = volume.at("path");
    let reported = reported.with(path.value());
    if path.str().is_empty() {
        errors.required(&reported, "");
    } else {
        file_path(errors, &reported);
    }
}

fn ephemeral(errors: &mut Errors, source: &At<'_>) {
    let template = source.at("volumeClaimTemplate");
    if !template.is_set() {
        return errors.required(&template, "");
    }
    let metadata = template.at("metadata");
    labels::labels(errors, &metadata.at("labels"));
    let spec = template.at("spec");
    if !spec.is_set() {
        return errors.required(&spec, "");
    }
    if spec.at("accessModes").is_empty() {
        errors.required(&spec.at("accessModes"), "at least 1 access mode is required");
    }
}

/// Whether no step of a path leads up.
pub fn no_backsteps(path: &str) -> bool {
    path.split('/').all(|step| step != "..")
}

/// A path within something else: relative, and never leading out of it.
pub fn relative_path(errors: &mut Errors, at: &At<'_>) {
    if at.str().starts_with('/') {
        errors.invalid(at, "must be a relative path");
    }
    if !no_backsteps(at.str()) {
        errors.invalid(at, "must not contain '..'");
    }
}

/// A path at which a volume shows a file: names that begin with `..` are the volume's own.
fn file_path(errors: &mut Errors, at: &At<'_>) {
    relative_path(errors, at);
    if at.str().starts_with("..") && !at.str().starts_with("../") {
        errors.invalid(at, "must not start with '..'");
    }
}
