//! Reads: the overlay first, then sled. The overlay is always looked at first, so that what a step
//! moves from one to the other in between is seen in at least one of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::Shared;
use crate::engine::overlay::Known;
use crate::engine::{EngineError, Tree, Visit};

/// How much a scan copies out at a time, so that it holds no lock while it visits.
const SLICE_ENTRIES: usize = 256;
const SLICE_BYTES: usize = 1 << 20;

pub(super) fn get(shared: &Shared, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
    let known = shared.overlay.read().get(tree, key);
    match known {
        Known::Value(value) => Ok(Some(value)),
        Known::Gone => Ok(None),
        Known::Nothing => shared.pages.get(tree, key),
    }
}

pub(super) fn scan(
    shared: &Shared,
    tree: Tree,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), EngineError> {
    let mut from = from.map(Bytes::copy_from_slice);
    loop {
        let bound = from.as_ref().map(|key| &key[..]);
        let (entries, upto) = slice(shared, tree, bound, to)?;
        for (key, value) in entries {
            if visit(&key, value).is_break() {
                return Ok(());
            }
        }
        match upto {
            Some(upto) => from = Bound::Excluded(upto),
            None => return Ok(()),
        }
    }
}

type Entries = BTreeMap<Bytes, Bytes>;

/// What there is from `from` on up to the key returned, or to the end where there is none.
fn slice(
    shared: &Shared,
    tree: Tree,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Result<(Entries, Option<Bytes>), EngineError> {
    let over = shared.overlay.read().slice(tree, from, to, SLICE_ENTRIES);
    let end = over.upto.as_deref().map_or(to, Bound::Included);
    let below = shared.pages.slice(tree, from, end, SLICE_ENTRIES, SLICE_BYTES)?;
    let upto = below.upto.or(over.upto);
    let is_cleared =
        |key: &Bytes| over.cleared.iter().any(|(start, before)| start <= key && key < before);
    let mut entries: Entries = below
        .entries
        .into_iter()
        .filter(|(key, _)| !over.entries.contains_key(key) && !is_cleared(key))
        .collect();
    for (key, value) in over.entries {
        if let Some(value) = value
            && upto.as_ref().is_none_or(|upto| key <= *upto)
        {
            entries.insert(key, value);
        }
    }
    Ok((entries, upto))
}

pub(super) fn last(shared: &Shared, tree: Tree) -> Result<Option<(Bytes, Bytes)>, EngineError> {
    let mut before: Option<Bytes> = None;
    // The pages are skipped where a whole range of them was cleared; over it there may be new keys.
    let mut below: Option<Bytes> = None;
    loop {
        let over = shared.overlay.read().last_before(tree, before.as_ref());
        let under = shared.pages.last_before(tree, below.as_deref())?;
        let Some(key) = over.max(under.map(|(key, _)| key)) else { return Ok(None) };
        if let Some(value) = get(shared, tree, &key)? {
            return Ok(Some((key, value)));
        }
        let cleared = shared.overlay.read().cleared_from(tree, &key);
        below = Some(cleared.unwrap_or_else(|| key.clone()));
        before = Some(key);
    }
}
