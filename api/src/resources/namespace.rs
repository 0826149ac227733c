//! Namespace: a room for names.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::{
    Column, Kind, NameRule, Scope, Strategy, Subresource, keep, keep_all_but_status,
};
use crate::request_info::Verb;
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::errors::Errors;
use crate::validation::{at::At, names};

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "namespaces",
    subresources: &[Subresource::STATUS, Subresource::FINALIZE],
    // Namespaces are deleted one by one: each has its content to lose.
    verbs: &[
        Verb::Create,
        Verb::Delete,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ],
    strategy: &Namespace,
};

/// The label by which selectors can name a namespace.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that keeps a namespace until its content is gone.
pub const FINALIZER: &str = "kubernetes";

static COLUMNS: [Column; 3] =
    [NAME, table::text("Status", "Whether it is in use or about to go."), AGE];

#[derive(Debug)]
struct Namespace;

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        if !object.name().is_empty() {
            let name = object.name().to_owned();
            object.set(&["metadata", "labels", NAME_LABEL], name);
        }
        if object.str_at("/status/phase").is_empty() {
            object.set(&["status", "phase"], "Active");
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        // A name that was generated is only known now.
        if !object.name().is_empty() {
            let name = object.name().to_owned();
            object.set(&["metadata", "labels", NAME_LABEL], name);
        }
        object.set(&["status"], json!({"phase": "Active"}));
        add_finalizer(object);
        object.remove(&["metadata", "generation"]);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        // The finalizers of the spec change only through the subresource.
        keep(object, old, "spec");
        keep(object, old, "status");
    }

    fn prepare_status_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep_all_but_status(object, old);
    }

    fn is_held(&self, object: &Object) -> bool {
        object.at("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    fn begin_deletion(&self, object: &mut Object) {
        object.set(&["status", "phase"], "Terminating");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let list = spec.at("finalizers");
            for finalizer in list.strings() {
                finalizer_name(errors, &list, finalizer);
            }
        })
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, _| {
            let metadata = new.at("metadata");
            let status = new.at("status");
            let (phase, reported) = (status.at("phase"), status.at("Phase"));
            let reported = reported.with(phase.value());
            let terminating = metadata.at("deletionTimestamp").is_set();
            if !terminating && phase.str() != "Active" {
                errors.invalid(&reported, "may only be 'Active' if `deletionTimestamp` is empty");
            }
            if terminating && phase.str() != "Terminating" {
                errors.invalid(
                    &reported,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                );
            }
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.str_at("/status/phase").into(), table::age(object, now)]
    }
}

fn add_finalizer(object: &mut Object) {
    let list = object.entry(&["spec", "finalizers"]);
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|finalizer| finalizer == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
}

fn finalizer_name(errors: &mut Errors, at: &At<'_>, name: &str) {
    for problem in names::qualified_name(name) {
        errors.invalid_value(at, name, problem);
    }
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        errors.invalid_value(
            at,
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}
