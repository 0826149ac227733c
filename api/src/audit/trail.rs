//! [`Trail`]: what is found out about a request while it is handled, for the events about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::policy::{Decision, Level};
use crate::authn::User;

/// What one request leaves behind.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(super) decision: Decision,
    left: Mutex<Left>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Left {
    pub(super) annotations: BTreeMap<String, String>,
    /// What was sent, where the level asks for it.
    pub(super) request: Option<Value>,
    /// The metadata of what was sent, where it is an object.
    pub(super) metadata: Value,
    /// As whom it was done, where not as who asked.
    pub(super) acting_as: Option<Arc<User>>,
}

impl Trail {
    pub(crate) fn new(decision: Decision) -> Self {
        Self { decision, left: Mutex::default() }
    }

    /// Notes something by name; what was noted first stays.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.left.lock().annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    /// Notes what was sent.
    pub(crate) fn sent(&self, value: &Value) {
        let metadata = |field: &str| value.pointer(&format!("/metadata/{field}")).cloned();
        let mut left = self.left.lock();
        let fields = ["name", "namespace", "uid", "resourceVersion"];
        let known =
            fields.into_iter().filter_map(|field| Some((field.to_owned(), metadata(field)?)));
        left.metadata = Value::Object(known.collect());
        if self.decision.level >= Level::Request {
            left.request = Some(self.shown(value.clone()));
        }
    }

    /// Notes as whom it is done.
    pub(crate) fn acts_as(&self, user: &Arc<User>) {
        self.left.lock().acting_as = Some(Arc::clone(user));
    }

    pub(super) fn left(&self) -> Left {
        self.left.lock().clone()
    }

    /// A document without what the policy leaves out.
    pub(super) fn shown(&self, mut value: Value) -> Value {
        if self.decision.omits_managed_fields {
            forget_managers(&mut value);
            for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
                forget_managers(item);
            }
        }
        value
    }
}

fn forget_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
