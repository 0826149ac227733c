//! [`Overlay`]: what has been written and has not reached sled yet.
//!
//! ```text
//!   reads ─▶ active ─▶ held ─▶ frozen ─▶ pages in sled
//!   writes ─▶ active                │
//!                                   └─ being written to sled as one step, then dropped
//! ```
//!
//! What is overwritten or deleted while it is still in `active` never reaches sled at all; what a
//! step leaves out is `held` (`held.rs`).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::held::Held;
use super::journal::Sequence;
use super::{Batch, Tree, Write, is_empty_range};

/// Keys that were set, or with `None` deleted.
pub(super) type Points = BTreeMap<Bytes, Option<Bytes>>;

/// What an entry costs in memory beside its bytes, roughly.
const ENTRY_BYTES: usize = 96;

/// Changes to one tree.
#[derive(Debug, Default)]
pub(super) struct TreeLayer {
    pub(super) points: Points,
    /// Ranges that were cleared, start to end, excluded; disjoint. Points count over them.
    pub(super) cleared: BTreeMap<Bytes, Bytes>,
}

/// What a layer knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Value(Bytes),
    Gone,
    /// The layer below decides.
    Nothing,
}

impl TreeLayer {
    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.points.insert(key, value);
    }

    fn clear(&mut self, start: &Bytes, before: &Bytes) {
        if start >= before {
            return;
        }
        self.points.extract_if(start..before, |_, _| true).for_each(drop);
        let (mut start, mut before) = (start.clone(), before.clone());
        let touching: Vec<_> = self
            .cleared
            .range(..=before.clone())
            .rev()
            .take_while(|(_, end)| **end >= start)
            .map(|(from, end)| (from.clone(), end.clone()))
            .collect();
        for (from, end) in touching {
            self.cleared.remove(&from);
            start = start.min(from);
            before = before.max(end);
        }
        self.cleared.insert(start, before);
    }

    fn get(&self, key: &[u8]) -> Known {
        match self.points.get(key) {
            Some(Some(value)) => Known::Value(value.clone()),
            Some(None) => Known::Gone,
            None if self.clearing(key).is_some() => Known::Gone,
            None => Known::Nothing,
        }
    }

    /// The cleared range that holds `key`.
    fn clearing(&self, key: &[u8]) -> Option<(&Bytes, &Bytes)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (start, before) = self.cleared.range::<[u8], _>(upto).next_back()?;
        (key < &before[..]).then_some((start, before))
    }
}

/// Changes to all trees.
#[derive(Debug, Default)]
pub(super) struct Layer {
    trees: BTreeMap<Tree, TreeLayer>,
    /// About how much memory it takes; it may count too much, never too little.
    bytes: usize,
}

impl Layer {
    pub(super) fn trees(&self) -> impl Iterator<Item = (Tree, &TreeLayer)> {
        self.trees.iter().map(|(tree, layer)| (*tree, layer))
    }

    fn apply(&mut self, batch: Batch) {
        for write in batch.writes {
            self.bytes += ENTRY_BYTES;
            match write {
                Write::Put { tree, key, value } => {
                    self.bytes += key.len() + value.len();
                    self.trees.entry(tree).or_default().set(key, Some(value));
                }
                Write::Delete { tree, key } => {
                    self.bytes += key.len();
                    self.trees.entry(tree).or_default().set(key, None);
                }
                Write::DeleteRange { tree, start, before } => {
                    self.bytes += start.len() + before.len();
                    self.trees.entry(tree).or_default().clear(&start, &before);
                }
            }
        }
    }
}

/// What lies over sled.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    active: Layer,
    held: Held,
    frozen: Option<Arc<Layer>>,
}

/// A layer for a step.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) layer: Arc<Layer>,
    /// The journal's records after this one are still needed for what is held; `None` where
    /// nothing is.
    pub(super) held_after: Option<Sequence>,
}

/// A part of the overlay, copied out: within `upto`, what is neither in `entries` nor cleared is as
/// the pages have it.
#[derive(Debug)]
pub(super) struct OverlaySlice {
    pub(super) entries: BTreeMap<Bytes, Option<Bytes>>,
    pub(super) cleared: Vec<(Bytes, Bytes)>,
    /// The last key that the slice speaks for; `None` where it speaks for all that was asked.
    pub(super) upto: Option<Bytes>,
}

impl Overlay {
    pub(super) fn apply(&mut self, batch: Batch) {
        for write in &batch.writes {
            if let Write::DeleteRange { tree: Held::TREE, start, before } = write {
                self.held.clear(start, before);
            }
        }
        self.active.apply(batch);
    }

    /// About how many bytes wait in the active layer.
    pub(super) fn active_bytes(&self) -> usize {
        self.active.bytes
    }

    /// Ends the active layer, of which nothing stands in the journal's records up to `after`, and
    /// begins another.
    pub(super) fn freeze(&mut self, after: Sequence) -> Frozen {
        assert!(self.frozen.is_none(), "only one step may be under way");
        let mut layer = std::mem::take(&mut self.active);
        let bytes = layer.bytes;
        let log = layer.trees.entry(Held::TREE).or_default();
        log.points = self.held.exchange(std::mem::take(&mut log.points), after, bytes);
        let layer = Arc::new(layer);
        self.frozen = Some(Arc::clone(&layer));
        Frozen { layer, held_after: self.held.after() }
    }

