//! Event: what happened to an object, told once or counted.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "events",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Event,
};

const REASON_MAX_BYTES: usize = 128;
const ACTION_MAX_BYTES: usize = 128;
const INSTANCE_MAX_BYTES: usize = 128;
const NOTE_MAX_BYTES: usize = 1024;

static COLUMNS: [Column; 10] = [
    table::text("Last Seen", "When it happened last."),
    table::text("Type", "Normal or Warning."),
    table::text("Reason", "Why, in one word."),
    table::text("Object", "To what it happened."),
    table::wide("Subobject", "To which part of it."),
    table::wide("Source", "Who told it."),
    table::text("Message", "What happened, in words."),
    table::wide("First Seen", "When it happened first."),
    table::wide("Count", "How often it happened."),
    Column { priority: 1, ..table::NAME },
];

#[derive(Debug)]
struct Event;

impl Strategy for Event {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        // What no pointer can leave out is always there, empty.
        for field in ["source", "involvedObject"] {
            object.set_default(&[field], serde_json::Map::new());
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            namespace(errors, root);
            if !root.at("eventTime").is_empty() {
                of_the_newer_form(errors, root);
            }
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn field(&self, object: &Object, path: &str) -> String {
        match path {
            "source" | "reportingComponent" => source(object).to_owned(),
            _ => object.str_at(&format!("/{}", path.replace('.', "/"))).to_owned(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let involved = |field: &str| object.str_at(&format!("/involvedObject/{field}"));
        let kind = involved("kind").to_lowercase();
        let named = match (kind.as_str(), involved("name")) {
            (kind, "") => kind.to_owned(),
            ("", name) => name.to_owned(),
            (kind, name) => format!("{kind}/{name}"),
        };
        let seen = Seen::of(object);
        vec![
            table::since(seen.last, now).into(),
            object.str_at("/type").into(),
            object.str_at("/reason").into(),
            named.into(),
            involved("fieldPath").into(),
            source_with_host(object).into(),
            object.str_at("/message").trim().into(),
            table::since(seen.first, now).into(),
            seen.count.into(),
            object.name().into(),
        ]
    }
}

/// When and how often an event happened, in its older form or its newer.
struct Seen<'a> {
    first: &'a str,
    last: &'a str,
    count: i64,
}

impl<'a> Seen<'a> {
    fn of(object: &'a Object) -> Self {
        let or = |text: &'a str, other: &'a str| if text.is_empty() { other } else { text };
        let time = object.str_at("/eventTime");
        let first = or(object.str_at("/firstTimestamp"), time);
        let last = or(object.str_at("/lastTimestamp"), first);
        let series = object.str_at("/series/lastObservedTime");
        let count = object.i64_at("/series/count").or_else(|| object.i64_at("/count"));
        Self { first, last: or(series, last), count: count.unwrap_or(1) }
    }
}

fn source(object: &Object) -> &str {
    match object.str_at("/source/component") {
        "" => object.str_at("/reportingComponent"),
        component => component,
    }
}

fn source_with_host(object: &Object) -> String {
    match object.str_at("/source/host") {
        "" => source(object).to_owned(),
        host => format!("{}, {host}", source(object)),
    }
}

/// An event stands in the namespace of what it is about, or in `default` where that has none.
fn namespace(errors: &mut Errors, root: &At<'_>) {
    let (metadata, involved) = (root.at("metadata"), root.at("involvedObject"));
    let (own, of_object) = (metadata.at("namespace"), involved.at("namespace"));
    if of_object.str().is_empty() {
        if !["", "default", "kube-system"].contains(&own.str()) {
            errors.invalid_value(&of_object, "", "does not match event.namespace");
        }
    } else if own.str() != of_object.str() {
        errors.invalid(&of_object, "does not match event.namespace");
    }
}

/// What events.k8s.io demands; the older form, which has no `eventTime`, is free.
fn of_the_newer_form(errors: &mut Errors, root: &At<'_>) {
    let controller = root.at("reportingComponent");
    if controller.str().is_empty() {
        errors.required(&root.at("reportingController"), "");
    }
    for problem in names::qualified_name(controller.str()) {
        errors.invalid_value(&root.at("reportingController"), controller.str(), problem);
    }
    for (field, most) in [
        ("reportingInstance", INSTANCE_MAX_BYTES),
        ("action", ACTION_MAX_BYTES),
        ("reason", REASON_MAX_BYTES),
    ] {
        let at = root.at(field);
        if at.str().is_empty() {
            errors.required(&at, "");
        } else if at.len() > most {
            errors.invalid_value(&at, "", format!("can have at most {most} characters"));
        }
    }
    if root.at("message").len() > NOTE_MAX_BYTES {
        errors.invalid_value(
            &root.at("message"),
            "",
            format!("can have at most {NOTE_MAX_BYTES} characters"),
        );
    }
}
