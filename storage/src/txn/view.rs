//! [`View`]: a state to read, and [`Layer`]: changes laid over one that is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::engine::EngineError;
use crate::index::bounds;
use crate::kv::{KeyRange, KeyValue, Revision};
use crate::lease::{LeaseChange, LeaseTerms, of_key};

/// What [`View::visit`] calls with each key that exists.
pub(crate) type VisitKeys<'a> = dyn FnMut(&KeyValue) -> ControlFlow<()> + 'a;

/// A state of the store, with its past.
pub(crate) trait View {
    /// The revision of the latest state.
    fn revision(&self) -> Revision;

    /// History before it is forgotten.
    fn compacted(&self) -> Revision;

    /// A key in the latest state.
    fn get(&self, key: &[u8]) -> Option<KeyValue>;

    /// A lease, where it exists.
    fn lease(&self, id: i64) -> Option<LeaseTerms>;

    /// The keys that live by a lease in the latest state, in order.
    fn lease_keys(&self, id: i64) -> Vec<Bytes>;

    /// The keys of a range in order, at a past revision, or with `None` in the latest state, which
    /// must not fail.
    fn visit(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        visit: &mut VisitKeys<'_>,
    ) -> Result<(), EngineError>;
}

/// Changes over a view: readers of the layer see them, readers of the view do not.
pub(crate) struct Layer<'a> {
    below: &'a dyn View,
    revision: Revision,
    compacted: Revision,
    /// Of each changed key its versions since `below`, oldest first; `None` is a deletion.
    changed: BTreeMap<Bytes, Vec<Change>>,
    leases: BTreeMap<i64, Option<LeaseTerms>>,
}

impl<'a> Layer<'a> {
    pub(crate) fn over(below: &'a dyn View) -> Self {
        let (revision, compacted) = (below.revision(), below.compacted());
        Self { below, revision, compacted, changed: BTreeMap::new(), leases: BTreeMap::new() }
    }

    /// Changes `key` at `revision`, where `None` deletes it.
    pub(crate) fn set(&mut self, key: Bytes, revision: Revision, kv: Option<KeyValue>) {
        self.changed.entry(key).or_default().push((revision, kv));
        self.revision = revision;
    }

    /// Changes a lease; `None` ends it.
    pub(crate) fn set_lease(&mut self, (id, terms): LeaseChange) {
        self.leases.insert(id, terms);
    }

    pub(crate) fn set_compacted(&mut self, compacted: Revision) {
        self.compacted = compacted;
    }

    /// Visits what the layer itself has between the last key visited and `before`.
    fn visit_own<'c>(
        own: &mut std::iter::Peekable<impl Iterator<Item = (&'c Bytes, Option<&'c KeyValue>)>>,
        before: Option<&Bytes>,
        visit: &mut VisitKeys<'_>,
    ) -> ControlFlow<()> {
        while let Some((_, kv)) = own.next_if(|(key, _)| before.is_none_or(|before| *key < before))
        {
            if let Some(kv) = kv {
                visit(kv)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// A version of a key: its revision, and what it holds, where `None` is a deletion.
type Change = (Revision, Option<KeyValue>);

/// The version of a changed key at a revision; `None` where the layer has none that old.
fn version_at(versions: &[Change], at: Option<Revision>) -> Option<&Change> {
    versions.iter().rev().find(|(revision, _)| at.is_none_or(|at| *revision <= at))
}

impl View for Layer<'_> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn get(&self, key: &[u8]) -> Option<KeyValue> {
        match self.changed.get(key) {
            Some(versions) => versions.last().and_then(|(_, kv)| kv.clone()),
            None => self.below.get(key),
        }
    }

    fn lease(&self, id: i64) -> Option<LeaseTerms> {
        self.leases.get(&id).copied().unwrap_or_else(|| self.below.lease(id))
    }

    fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let below = self.below.lease_keys(id);
        let mut keys: BTreeSet<Bytes> =
            below.into_iter().filter(|key| !self.changed.contains_key(key)).collect();
        keys.extend(self.changed.iter().filter_map(|(key, versions)| {
            let kv = versions.last().and_then(|(_, kv)| kv.as_ref());
            (of_key(kv) == id).then(|| key.clone())
        }));
        keys.into_iter().collect()
    }

    fn visit(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        visit: &mut VisitKeys<'_>,
    ) -> Result<(), EngineError> {
        let mut own = self
            .changed
            .range::<[u8], _>(bounds(range))
            .filter_map(|(key, versions)| Some((key, version_at(versions, at)?.1.as_ref())))
            .peekable();
        let mut flow = ControlFlow::Continue(());
        let mut merge = |kv: &KeyValue| {
            Self::visit_own(&mut own, Some(&kv.key), visit)?;
            match own.next_if(|(key, _)| **key == kv.key) {
                Some((_, Some(changed))) => visit(changed),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(kv),
            }
        };
        self.below.visit(range, at, &mut |kv| {
            flow = merge(kv);
            flow
        })?;
        if flow.is_continue() {
            let _ = Self::visit_own(&mut own, None, visit);
        }
        Ok(())
    }
}
