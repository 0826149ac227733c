//! [`Kind`] and [`Strategy`]: all that the registry must know of one kind of object.

use async_trait::async_trait;
use jiff::Timestamp;
use kontiki_storage::kv::{Compare, Op};
use serde_json::Value;

use super::Registry;
use crate::context::RequestContext;
use crate::crd::version::Version;
use crate::fields::{Place, Reset};
use crate::object::Object;
use crate::request_info::Verb;
use crate::schema::Gvk;
use crate::status::{FieldError, Status};

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each in one namespace.
    Namespaced,
    /// In none.
    Cluster,
}

/// A part of an object with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of its path.
    pub name: &'static str,
    /// The group and version of its document; `None` is that of the object.
    pub group_version: Option<(&'static str, &'static str)>,
    /// The kind of its document; `None` is that of the object.
    pub kind: Option<&'static str>,
    /// What can be done with it.
    pub verbs: &'static [Verb],
}

impl Subresource {
    /// Whether a certificate is to be signed.
    pub const APPROVAL: Self = Self {
        name: "approval",
        group_version: None,
        kind: None,
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    };
    /// What is observed, written by who observes.
    pub const STATUS: Self = Self {
        name: "status",
        group_version: None,
        kind: None,
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    };
    /// The number of replicas.
    pub const SCALE: Self = Self {
        name: "scale",
        group_version: Some(("autoscaling", "v1")),
        kind: Some("Scale"),
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    };
    /// The node a pod goes to.
    pub const BINDING: Self = Self {
        name: "binding",
        group_version: None,
        kind: Some("Binding"),
        verbs: &[Verb::Create],
    };
    /// What a container printed.
    pub const LOG: Self =
        Self { name: "log", group_version: None, kind: None, verbs: &[Verb::Get] };
    /// The process of a container.
    pub const ATTACH: Self = Self::streamed("attach", "PodAttachOptions");
    /// A command in a container.
    pub const EXEC: Self = Self::streamed("exec", "PodExecOptions");
    /// Ports of a pod.
    pub const PORT_FORWARD: Self = Self::streamed("portforward", "PodPortForwardOptions");
    /// What a pod serves.
    pub const POD_PROXY: Self = Self::proxied("PodProxyOptions");
    /// What a Service serves.
    pub const SERVICE_PROXY: Self = Self::proxied("ServiceProxyOptions");
    /// What a node's agent serves.
    pub const NODE_PROXY: Self = Self::proxied("NodeProxyOptions");
    /// The finalizers of a namespace.
    pub const FINALIZE: Self =
        Self { name: "finalize", group_version: None, kind: None, verbs: &[Verb::Update] };
    /// The ephemeral containers of a pod.
    pub const EPHEMERAL: Self = Self {
        name: "ephemeralcontainers",
        group_version: None,
        kind: None,
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    };
    /// What the containers of a pod may use.
    pub const RESIZE: Self = Self {
        name: "resize",
        group_version: None,
        kind: None,
        verbs: &[Verb::Get, Verb::Patch, Verb::Update],
    };
    /// A token of a service account.
    pub const TOKEN: Self = Self {
        name: "token",
        group_version: Some(("authentication.k8s.io", "v1")),
        kind: Some("TokenRequest"),
        verbs: &[Verb::Create],
    };
    /// A polite deletion of a pod.
    pub const EVICTION: Self = Self {
        name: "eviction",
        group_version: Some(("policy", "v1")),
        kind: Some("Eviction"),
        verbs: &[Verb::Create],
    };
}

impl Subresource {
    /// A connection of its own, with options in place of a document.
    const fn streamed(name: &'static str, kind: &'static str) -> Self {
        Self { name, group_version: None, kind: Some(kind), verbs: &[Verb::Create, Verb::Get] }
    }

    /// Somebody else's answers to any request.
    const fn proxied(kind: &'static str) -> Self {
        Self {
            name: "proxy",
            group_version: None,
            kind: Some(kind),
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        }
    }

    /// Whether it is a connection rather than a document.
    pub fn is_streamed(&self) -> bool {
        matches!(self.name, "attach" | "exec" | "portforward" | "proxy")
    }
}

/// All verbs of an ordinary kind.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// One kind of object in one version.
pub struct Kind {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind, as objects name it.
    pub kind: &'static str,
    /// The resource, as paths name it.
    pub plural: &'static str,
    /// The resource in the singular.
    pub singular: &'static str,
    /// Short names for `kubectl`.
    pub short_names: &'static [&'static str],
    /// Groups of resources for `kubectl get`: `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub scope: Scope,
    /// The folder of its objects under `/registry/`, as in etcd: `pods`, `services/specs`,
    /// `minions`.
    pub storage: &'static str,
    /// The parts with paths of their own.
    pub subresources: &'static [Subresource],
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// Its rules.
    pub strategy: &'static dyn Strategy,
}

