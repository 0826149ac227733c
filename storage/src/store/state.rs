//! [`State`]: what the store keeps in memory, and its views for reading.

use bytes::Bytes;

use crate::codec::hex;
use crate::engine::{Engine, EngineError, Tree};
use crate::hash::{self, RecentHashes};
use crate::index::KeyIndex;
use crate::kv::{EventKind, KeyRange, KeyValue, Revision};
use crate::layout::{self, Head, Version, VersionId};
use crate::lease::{LeaseTerms, Leases, of_key};
use crate::txn::{View, VisitKeys};

/// The latest state whole, and where to find the past.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) index: KeyIndex,
    pub(crate) hashes: RecentHashes,
    pub(crate) leases: Leases,
    /// How many bytes the keys that exist hold.
    pub(crate) live_bytes: u64,
    /// The sum of what each key that exists is (R6).
    digest: u64,
}

impl State {
    /// A state with this head and these leases, to be filled with versions.
    pub(crate) fn new(head: Head, leases: Leases) -> Self {
        Self {
            head,
            index: KeyIndex::default(),
            hashes: RecentHashes::default(),
            leases,
            live_bytes: 0,
            digest: 0,
        }
    }

    /// Adds the next version of history.
    pub(crate) fn push(&mut self, id: VersionId, version: Version) {
        let Version { kind, kv } = version;
        let key = kv.key.clone();
        let after = (kind == EventKind::Put).then_some(kv);
        let lease = of_key(after.as_ref());
        if let Some(kv) = &after {
            self.live_bytes += size(kv);
            self.digest = self.digest.wrapping_add(hash::of_key(kv));
        }
        let before = self.index.push(&key, id, after);
        if let Some(kv) = &before {
            self.live_bytes -= size(kv);
            self.digest = self.digest.wrapping_sub(hash::of_key(kv));
        }
        self.leases.moved(
            before.as_ref().map_or(&key, |kv| &kv.key),
            of_key(before.as_ref()),
            lease,
        );
    }

    /// The hash of the state whose rolling hash is `rolling` (R6).
    pub(crate) fn hash(&self, rolling: u64) -> u64 {
        hash::of_state(rolling, self.digest)
    }

    /// Where to find the keys of `range` as of a past revision: their latest values where those
    /// are as old, else the places of their versions.
    pub(crate) fn locate(&self, range: &KeyRange, at: Revision) -> Vec<Located> {
        let exists = self.index.range(range).filter_map(|(_, history)| {
            let id = history.at(at)?;
            let latest = history.latest().filter(|kv| kv.mod_revision == id.revision);
            Some(latest.map_or(Located::Past(id), |kv| Located::Latest(kv.clone())))
        });
        exists.collect()
    }
}

fn size(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

/// Where a key at some revision is to be found.
#[derive(Debug)]
pub(crate) enum Located {
    Latest(KeyValue),
    Past(VersionId),
}

/// The state with its engine: what transactions are evaluated against. Whoever holds one must hold
/// the writer's lock, so that nothing it locates is forgotten meanwhile.
pub(crate) struct StateView<'a> {
    pub(crate) state: &'a State,
    pub(crate) engine: &'a dyn Engine,
}

impl View for StateView<'_> {
    fn revision(&self) -> Revision {
        self.state.head.revision
    }

    fn compacted(&self) -> Revision {
        self.state.head.compacted
    }

    fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.state.index.get(key)?.latest().cloned()
    }

    fn lease(&self, id: i64) -> Option<LeaseTerms> {
        self.state.leases.terms(id)
    }

    fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.state.leases.keys(id)
    }

    fn visit(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        visit: &mut VisitKeys<'_>,
    ) -> Result<(), EngineError> {
        let Some(at) = at else {
            let _ = self.state.index.latest(range).try_for_each(visit);
            return Ok(());
        };
        for located in self.state.locate(range, at) {
            let kv = match located {
                Located::Latest(kv) => kv,
                Located::Past(id) => must_read_version(self.engine, self.state.head.epoch, id)?.kv,
            };
            if visit(&kv).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Reads one version from the engine; `None` where it is not there.
pub(crate) fn read_version(
    engine: &dyn Engine,
    epoch: u32,
    id: VersionId,
) -> Result<Option<Version>, EngineError> {
    let key = id.key(epoch);
    let Some(record) = engine.get(Tree::Versions, &key)? else { return Ok(None) };
    let version = layout::decode_version(&key, &record)?;
    if version.kv.mod_revision != id.revision {
        return Err(damaged(&key, "it holds another revision than its key names"));
    }
    Ok(Some(version))
}

fn must_read_version(
    engine: &dyn Engine,
    epoch: u32,
    id: VersionId,
) -> Result<Version, EngineError> {
    read_version(engine, epoch, id)?
        .ok_or_else(|| damaged(&id.key(epoch), "the index names a version that is not there"))
}

pub(crate) fn damaged(key: &[u8], reason: &str) -> EngineError {
    EngineError::Damaged {
        path: "versions".to_owned(),
        offset: hex(key),
        reason: reason.to_owned(),
    }
}
