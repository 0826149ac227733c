//! Keys of objects and their owner references.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};

/// Which object of a kind: its namespace (empty for cluster-scoped kinds) and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace`/`name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        Self::of_meta(object.metadata())
    }

    /// The key of the object with this metadata.
    pub fn of_meta(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The one owner that controls the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The key of the object's controller, where that is a `K`.
pub fn controller_key<K: Resource>(meta: &ObjectMeta) -> Option<ObjectKey> {
    controller_of(meta)
        .filter(|owner| owner.kind == K::KIND && group(&owner.api_version) == K::GROUP)
        .map(|owner| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The keys of `K` that a change of a dependent concerns: its controller before and after, or, where
/// it has none, all that might adopt it.
pub fn concerned<K: Resource, D: Metadata<Ty = ObjectMeta>>(
    old: Option<&D>,
    new: Option<&D>,
    adopters: impl FnOnce(&D) -> Vec<ObjectKey>,
) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = [old, new]
        .into_iter()
        .flatten()
        .filter_map(|dependent| controller_key::<K>(dependent.metadata()))
        .collect();
    if let Some(orphan) = new.filter(|new| controller_of(new.metadata()).is_none()) {
        keys.extend(adopters(orphan));
    }
    keys
}

/// The group in an `apiVersion`; empty for the core group.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether the object with uid `owner` controls the object.
pub fn is_controlled_by(meta: &ObjectMeta, owner: &str) -> bool {
    controller_of(meta).is_some_and(|reference| reference.uid == owner)
}

/// A reference that makes `owner` the controller of what carries it, and lets foreground deletion
/// of the owner wait for it.
pub fn controller_reference<K: Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The object's uid, empty where it has none yet.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The object's name, empty where it has none yet.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The object's namespace, empty where it has none.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}
