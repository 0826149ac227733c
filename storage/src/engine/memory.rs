//! [`MemoryEngine`]: the contract of [`Engine`] without a disk, for simulation and tests.
//!
//! It keeps apart what is durable and what is only written, so that a simulated crash can lose
//! exactly what a real one may.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Durability, Engine, EngineError, Room, Tree, Visit, Write};

/// How many entries a scan copies out at a time, so that it holds no lock while it visits.
const SCAN_SLICE: usize = 256;

type Trees = BTreeMap<Tree, BTreeMap<Bytes, Bytes>>;

/// An engine that forgets everything with the process, unless [`MemoryEngine::after_crash`] is
/// asked for what a disk would have kept.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    contents: RwLock<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    written: Trees,
    durable: Trees,
    /// Batches that are in `written` but not yet in `durable`.
    pending: VecDeque<Batch>,
    stopped: Option<String>,
    is_full: bool,
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a crash would leave: all that is durable, and of the batches written after it the
    /// first `kept` (fewer, where there are fewer).
    #[must_use]
    pub fn after_crash(&self, kept: usize) -> Self {
        let contents = self.contents.read();
        let mut trees = contents.durable.clone();
        for batch in contents.pending.iter().take(kept) {
            apply(&mut trees, batch);
        }
        let survivor = Contents { written: trees.clone(), durable: trees, ..Contents::default() };
        Self { contents: RwLock::new(survivor) }
    }

    /// How many written batches are not durable yet.
    pub fn pending(&self) -> usize {
        self.contents.read().pending.len()
    }

    /// Makes every later write fail, as a full disk would.
    pub fn stop(&self, reason: &str) {
        self.contents.write().stopped = Some(reason.to_owned());
    }
}

impl MemoryEngine {
    /// Says from now on that there is room for more or not, as a disk that fills does.
    pub fn set_room(&self, room: Room) {
        self.contents.write().is_full = room != Room::Ample;
    }
}

impl Contents {
    fn refuse_if_stopped(&self) -> Result<(), EngineError> {
        match &self.stopped {
            Some(reason) => Err(EngineError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn settle(&mut self) {
        for batch in self.pending.drain(..) {
            apply(&mut self.durable, &batch);
        }
    }
}

fn apply(trees: &mut Trees, batch: &Batch) {
    for write in &batch.writes {
        match write {
            Write::Put { tree, key, value } => {
                trees.entry(*tree).or_default().insert(key.clone(), value.clone());
            }
            Write::Delete { tree, key } => {
                trees.entry(*tree).or_default().remove(key);
            }
            Write::DeleteRange { tree, start, before } => {
                if start < before {
                    let entries = trees.entry(*tree).or_default();
                    let mut rest = entries.split_off(start);
                    entries.append(&mut rest.split_off(before));
                }
            }
        }
    }
}

impl Engine for MemoryEngine {
    fn room(&self) -> Room {
        if self.contents.read().is_full { Room::Reserve } else { Room::Ample }
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), EngineError> {
        super::check_bounds(&batch);
        let mut contents = self.contents.write();
        contents.refuse_if_stopped()?;
        apply(&mut contents.written, &batch);
        contents.pending.push_back(batch);
        if durability == Durability::Now {
            contents.settle();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut contents = self.contents.write();
        contents.refuse_if_stopped()?;
        contents.settle();
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let contents = self.contents.read();
        Ok(contents.written.get(&tree).and_then(|entries| entries.get(key)).cloned())
    }

    fn scan(
        &self,
        tree: Tree,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut from = from.map(Bytes::copy_from_slice);
        loop {
            let slice = self.slice(tree, &from, to);
            let Some((last, _)) = slice.last() else { return Ok(()) };
            let resume = Bound::Excluded(last.clone());
            for (key, value) in slice {
                if visit(&key, value).is_break() {
                    return Ok(());
                }
            }
            from = resume;
        }
    }

    fn last(&self, tree: Tree) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let contents = self.contents.read();
        let last = contents.written.get(&tree).and_then(BTreeMap::last_key_value);
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }
}

impl MemoryEngine {
    fn slice(&self, tree: Tree, from: &Bound<Bytes>, to: Bound<&[u8]>) -> Vec<(Bytes, Bytes)> {
        let from = from.as_ref().map(|key| &key[..]);
        if super::is_empty_range(from, to) {
            return Vec::new();
        }
        let contents = self.contents.read();
        let Some(entries) = contents.written.get(&tree) else { return Vec::new() };
        let mut slice = Vec::new();
        for (key, value) in entries.range::<[u8], _>((from, to)).take(SCAN_SLICE) {
            slice.push((key.clone(), value.clone()));
        }
        slice
    }
}
