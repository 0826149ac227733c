//! What a request may say beside its object.

use serde_json::Value;

use crate::object::Object;

/// Which resourceVersion a read is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Sees every write acknowledged before (resourceVersion unset).
    #[default]
    Latest,
    /// Whatever is at hand (resourceVersion `0`).
    Any,
    /// Not older than that revision.
    NotOlderThan(u64),
    /// Exactly that revision.
    Exact(u64),
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// The label selector's text; empty selects all.
    pub label_selector: String,
    /// The field selector's text; empty selects all.
    pub field_selector: String,
    /// The most objects to return; 0 is all.
    pub limit: u64,
    /// The token of the page before.
    pub continue_token: String,
    /// How fresh.
    pub freshness: Freshness,
}

impl ListOptions {
    /// What a label selector selects.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: selector.into(), ..Self::default() }
    }

    /// What a field selector selects.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: selector.into(), ..Self::default() }
    }
}

/// A page of objects, each with its resourceVersion.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectList {
    /// The objects in key order.
    pub items: Vec<Object>,
    /// The revision at which they were read; the same for all pages.
    pub resource_version: u64,
    /// The token of the next page; empty at the end.
    pub continue_token: String,
    /// How many objects are left after this page, where that is known.
    pub remaining: Option<u64>,
}

/// What becomes of the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// The garbage collector deletes them afterwards.
    Background,
    /// The garbage collector deletes them before.
    Foreground,
}

/// How to delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// How long who runs the object may take.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of the dependents; `None` is the kind's default.
    pub propagation: Option<Propagation>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this resourceVersion.
    pub resource_version: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn of_uid(uid: impl Into<String>) -> Self {
        Self { uid: Some(uid.into()), ..Self::default() }
    }

    /// The same with a grace period.
    #[must_use]
    pub fn within(mut self, seconds: i64) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }

    /// The same with a fate for the dependents.
    #[must_use]
    pub fn propagate(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// The object is gone; this is its last state.
    Gone(Object),
    /// The object is on its way: it waits for its grace period or its finalizers.
    Terminating(Object),
}

impl Deleted {
    /// The object in its last known state.
    pub fn object(&self) -> &Object {
        match self {
            Self::Gone(object) | Self::Terminating(object) => object,
        }
    }

    /// The same, taken out.
    pub fn into_object(self) -> Object {
        match self {
            Self::Gone(object) | Self::Terminating(object) => object,
        }
    }
}

/// A change of a part of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json(Value),
    /// A merge of maps (RFC 7386).
    Merge(Value),
    /// A merge of maps and of lists by their merge keys.
    Strategic(Value),
}

/// Which part of an object an update writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The object without its status.
    #[default]
    Main,
    /// The status.
    Status,
    /// Whether a certificate is to be signed.
    Approval,
    /// The number of replicas.
    Scale,
    /// The finalizers in a namespace's spec.
    Finalize,
    /// The ephemeral containers of a pod.
    Ephemeral,
    /// What the containers of a pod may use.
    Resize,
    /// The node of a pod; written by [`super::Registry::bind`] only.
    Binding,
}

impl Part {
    /// The last segment of the part's path.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Approval => "approval",
            Self::Scale => "scale",
            Self::Finalize => "finalize",
            Self::Ephemeral => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Binding => "binding",
        }
    }
}