    /// Drops the frozen layer, now that sled has it.
    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    fn layers(&self, tree: Tree) -> impl Iterator<Item = &TreeLayer> {
        let active = self.active.trees.get(&tree);
        let frozen = self.frozen.as_ref().and_then(|layer| layer.trees.get(&tree));
        active.into_iter().chain(self.held.tree(tree)).chain(frozen)
    }

    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Known {
        let known = self.layers(tree).map(|layer| layer.get(key));
        known.into_iter().find(|known| *known != Known::Nothing).unwrap_or(Known::Nothing)
    }

    /// The greatest key before `before` that a layer has set or deleted.
    pub(super) fn last_before(&self, tree: Tree, before: Option<&Bytes>) -> Option<Bytes> {
        let last = |layer: &TreeLayer| match before {
            Some(before) => {
                layer.points.range::<Bytes, _>(..before).next_back().map(|(key, _)| key.clone())
            }
            None => layer.points.last_key_value().map(|(key, _)| key.clone()),
        };
        self.layers(tree).filter_map(last).max()
    }

    /// Where a cleared range that holds `key` begins.
    pub(super) fn cleared_from(&self, tree: Tree, key: &[u8]) -> Option<Bytes> {
        self.layers(tree)
            .filter_map(|layer| layer.clearing(key))
            .map(|(start, _)| start.clone())
            .min()
    }

    /// Copies out what the overlay has between two bounds, about `most` entries of each layer.
    pub(super) fn slice(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        most: usize,
    ) -> OverlaySlice {
        let mut slice = OverlaySlice { entries: BTreeMap::new(), cleared: Vec::new(), upto: None };
        if is_empty_range(from, to) {
            return slice;
        }
        for layer in self.layers(tree) {
            let mut points = layer.points.range::<[u8], _>((from, to));
            let mut last = None;
            for (key, value) in points.by_ref().take(most) {
                // A newer layer's word counts, also where it cleared a range.
                let newer =
                    slice.cleared.iter().any(|(start, before)| start <= key && key < before);
                if !newer {
                    slice.entries.entry(key.clone()).or_insert_with(|| value.clone());
                }
                last = Some(key);
            }
            if points.next().is_some() {
                slice.upto = slice.upto.into_iter().chain(last.cloned()).min();
            }
            let cleared =
                layer.cleared.iter().map(|(start, before)| (start.clone(), before.clone()));
            slice.cleared.extend(cleared);
        }
        if let Some(upto) = &slice.upto {
            let _ = slice.entries.split_off(&after(upto));
        }
        slice
    }
}

/// The key right after `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleared(layer: &TreeLayer) -> Vec<(&[u8], &[u8])> {
        layer.cleared.iter().map(|(start, before)| (&start[..], &before[..])).collect()
    }

    fn clear(layer: &mut TreeLayer, start: &'static str, before: &'static str) {
        layer.clear(&start.into(), &before.into());
    }

    #[test]
    fn cleared_ranges_that_touch_become_one() {
        let mut layer = TreeLayer::default();
        clear(&mut layer, "b", "d");
        clear(&mut layer, "f", "h");
        clear(&mut layer, "x", "y");
        clear(&mut layer, "z", "a");
        assert_eq!(cleared(&layer).len(), 3);
        clear(&mut layer, "d", "f");
        assert_eq!(cleared(&layer), [(&b"b"[..], &b"h"[..]), (b"x", b"y")]);
        clear(&mut layer, "a", "c");
        clear(&mut layer, "c", "d");
        assert_eq!(cleared(&layer), [(&b"a"[..], &b"h"[..]), (b"x", b"y")]);
    }

    #[test]
    fn a_point_counts_over_a_cleared_range_and_is_dropped_by_a_later_one() {
        let mut layer = TreeLayer::default();
        clear(&mut layer, "a", "z");
        layer.set("k".into(), Some("v".into()));
        assert_eq!(layer.get(b"k"), Known::Value("v".into()));
        assert_eq!(layer.get(b"l"), Known::Gone);
        assert_eq!(layer.get(b"z"), Known::Nothing);
        clear(&mut layer, "k", "l");
        assert_eq!(layer.get(b"k"), Known::Gone);
        assert!(layer.points.is_empty(), "it must never reach sled");
    }

    #[test]
    fn the_newer_layer_hides_the_older_one() {
        let mut overlay = Overlay::default();
        let mut batch = Batch::default();
        for key in ["a", "b", "c", "d"] {
            batch.put(Tree::Log, key, "old");
        }
        overlay.apply(batch);
        overlay.freeze(0);
        let mut batch = Batch::default();
        batch.delete_range(Tree::Log, "b", "d");
        batch.put(Tree::Log, "c", "new");
        batch.delete(Tree::Log, "a");
        overlay.apply(batch);
        let known = |key: &str| overlay.get(Tree::Log, key.as_bytes());
        assert_eq!(known("a"), Known::Gone);
        assert_eq!(known("b"), Known::Gone);
        assert_eq!(known("c"), Known::Value("new".into()));
        assert_eq!(known("d"), Known::Value("old".into()));
        let slice = overlay.slice(Tree::Log, Bound::Unbounded, Bound::Unbounded, 10);
        let entries: Vec<_> = slice.entries.into_iter().collect();
        let expected: [(Bytes, Option<Bytes>); 3] = [
            ("a".into(), None),
            ("c".into(), Some("new".into())),
            ("d".into(), Some("old".into())),
        ];
        assert_eq!(entries, expected);
        let short = overlay.slice(Tree::Log, Bound::Unbounded, Bound::Unbounded, 1);
        assert_eq!((short.entries.len(), short.upto), (1, Some("a".into())));
    }
}
