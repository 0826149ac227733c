//! [`Scheme`]: every kind the server knows. A new kind is one file in `resources/` and one line in
//! its list.

use std::collections::HashMap;

use super::strategy::Kind;

/// All kinds, with the ways to find one.
pub struct Scheme {
    kinds: Vec<&'static Kind>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
}

impl Scheme {
    /// The scheme of these kinds.
    ///
    /// # Panics
    /// When two kinds share a resource or a name: a mistake in the list.
    pub fn new(kinds: &[&'static Kind]) -> Self {
        let mut scheme =
            Self { kinds: kinds.to_vec(), by_resource: HashMap::new(), by_kind: HashMap::new() };
        for &kind in kinds {
            let resource = (kind.group, kind.version, kind.plural);
            assert!(
                scheme.by_resource.insert(resource, kind).is_none(),
                "{resource:?} is there twice"
            );
            let name = (kind.group, kind.version, kind.kind);
            assert!(scheme.by_kind.insert(name, kind).is_none(), "{name:?} is there twice");
        }
        scheme
    }

    /// All kinds, in the order in which discovery shows them.
    pub fn kinds(&self) -> &[&'static Kind] {
        &self.kinds
    }

    /// The kind that a path names.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.by_resource.get(&(group, version, plural)).copied()
    }

    /// The kind that an object names.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        self.by_kind.get(&(group, version, kind)).copied()
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = split_api_version(api_version);
        self.kind(group, version, kind)
    }

    /// The groups with their versions, in order.
    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        for kind in &self.kinds {
            if !found.contains(&(kind.group, kind.version)) {
                found.push((kind.group, kind.version));
            }
        }
        found
    }
}

/// `apps/v1` in its two parts; the group of the core is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
