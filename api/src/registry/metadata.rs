//! `metadata`: what the server sets itself, and the rules that hold for every kind.

use rand::RngExt as _;
use serde_json::{Value, json};

use super::strategy::{Kind, NameRule};
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::{FieldError, Status};
use crate::validation::names;

/// The most bytes all annotations of an object may have together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// The characters of generated suffixes: no vowels, so no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The longest prefix that is kept of `generateName`.
const GENERATED_PREFIX_MAX: usize = 63 - SUFFIX_LEN;

const SUFFIX_LEN: usize = 5;

/// Checks that the object is where the request says, and says so where it did not.
pub(super) fn place(object: &mut Object, kind: &Kind, namespace: &str) -> Result<(), Status> {
    if kind.is_namespaced() && namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    let wanted = if kind.is_namespaced() { namespace } else { "" };
    if !object.namespace().is_empty() && object.namespace() != wanted {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the \
             request: {:?} is not {wanted:?}",
            object.namespace()
        )));
    }
    if wanted.is_empty() {
        object.remove(&["metadata", "namespace"]);
    } else {
        object.set_meta("namespace", wanted);
    }
    Ok(())
}

/// What comes out of an apply must still be the object that the request is about.
pub(super) fn must_be_named(object: &Object, name: &str) -> Result<(), Status> {
    if object.name() == name {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the name of the object ({}) does not match the name on the URL ({name})",
        object.name()
    )))
}

/// Sets what only the server knows of a new object.
pub(super) fn fill_new(ctx: &RequestContext, object: &mut Object) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"]
    {
        object.remove(&["metadata", field]);
    }
    drop_empty(object);
    object.set_meta("uid", uuid::Uuid::new_v4().to_string());
    object.set_meta("creationTimestamp", seconds(ctx.now));
    if object.name().is_empty() && !object.generate_name().is_empty() {
        let name = generated_name(object.generate_name());
        object.set_meta("name", name);
    }
}

/// Takes over from the stored object what no update changes.
pub(super) fn fill_update(object: &mut Object, old: &Object) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old.at(&format!("/metadata/{field}")) {
            Some(value) => object.set_meta(field, value.clone()),
            None => drop(object.remove(&["metadata", field])),
        }
    }
    for field in ["uid", "creationTimestamp", "namespace", "generateName"] {
        if let Some(value) = old.at(&format!("/metadata/{field}")) {
            let entry = object.entry(&["metadata", field]);
            if entry.is_null() || *entry == Value::String(String::new()) {
                *entry = value.clone();
            }
        }
    }
    object.remove(&["metadata", "selfLink"]);
    drop_empty(object);
}

/// A list of none is no list: that is how it is stored and shown.
fn drop_empty(object: &mut Object) {
    for field in ["finalizers", "ownerReferences"] {
        let list = object.at(&format!("/metadata/{field}")).and_then(Value::as_array);
        if list.is_some_and(Vec::is_empty) {
            object.remove(&["metadata", field]);
        }
    }
}

/// A moment as metadata writes it: whole seconds in UTC.
pub fn seconds(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn generated_name(prefix: &str) -> String {
    let mut name: String = prefix.chars().take(GENERATED_PREFIX_MAX).collect();
    let mut random = rand::rng();
    for _ in 0..SUFFIX_LEN {
        name.push(char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    }
    name
}

/// What is wrong with the metadata of a new object.
pub(super) fn validate(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let rule = name_check(kind.strategy.name_rule());
    if !object.generate_name().is_empty() {
        for why in rule(object.generate_name(), true) {
            errors.push(FieldError::invalid("metadata.generateName", object.generate_name(), why));
        }
    }
    if object.name().is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        for why in rule(object.name(), false) {
            errors.push(FieldError::invalid("metadata.name", object.name(), why));
        }
    }
    if kind.is_namespaced() {
        for why in names::name_is_label(object.namespace(), false) {
            errors.push(FieldError::invalid("metadata.namespace", object.namespace(), why));
        }
    }
    validate_maps(object, &mut errors);
    validate_owners(object, &mut errors);
    validate_finalizers(object, &mut errors);
    errors
}

/// What is wrong with a change of the metadata.
pub(super) fn validate_update(object: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let pointer = format!("/metadata/{field}");
        let now = object.at(&pointer).unwrap_or(&Value::Null);
        if now != old.at(&pointer).unwrap_or(&Value::Null) {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                now.clone(),
                "field is immutable",
            ));
        }
    }
    if old.is_terminating() {
        let before = old.finalizers();
        let new: Vec<&str> =
            object.finalizers().into_iter().filter(|name| !before.contains(name)).collect();
        if !new.is_empty() {
            let listed: Vec<String> = new.iter().map(|name| format!("{name:?}")).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new \
                     finalizers []string{{{}}}",
                    listed.join(", ")
                ),
            ));
        }
    }
    validate_maps(object, &mut errors);
    validate_owners(object, &mut errors);
    validate_finalizers(object, &mut errors);
    errors
}

fn validate_maps(object: &Object, errors: &mut Vec<FieldError>) {
    for (key, value) in object.labels() {
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid("metadata.labels", key, why));
        }
        for why in names::label_value(value) {
            errors.push(FieldError::invalid("metadata.labels", value, why));
        }
    }
    let mut bytes = 0;
    for (key, value) in object.annotations() {
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key, why));
        }
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
}

fn validate_owners(object: &Object, errors: &mut Vec<FieldError>) {
    let mut controllers = Vec::new();
    let owners = object.owner_refs();
    for (index, owner) in owners.iter().enumerate() {
        let path = format!("metadata.ownerReferences[{index}]");
        for (field, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.{field}"),
                    if field == "apiVersion" {
                        "version must not be empty"
                    } else {
                        "must not be empty"
                    },
                ));
            }
        }
        if owner.controller == Some(true) {
            controllers.push(owner.name.clone());
        }
    }
    if controllers.len() > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            json!(owners),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references \
                 for {} and {}",
                controllers[0], controllers[1]
            ),
        ));
    }
}

fn validate_finalizers(object: &Object, errors: &mut Vec<FieldError>) {
    let finalizers = object.finalizers();
    for finalizer in &finalizers {
        for why in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", *finalizer, why));
        }
    }
    if finalizers.contains(&super::delete::ORPHAN)
        && finalizers.contains(&super::delete::FOREGROUND)
    {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            json!(finalizers),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn name_check(rule: NameRule) -> fn(&str, bool) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::name_is_subdomain,
        NameRule::DnsLabel => names::name_is_label,
        NameRule::Rfc1035Label => names::name_is_1035_label,
        NameRule::PathSegment => names::name_is_path_segment,
    }
}
