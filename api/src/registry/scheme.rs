//! [`Scheme`]: every kind the server knows. A new kind is one file in `resources/` and one line in
//! its list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::strategy::Kind;

/// The kinds that definitions in the store bring along, in the order in which discovery shows them.
#[derive(Debug, Clone, Default)]
pub struct Custom {
    /// Every served version.
    pub served: Vec<&'static Kind>,
    /// The version in which the objects of each definition are stored, served or not.
    pub stored: Vec<&'static Kind>,
}

impl Custom {
    /// Kinds that are made from the same definition are the same kind.
    fn is_same(&self, other: &Self) -> bool {
        let same = |left: &[&'static Kind], right: &[&'static Kind]| {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| std::ptr::eq(*l, *r))
        };
        same(&self.served, &other.served) && same(&self.stored, &other.stored)
    }
}

/// All kinds, with the ways to find one: those built in, and those that come and go with their
/// definitions.
pub struct Scheme {
    kinds: Vec<&'static Kind>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    custom: RwLock<Arc<Custom>>,
    /// How often the custom kinds have changed.
    changes: watch::Sender<u64>,
}

impl Scheme {
    /// The scheme of these kinds.
    ///
    /// # Panics
    /// When two kinds share a resource or a name: a mistake in the list.
    pub fn new(kinds: &[&'static Kind]) -> Self {
        let mut scheme = Self {
            kinds: kinds.to_vec(),
            by_resource: HashMap::new(),
            by_kind: HashMap::new(),
            custom: RwLock::default(),
            changes: watch::Sender::default(),
        };
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
    pub fn kinds(&self) -> Vec<&'static Kind> {
        let mut kinds = self.kinds.clone();
        kinds.extend(&self.custom().served);
        kinds
    }

    /// One kind for every folder of objects in the store.
    pub fn stored_kinds(&self) -> Vec<&'static Kind> {
        let mut kinds = self.kinds.clone();
        kinds.extend(&self.custom().stored);
        let mut folders = HashSet::new();
        kinds.retain(|kind| kind.is_stored() && folders.insert(kind.storage));
        kinds
    }

    /// Those that are there without a definition.
    pub fn built_in(&self) -> &[&'static Kind] {
        &self.kinds
    }

    /// Those of the definitions.
    pub fn custom(&self) -> Arc<Custom> {
        Arc::clone(&self.custom.read())
    }

    /// Takes the place of all custom kinds.
    pub fn set_custom(&self, custom: Custom) {
        let mut current = self.custom.write();
        if !current.is_same(&custom) {
            *current = Arc::new(custom);
            drop(current);
            self.changes.send_modify(|generation| *generation += 1);
        }
    }

    /// A number that grows whenever the custom kinds change.
    pub fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Tells of every change of the custom kinds from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The kind that a path names.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.by_resource
            .get(&(group, version, plural))
            .copied()
            .or_else(|| self.find_custom(group, version, |kind| kind.plural == plural))
    }

    /// The kind that an object names.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        let built_in = self.by_kind.get(&(group, version, kind)).copied();
        built_in.or_else(|| self.find_custom(group, version, |custom| custom.kind == kind))
    }

    fn find_custom(
        &self,
        group: &str,
        version: &str,
        is_wanted: impl Fn(&Kind) -> bool,
    ) -> Option<&'static Kind> {
        let custom = self.custom();
        let mut served = custom.served.iter().copied();
        served.find(|kind| kind.group == group && kind.version == version && is_wanted(kind))
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = split_api_version(api_version);
        self.kind(group, version, kind)
    }
}

/// `apps/v1` in its two parts; the group of the core is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
