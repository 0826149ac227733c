//! PersistentVolume: storage that outlives pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, fill, fill_empty, resource_list};
use super::pod_spec::affinity::node_selector;
use super::pod_spec::defaults::network_volume;
use super::pod_spec::volumes::{SOURCES, host_path, needed};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};
use crate::validation::names;
use crate::validation::numbers::quantity;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "persistentvolumes",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &PersistentVolume,
};

/// How a volume can be mounted, with the short forms that tables show.
pub const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOnce", "RWO"),
    ("ReadWriteOncePod", "RWOP"),
];

static COLUMNS: [Column; 11] = [
    NAME,
    table::text("Capacity", "How much it holds."),
    table::text("Access Modes", "How it can be mounted."),
    table::text("Reclaim Policy", "What becomes of it when its claim goes."),
    table::text("Status", "Whether a claim has it."),
    table::text("Claim", "Which claim has it."),
    table::text("StorageClass", "StorageClass of the pv"),
    table::text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    table::text("Reason", "Why it is in this state."),
    AGE,
    table::wide("VolumeMode", "Whether it is a file system or a block device."),
];

#[derive(Debug)]
struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.set_default(&["status"], json!({}));
        let root = object.value_mut();
        if let Some(status) = child(root, "status") {
            fill_empty(status, "phase", "Pending");
        }
        let Some(spec) = child(root, "spec") else { return };
        fill_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        resource_list(child(spec, "capacity"));
        network_volume(spec);
        if let Some(path) = child(spec, "hostPath") {
            fill(path, "type", "");
        }
    }

    fn initial_status(&self) -> Value {
        json!({"phase": "Pending"})
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            access_modes(errors, &spec.at("accessModes"), "");
            capacity(errors, &spec.at("capacity"));
            source(errors, &spec);
            let policy = spec.at("persistentVolumeReclaimPolicy");
            errors.optional_one_of(&policy, &["Delete", "Recycle", "Retain"]);
            errors.optional_one_of(&spec.at("volumeMode"), &["Block", "Filesystem"]);
            errors.optional_form(&spec.at("storageClassName"), names::dns1123_subdomain);
            let required = spec.at("nodeAffinity");
            if required.is_set() {
                node_selector(errors, &required.at("required"));
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            for name in SOURCES {
                if !same(new.at(name).value(), old.at(name).value()) {
                    let sentence = "spec.persistentvolumesource is immutable after creation";
                    errors.forbidden(&new.at("persistentvolumesource"), sentence);
                    break;
                }
            }
            errors.immutable(&new.at("volumeMode"), &old.at("volumeMode"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let claim = match object.str_at("/spec/claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", object.str_at("/spec/claimRef/namespace")),
        };
        let class = object.str_at("/spec/volumeAttributesClassName");
        vec![
            object.name().into(),
            object.str_at("/spec/capacity/storage").into(),
            short_modes(object.at("/spec/accessModes")).into(),
            object.str_at("/spec/persistentVolumeReclaimPolicy").into(),
            phase(object).into(),
            claim.into(),
            object.str_at("/spec/storageClassName").into(),
            if class.is_empty() { "<unset>".into() } else { class.into() },
            object.str_at("/status/reason").into(),
            table::age(object, now),
            mode(object).into(),
        ]
    }
}

/// The phase of a volume or a claim, which may be on its way out.
pub fn phase(object: &Object) -> &str {
    if object.is_terminating() { "Terminating" } else { object.str_at("/status/phase") }
}

/// The mode of a volume or a claim.
pub fn mode(object: &Object) -> &str {
    match object.str_at("/spec/volumeMode") {
        "" => "<unset>",
        mode => mode,
    }
}

/// The access modes in short: `RWO,RWX`.
pub fn short_modes(list: Option<&Value>) -> String {
    let has = |mode: &str| {
        list.and_then(Value::as_array).is_some_and(|list| list.iter().any(|other| other == mode))
    };
    let order = ["RWO", "ROX", "RWX", "RWOP"];
    let shown = order
        .into_iter()
        .filter(|short| ACCESS_MODES.iter().any(|(mode, other)| other == short && has(mode)));
    shown.collect::<Vec<_>>().join(",")
}

/// The access modes, of which there must be one.
pub fn access_modes(errors: &mut Errors, at: &At<'_>, sentence: &str) {
    if at.is_empty() {
        errors.required(at, sentence);
    }
    let names = ACCESS_MODES.map(|(mode, _)| mode);
    for mode in at.items() {
        if !names.contains(&mode.str()) {
            errors.not_supported(&at.with(mode.value()), &names);
        }
    }
    if at.len() > 1 && at.strings().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(errors: &mut Errors, at: &At<'_>) {
    if at.is_empty() {
        return errors.required(at, "");
    }
    if !at.key("storage").is_set() || at.len() > 1 {
        errors.not_supported(at, &["storage"]);
    }
    for (_, amount) in at.entries() {
        let is_none = quantity(errors, &amount).is_some_and(|q| q.is_zero() || q.is_negative());
        if is_none {
            errors.invalid(&amount, "must be greater than zero");
        }
    }
}

fn source(errors: &mut Errors, spec: &At<'_>) {
    let mut found = SOURCES.into_iter().chain(["local"]).filter(|name| spec.at(name).is_set());
    let Some(first) = found.next() else {
        return errors.required(spec, "must specify a volume type");
    };
    for other in found {
        errors.forbidden(&spec.at(other), "may not specify more than 1 volume type");
    }
    let at = spec.at(first);
    match first {
        "hostPath" => host_path(errors, &at),
        "local" => {
            if at.at("path").str().is_empty() {
                errors.required(&at.at("path"), "");
            }
            if !spec.at("nodeAffinity").is_set() {
                errors.required(&spec.at("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        "csi" => {
            needed(errors, first, &at);
            if at.at("volumeHandle").str().is_empty() {
                errors.required(&at.at("volumeHandle"), "");
            }
        }
        _ => needed(errors, first, &at),
    }
}