impl Kind {
    /// `apps/v1`, or `v1` for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether its objects are kept: a review is answered and forgotten.
    pub fn is_stored(&self) -> bool {
        !self.storage.is_empty()
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The type of its objects, as field ownership goes by it.
    pub fn place(&self) -> Place {
        let strategy: &'static dyn Strategy = self.strategy;
        if let Some(version) = strategy.definition() {
            return Place::Custom(&version.schema);
        }
        Place::of_kind(Gvk::new(self.group, self.version, self.kind))
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.kind, self.api_version())
    }
}

/// A column of `kubectl get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// The OpenAPI type of its cells: `string`, `integer`, `date`, `boolean`.
    pub kind: &'static str,
    /// The OpenAPI format: `name` for the name column, otherwise empty.
    pub format: &'static str,
    /// What it says.
    pub description: &'static str,
    /// 0 always shown, greater only with `-o wide`.
    pub priority: i32,
}

/// Where the number of replicas stands in a kind that can be scaled, as JSON pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalePointers {
    /// The wanted number.
    pub spec_replicas: &'static str,
    /// The observed number.
    pub status_replicas: &'static str,
    /// The selector of the pods: a `LabelSelector` or a plain map of labels.
    pub selector: &'static str,
}

/// The rule for names of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: dots allowed, at most 253 characters.
    DnsSubdomain,
    /// RFC 1123 label: at most 63 characters.
    DnsLabel,
    /// RFC 1035 label: begins with a letter.
    Rfc1035Label,
    /// Whatever can stand in a path.
    PathSegment,
}

/// Writes and conditions that belong to an object's own write: they happen in the same
/// transaction, or not at all. When a condition fails, the admission hook is called anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is written with it.
    pub ops: Vec<Op>,
}

impl Attached {
    /// Both.
    pub fn extend(&mut self, more: Self) {
        self.compare.extend(more.compare);
        self.ops.extend(more.ops);
    }
}

