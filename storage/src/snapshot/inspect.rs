//! [`Inspection`]: looks at a snapshot without installing it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Chunk, Part, snapshot_error};
use crate::error::StoreError;
use crate::kv::{EventKind, Revision};
use crate::layout::{VersionId, decode_version};

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The revision that it shows.
    pub revision: Revision,
    /// History before it is forgotten; zero where none is.
    pub compacted: Revision,
    /// How many changes of keys it has.
    pub versions: u64,
    /// How many keys exist.
    pub keys: usize,
}

/// A snapshot being looked at, chunk by chunk: every record is read as an installation would.
#[derive(Debug, Default)]
pub struct Inspection {
    next: u64,
    versions: u64,
    header: Option<(Revision, Revision)>,
    last: Option<VersionId>,
    /// Whether each key exists, as of its last change so far.
    keys: BTreeMap<Bytes, bool>,
    complete: bool,
}

impl Inspection {
    /// Looks at the next chunk.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let part = Chunk::decode(chunk, self.next)?;
        self.next += 1;
        match part {
            Part::Header { head, .. } if self.header.is_none() => {
                self.header = Some((head.revision, head.compacted));
            }
            Part::Versions(pairs) if self.header.is_some() && !self.complete => {
                for (key, record) in &pairs {
                    self.version(key, record)?;
                }
            }
            Part::End { versions } if self.header.is_some() && versions == self.versions => {
                self.complete = true;
            }
            _ => return Err(snapshot_error("its parts are not in order or some are missing")),
        }
        Ok(())
    }

    fn version(&mut self, key: &[u8], record: &[u8]) -> Result<(), StoreError> {
        let damaged = |error: crate::engine::EngineError| snapshot_error(&error.to_string());
        let id = VersionId::of_key(key).map_err(damaged)?;
        let version = decode_version(key, record).map_err(damaged)?;
        if self.last.is_some_and(|last| last >= id) {
            return Err(snapshot_error("its versions are not in order"));
        }
        self.last = Some(id);
        self.versions += 1;
        self.keys.insert(version.kv.key, version.kind == EventKind::Put);
        Ok(())
    }

    /// What was seen, once all was.
    pub fn finish(self) -> Result<Summary, StoreError> {
        let Self { header: Some((revision, compacted)), complete: true, .. } = self else {
            return Err(snapshot_error("its last chunk is missing"));
        };
        if self.last.is_some_and(|last| last.revision > revision) {
            return Err(snapshot_error("it has versions after the revision that it claims"));
        }
        let keys = self.keys.values().filter(|exists| **exists).count();
        Ok(Summary { revision, compacted, versions: self.versions, keys })
    }
}
