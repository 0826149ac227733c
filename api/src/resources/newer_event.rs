//! Event of events.k8s.io: the same objects as the core's events, under names of its own.

use jiff::Timestamp;
use serde_json::Value;

use super::event;
use crate::object::Object;
use crate::registry::strategy::{Column, Kind, Strategy};
use crate::status::FieldError;

/// The kind.
pub static KIND: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: event::KIND.short_names,
    categories: &[],
    scope: event::KIND.scope,
    storage: event::KIND.storage,
    subresources: &[],
    verbs: event::KIND.verbs,
    strategy: &NewerEvent,
};

/// The names of fields, here and in the core.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

#[derive(Debug)]
struct NewerEvent;

/// The event as the core has it.
fn older(object: &Object) -> Object {
    let mut older = object.clone();
    to_older(&mut older);
    older
}

fn to_older(object: &mut Object) {
    for (here, there) in NAMES {
        if let Some(value) = object.remove(&[here]) {
            object.set(&[there], value);
        }
    }
    object.set_type("v1", "Event");
    event::KIND.strategy.default(object);
}

impl Strategy for NewerEvent {
    fn shows_as_stored(&self) -> bool {
        false
    }

    fn present(&self, object: &mut Object) {
        for (here, there) in NAMES {
            if let Some(value) = object.remove(&[there]) {
                object.set(&[here], value);
            }
        }
        object.set_type("events.k8s.io/v1", "Event");
    }

    fn store(&self, object: &mut Object) {
        to_older(object);
    }

    fn default(&self, object: &mut Object) {
        for field in ["deprecatedSource", "regarding"] {
            object.set_default(&[field], serde_json::Map::new());
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        event::KIND.strategy.validate(&older(object))
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn columns(&self) -> &'static [Column] {
        event::KIND.strategy.columns()
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        event::KIND.strategy.row(&older(object), now)
    }
}
