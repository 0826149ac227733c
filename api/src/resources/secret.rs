//! Secret: what only some may read.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::config_map::{DATA_MAX_BYTES, decoded_len, invalid_key, validate_frozen};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "secrets",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Secret,
};

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Type", "What the data is for."),
    table::text("Data", "How many entries there are."),
    AGE,
];

#[derive(Debug)]
struct Secret;

impl Strategy for Secret {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        if object.str_at("/type").is_empty() {
            object.set(&["type"], "Opaque");
        }
        take_over_string_data(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let data = root.at("data");
            let mut size = 0;
            for (key, value) in data.entries() {
                invalid_key(errors, &value, key);
                size += decoded_len(value.str());
            }
            if size > DATA_MAX_BYTES {
                errors.too_long(&data, DATA_MAX_BYTES);
            }
            content_of_type(errors, root, &data);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            errors.immutable(&new.at("type"), &old.at("type"));
            validate_frozen(errors, new, old, &["data"]);
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let count = object.at("/data").and_then(Value::as_object).map_or(0, Map::len);
        vec![
            object.name().into(),
            object.str_at("/type").into(),
            count.into(),
            table::age(object, now),
        ]
    }
}

/// `stringData` is only for writing: its texts go into `data`, over what stands there.
fn take_over_string_data(object: &mut Object) {
    let Some(Value::Object(texts)) = object.remove(&["stringData"]) else { return };
    for (key, text) in texts {
        let encoded = BASE64_STANDARD.encode(text.as_str().unwrap_or_default());
        object.set(&["data", &key], encoded);
    }
}

/// What a secret of a known type must contain.
fn content_of_type(errors: &mut Errors, root: &At<'_>, data: &At<'_>) {
    let need = |errors: &mut Errors, key: &str| {
        let value = data.key(key);
        if !value.is_set() {
            errors.required(&value, "");
        }
    };
    match root.at("type").str() {
        "kubernetes.io/service-account-token" => {
            let metadata = root.at("metadata");
            let annotations = metadata.at("annotations");
            let name = annotations.key(SERVICE_ACCOUNT_NAME);
            if name.str().is_empty() {
                errors.required(&name, "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(errors, &data.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => docker_config(errors, &data.key(".dockerconfigjson")),
        "kubernetes.io/basic-auth"
            if !data.key("username").is_set() && !data.key("password").is_set() =>
        {
            need(errors, "username");
            need(errors, "password");
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.key("ssh-privatekey");
            if key.str().is_empty() {
                errors.required(&key, "");
            }
        }
        "kubernetes.io/tls" => {
            need(errors, "tls.crt");
            need(errors, "tls.key");
        }
        _ => {}
    }
}

fn docker_config(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return errors.required(at, "");
    }
    let decoded = BASE64_STANDARD.decode(at.str()).unwrap_or_default();
    if let Err(problem) = serde_json::from_slice::<Map<String, Value>>(&decoded) {
        errors.invalid_value(at, "<secret contents redacted>", problem.to_string());
    }
}