/// The rules of one kind. Every method but the admission hooks is pure. The order on a write is
/// `default`, admission plugins (mutating), `prepare_*`, `admit_*`, `validate*`, admission plugins
/// (validating), the transaction.
///
/// The registry itself does what is the same for all kinds: names, uid, timestamps, labels and
/// annotations, finalizers, immutability of metadata, resourceVersion, namespaces.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Fills in what the client left out. Must be idempotent. Also called on what is read from a
    /// patch or a client in process.
    fn default(&self, _object: &mut Object) {}

    /// The version of a custom resource definition that the kind is; `None` for built-in kinds.
    fn definition(&self) -> Option<&Version> {
        None
    }

    /// Brings what was read from the store into the form in which this version shows it.
    fn present(&self, _object: &mut Object) {}

    /// Whether [`Strategy::present`] leaves every object as it is: then its bytes are shown.
    fn shows_as_stored(&self) -> bool {
        true
    }

    /// Brings it back into the form in which it is stored.
    fn store(&self, _object: &mut Object) {}

    /// The rule for its names.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    /// Removes what a client may not set. The default sets `status` to
    /// [`Strategy::initial_status`], where the kind has one (`has_status`), and starts `metadata.generation` at 1 where the kind has a spec.
    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
    }

    /// Keeps of `old` what an update of the object itself may not change. The default keeps
    /// `status` and counts `metadata.generation` up when anything outside metadata and status
    /// changed.
    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        self.prepare_update_default(object, old);
    }

    /// Keeps of `old` what an update of the status may not change. The default keeps everything but
    /// `status`, labels, annotations and finalizers.
    fn prepare_status_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep_all_but_status(object, old);
    }

    /// Keeps of `old` what an update of the ephemeral containers may not change: all but them.
    fn prepare_ephemeral_update(&self, _object: &mut Object, _old: &Object) {}

    /// Keeps of `old` what a resize may not change: all but the containers' resources.
    fn prepare_resize_update(&self, _object: &mut Object, _old: &Object) {}

    /// Keeps of `old` what an approval may not change.
    fn prepare_approval_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        *object = old.clone();
    }

    /// What is wrong with a change of the ephemeral containers.
    fn validate_ephemeral_update(&self, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change of the containers' resources.
    fn validate_resize_update(&self, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a new object.
    fn validate(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// Whether `validate_update` alone judges an update: what it leaves as it was is not looked at
    /// again.
    fn forgives_what_stays(&self) -> bool {
        false
    }

    /// What is wrong with a change; called beside `validate` on the new object.
    fn validate_update(&self, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change of the status.
    fn validate_status_update(&self, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with an approval. The default is what is wrong with a change of the status.
    fn validate_approval_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        self.validate_status_update(object, old)
    }

    /// What the client should be told though it is allowed: sent as `Warning` headers.
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// Whether the status is a part of its own.
    fn has_status(&self) -> bool {
        true
    }

    /// The status of an object that nobody has observed yet, in kinds that have one: never absent,
    /// since many clients look into it without asking.
    fn initial_status(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }

    /// What a write of the object itself (an empty subresource) or of a part of it cannot change, so
    /// that who sends it does not own it.
    fn reset_fields(&self, subresource: &str) -> Reset {
        match subresource {
            "status" => Reset::AllButStatus,
            "" if self.has_status() => Reset::Status,
            _ => Reset::Nothing,
        }
    }

    /// Whether the registry keeps `metadata.generation`.
    fn has_generation(&self) -> bool {
        true
    }

    /// Whether `PUT` to a name that does not exist creates it.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion is taken.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// The fields that field selectors may name, beyond `metadata.name` and `metadata.namespace`.
    fn selectable(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of one of them. The default follows the dots.
    fn field(&self, object: &Object, path: &str) -> String {
        match object.at(&format!("/{}", path.replace('.', "/"))) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// The columns of its Table. The default is name and age.
    fn columns(&self) -> &'static [Column] {
        &DEFAULT_COLUMNS
    }

    /// The cells of one row, as many as there are columns.
    fn row(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null),
        ]
    }

    /// How long a deletion waits for who runs the object: `None` where deletion is at once. `asked`
    /// is what the client gave.
    fn deletion_grace_seconds(&self, _object: &Object, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something beside `metadata.finalizers` and the grace period holds a terminating
    /// object: a namespace's `spec.finalizers`.
    fn is_held(&self, _object: &Object) -> bool {
        false
    }

    /// What changes in an object whose deletion begins, beside its metadata.
    fn begin_deletion(&self, _object: &mut Object) {}

    /// Whether a finished deletion is answered with the object instead of a `Status`.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// Whether deletion without a `propagationPolicy` leaves the dependents alone.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Where the replicas stand, in kinds with the subresource `scale`.
    fn scale(&self) -> Option<ScalePointers> {
        None
    }

    /// Called on a create where other objects must be read or claimed.
    async fn admit_create(
        &self,
        _ctx: &RequestContext,
        _registry: &Registry,
        _object: &mut Object,
    ) -> Result<Attached, Status> {
        Ok(Attached::default())
    }

    /// Called on an update of the object itself, likewise.
    async fn admit_update(
        &self,
        _ctx: &RequestContext,
        _registry: &Registry,
        _object: &mut Object,
        _old: &Object,
    ) -> Result<Attached, Status> {
        Ok(Attached::default())
    }

    /// Called when the object is about to go for good.
    async fn admit_delete(
        &self,
        _ctx: &RequestContext,
        _registry: &Registry,
        _old: &Object,
    ) -> Result<Attached, Status> {
        Ok(Attached::default())
    }

    /// What [`Strategy::prepare_for_create`] does by default, for those that add to it.
    fn prepare_create_default(&self, object: &mut Object) {
        if self.has_status() {
            object.set(&["status"], self.initial_status());
        }
        if self.has_generation() {
            object.set_meta("generation", 1);
        } else {
            object.remove(&["metadata", "generation"]);
        }
    }

    /// What [`Strategy::prepare_for_update`] does by default, for those that add to it.
    fn prepare_update_default(&self, object: &mut Object, old: &Object) {
        if self.has_status() {
            keep(object, old, "status");
        }
        if self.has_generation() {
            let grown = i64::from(content_changed(object, old));
            object.set_meta("generation", old.generation() + grown);
        }
    }
}

/// The columns of kinds without their own.
static DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this \
                      object was created.",
        priority: 0,
    },
];

/// Takes a top-level field from `old`.
pub fn keep(object: &mut Object, old: &Object, field: &str) {
    match old.value().get(field) {
        Some(value) => object.set(&[field], value.clone()),
        None => drop(object.remove(&[field])),
    }
}

/// Takes everything but `metadata` and `status` from `old`, and the owners with it.
pub fn keep_all_but_status(object: &mut Object, old: &Object) {
    let mut kept = old.clone();
    for field in ["metadata", "status"] {
        kept.remove(&[field]);
        if let Some(value) = object.remove(&[field]) {
            kept.set(&[field], value);
        }
    }
    match old.at("/metadata/ownerReferences") {
        Some(owners) => kept.set_meta("ownerReferences", owners.clone()),
        None => drop(kept.remove(&["metadata", "ownerReferences"])),
    }
    kept.set_meta("generation", old.generation());
    *object = kept;
}

/// Whether anything but metadata and status differs.
pub fn content_changed(object: &Object, old: &Object) -> bool {
    let content = |object: &Object| {
        let mut value = object.value().clone();
        if let Some(map) = value.as_object_mut() {
            for field in ["metadata", "status", "apiVersion", "kind"] {
                map.remove(field);
            }
        }
        value
    };
    content(object) != content(old)
}
