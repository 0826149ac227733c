//! Whose pods are these: a controller keeps those it controls and selects, adopts matching ones
//! without a controller, and lets go those it no longer selects.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{labels, owners};

/// Objects of the namespace, sorted by what they are to a controller.
#[derive(Debug)]
pub struct Claim<K> {
    /// Its own, matching its selector.
    pub own: Vec<Arc<K>>,
    /// Without a controller, and matching: to be adopted.
    pub adopt: Vec<Arc<K>>,
    /// Its own, but no longer matching: to be let go.
    pub release: Vec<Arc<K>>,
}

impl<K> Default for Claim<K> {
    fn default() -> Self {
        Self { own: Vec::new(), adopt: Vec::new(), release: Vec::new() }
    }
}

/// Sorts the namespace's objects. An owner that is being deleted takes and lets go nothing.
pub fn claim<K: Metadata<Ty = ObjectMeta>>(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    objects: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim::default();
    let owner_terminates = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.metadata();
        let matches = labels::matches(selector, meta.labels.as_ref());
        let terminates = meta.deletion_timestamp.is_some();
        match owners::controller_of(meta) {
            Some(other) if other.uid != owners::uid(owner) => {}
            Some(_) if matches => claim.own.push(object),
            Some(_) if !owner_terminates => claim.release.push(object),
            None if matches && !owner_terminates && !terminates => claim.adopt.push(object),
            _ => {}
        }
    }
    claim
}
