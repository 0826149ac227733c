//! [`PartialObject`]: what is asked of an object of which only identity and ties matter. It is read
//! from the stored bytes past everything else, and takes a few hundred bytes however large the
//! object is.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::object::{Object, OwnerRef};

/// Identity and ties of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartialObject {
    /// Its namespace; empty for what has none.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// The revision of its last change.
    pub revision: u64,
    /// Its owners.
    pub owners: Box<[OwnerRef]>,
    /// Its finalizers.
    pub finalizers: Box<[String]>,
    /// Whether its deletion has begun.
    pub is_terminating: bool,
}

impl PartialObject {
    /// Whether a finalizer holds it.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|own| own == finalizer)
    }

    /// What it is of a whole object.
    pub fn of(object: &Object) -> Self {
        Self {
            namespace: object.namespace().into(),
            name: object.name().into(),
            uid: object.uid().into(),
            revision: object.resource_version().parse().unwrap_or(0),
            owners: object.owner_refs().into(),
            finalizers: object.finalizers().into_iter().map(str::to_owned).collect(),
            is_terminating: object.is_terminating(),
        }
    }

    /// Whether it is the same object with the same owners and finalizers, whatever else has changed.
    pub fn has_ties_of(&self, other: &Self) -> bool {
        let ties = |one: &Self| {
            (one.uid.clone(), one.owners.clone(), one.finalizers.clone(), one.is_terminating)
        };
        ties(self) == ties(other)
    }

    /// Reads it from a stored object.
    pub(super) fn from_stored(bytes: &[u8], revision: u64) -> Result<Self, String> {
        let Stored { metadata } =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            revision,
            owners: metadata.owner_references.unwrap_or_default().into(),
            finalizers: metadata.finalizers.unwrap_or_default().into(),
            is_terminating: metadata.deletion_timestamp.is_some(),
        })
    }
}

#[derive(Deserialize)]
struct Stored {
    metadata: StoredMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMetadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    owner_references: Option<Vec<OwnerRef>>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_ties_are_read_past_everything_else() {
        let stored = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":null,
            "deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["orphan"],"name":"p",
            "namespace":"n","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"o",
            "uid":"u"}],"uid":"own"},"spec":{"containers":[{"name":"a"}]}}"#;
        let object = PartialObject::from_stored(stored, 7).unwrap();
        assert_eq!((&*object.namespace, &*object.name, &*object.uid), ("n", "p", "own"));
        assert_eq!((object.revision, object.is_terminating), (7, true));
        assert!(object.has_finalizer("orphan") && !object.has_finalizer("foregroundDeletion"));
        assert_eq!(object.owners[0].uid, "u");
        let bare = br#"{"metadata":{"name":"x","deletionTimestamp":null,"finalizers":null}}"#;
        let bare = PartialObject::from_stored(bare, 1).unwrap();
        assert!(!bare.is_terminating && bare.owners.is_empty() && bare.namespace.is_empty());
        assert!(PartialObject::from_stored(b"{}", 1).is_err());
    }
}
