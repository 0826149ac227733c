//! etcd's checksum of all history, bit for bit: equal members of etcd and of ours tell the same.
//!
//! It is a CRC-32C over the name of etcd's bucket and, of each change in order, its key there and
//! its message:
//!
//! ```text
//! revision u64 BE | '_' | number of the change u64 BE | 't' where it is a deletion
//! mvccpb.KeyValue; of a deletion, the key alone
//! ```

use kontiki_storage::kv::{EventKind, KvError, Revision};
use kontiki_storage::store::{Change, Store};
use prost::Message as _;

use super::{convert, proto};

const BUCKET: &[u8] = b"key";

/// A checksum, and what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) hash: u32,
    /// The compacted revision, -1 where nothing is compacted.
    pub(super) compacted: i64,
}

/// The checksum up to `revision`, by default the latest. It blocks.
pub(super) fn of(store: &Store, revision: Option<Revision>) -> Result<Hashed, KvError> {
    let compacted = store.compacted();
    if let Some(requested) = revision.filter(|revision| *revision <= compacted) {
        return Err(KvError::Compacted { requested, compacted });
    }
    let mut hash = crc32c::crc32c(BUCKET);
    let visited = store.visit_history(revision, &mut |change| {
        hash = crc32c::crc32c_append(hash, &key(&change));
        hash = crc32c::crc32c_append(hash, &value(&change));
    })?;
    let compacted = match visited.compacted {
        Revision::ZERO => -1,
        compacted => convert::signed(compacted.get()),
    };
    Ok(Hashed { hash, compacted })
}

/// The key of a change in etcd's bucket.
pub(super) fn key(change: &Change<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&change.revision.get().to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&u64::from(change.sub).to_be_bytes());
    if change.kind == EventKind::Delete {
        key.push(b't');
    }
    key
}

/// What stands under it.
pub(super) fn value(change: &Change<'_>) -> Vec<u8> {
    let message = match change.kind {
        EventKind::Put => convert::key_value(change.kv.clone()),
        EventKind::Delete => {
            proto::KeyValue { key: change.kv.key.clone(), ..proto::KeyValue::default() }
        }
    };
    message.encode_to_vec()
}
