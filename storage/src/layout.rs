//! What stands where in the engine, byte for byte.
//!
//! ```text
//! tree      key                                       value (each a record of `codec`)
//! --------  ----------------------------------------  -------------------------------------
//! Meta      "format"                                  format version of the whole store
//!           "identity"                                Identity: which cluster, which node (R8)
//!           "head"                                    Head: revision, compacted, hash, applied
//! Versions  epoch u32 BE | revision u64 BE | sub u32  Version: one change of one key
//! State     "lease…"                                  owned by `lease`
//! Log, Raft, State (the rest)                         owned by `raft`
//! ```
//!
//! A sub-revision numbers the changes of one transaction. The epoch changes when a snapshot is
//! installed: the new state is written beside the old one, and the one batch that writes the new
//! head makes it count. Versions of any other epoch than the head's are leftovers and are removed
//! at open.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Place};
use crate::engine::{Batch, Durability, Engine, EngineError, Tree};
use crate::kv::{EventKind, KeyValue, Revision};

/// The format of the store as a whole; an engine with another one is refused. Format 2 has leases,
/// and folds them into the rolling hash; format 3 computes that hash over words.
pub const FORMAT_VERSION: u32 = 3;

const FORMAT: &[u8] = b"format";
const IDENTITY: &[u8] = b"identity";
const HEAD: &[u8] = b"head";

/// Whose files these are. Written once, when a node gets its data directory, and compared at every
/// later start (R8: a node identity is used once).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// The node in it.
    pub node: u64,
}

impl Identity {
    /// The identity that `engine` belongs to; `None` where it has never had one.
    pub fn read(engine: &dyn Engine) -> Result<Option<Self>, EngineError> {
        read_meta(engine, IDENTITY)
    }

    /// Gives `engine` this identity, durably.
    pub fn write(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        batch.put(Tree::Meta, IDENTITY, codec::encode(self));
        engine.write(batch, Durability::Now)
    }
}

/// Where the store stands; rewritten in the same batch as what it describes (R2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Which versions count.
    pub(crate) epoch: u32,
    /// The store's revision.
    pub(crate) revision: Revision,
    /// History before it is forgotten; zero when nothing is.
    pub(crate) compacted: Revision,
    /// The rolling hash at `revision` (R6).
    pub(crate) hash: u64,
    /// The position in the log up to which it is applied, in its owner's words.
    pub(crate) applied: Option<Bytes>,
}

impl Head {
    /// An empty store's.
    pub(crate) fn empty() -> Self {
        Self {
            epoch: 0,
            revision: Revision::EMPTY,
            compacted: Revision::ZERO,
            hash: crate::hash::EMPTY,
            applied: None,
        }
    }

    pub(crate) fn read(engine: &dyn Engine) -> Result<Option<Self>, EngineError> {
        read_meta(engine, HEAD)
    }

    pub(crate) fn put_into(&self, batch: &mut Batch) {
        batch.put(Tree::Meta, HEAD, codec::encode(self));
    }
}

/// One change of one key, as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Put or deleted.
    pub(crate) kind: EventKind,
    /// The key after the change; of a deletion, its key and revision only.
    pub(crate) kv: KeyValue,
}

/// The place of a version in history: a revision, and the number of the change within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VersionId {
    pub(crate) revision: Revision,
    pub(crate) sub: u32,
}

const VERSION_KEY_BYTES: usize = 16;

impl VersionId {
    /// The first that a revision can have.
    pub(crate) fn first_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    /// The key of this version in [`Tree::Versions`].
    pub(crate) fn key(self, epoch: u32) -> Bytes {
        let mut key = Vec::with_capacity(VERSION_KEY_BYTES);
        key.extend_from_slice(&epoch.to_be_bytes());
        key.extend_from_slice(&self.revision.get().to_be_bytes());
        key.extend_from_slice(&self.sub.to_be_bytes());
        key.into()
    }

    /// The version whose key this is.
    pub(crate) fn of_key(key: &[u8]) -> Result<Self, EngineError> {
        let number = |from: usize| -> Option<u32> {
            key.get(from..from + 4)?.try_into().ok().map(u32::from_be_bytes)
        };
        match (key.len(), number(4), number(8), number(12)) {
            (VERSION_KEY_BYTES, Some(high), Some(low), Some(sub)) => {
                let revision = Revision::new(u64::from(high) << 32 | u64::from(low));
                Ok(Self { revision, sub })
            }
            _ => Err(EngineError::Damaged {
                path: VERSIONS_NAME.to_owned(),
                offset: codec::hex(key),
                reason: "not the key of a version".to_owned(),
            }),
        }
    }
}

const VERSIONS_NAME: &str = "versions";

/// The first key of an epoch; the keys of `epoch` end before that of the next.
pub(crate) fn epoch_start(epoch: u32) -> Bytes {
    Bytes::copy_from_slice(&epoch.to_be_bytes())
}

pub(crate) fn decode_version(key: &[u8], record: &[u8]) -> Result<Version, EngineError> {
    codec::decode(record, Place { tree: VERSIONS_NAME, key })
}

/// Refuses a store of another format, and marks an empty engine with ours.
pub(crate) fn check_format(engine: &dyn Engine) -> Result<(), EngineError> {
    match read_meta::<u32>(engine, FORMAT)? {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) => Err(EngineError::Version {
            path: "meta format".to_owned(),
            found,
            expected: FORMAT_VERSION,
        }),
        None => {
            let mut batch = Batch::default();
            batch.put(Tree::Meta, FORMAT, codec::encode(&FORMAT_VERSION));
            engine.write(batch, Durability::Now)
        }
    }
}

fn read_meta<T: serde::de::DeserializeOwned>(
    engine: &dyn Engine,
    key: &'static [u8],
) -> Result<Option<T>, EngineError> {
    let Some(record) = engine.get(Tree::Meta, key)? else { return Ok(None) };
    codec::decode(&record, Place { tree: "meta", key }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::MemoryEngine;

    #[test]
    fn version_keys_sort_by_epoch_then_revision_then_sub_revision() {
        let id = |revision, sub| VersionId { revision: Revision::new(revision), sub };
        let keys = [id(2, 0).key(0), id(2, 1).key(0), id(300, 0).key(0), id(2, 0).key(1)];
        assert!(keys.is_sorted());
        assert!(epoch_start(0) < keys[0] && keys[2] < epoch_start(1));
        assert_eq!(VersionId::of_key(&keys[2]).unwrap(), id(300, 0));
        VersionId::of_key(b"short").unwrap_err();
    }

    #[test]
    fn an_identity_is_absent_until_written_and_then_kept() {
        let engine = MemoryEngine::new();
        assert_eq!(Identity::read(&engine).unwrap(), None);
        let identity = Identity { cluster: "raft".to_owned(), node: 3 };
        identity.write(&engine).unwrap();
        assert_eq!(Identity::read(&engine.after_crash(0)).unwrap(), Some(identity));
    }

    #[test]
    fn another_format_version_is_refused() {
        let engine = MemoryEngine::new();
        check_format(&engine).unwrap();
        check_format(&engine).unwrap();
        let mut batch = Batch::default();
        batch.put(Tree::Meta, FORMAT, codec::encode(&9_u32));
        engine.write(batch, Durability::Now).unwrap();
        assert!(matches!(check_format(&engine), Err(EngineError::Version { found: 9, .. })));
    }
}
