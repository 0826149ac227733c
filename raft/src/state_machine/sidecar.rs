//! What the state machine keeps beside the keys, in the same batches.
//!
//! ```text
//! tree   key                        value (each a record of `codec`)
//! -----  -------------------------  ---------------------------------------------------
//! State  "membership"               proto StoredMembership
//! State  "outcome/" log index BE    Vec<(ProposalId, encoded outcome)> of one batch
//! State  "session/" node u64 BE     (incarnation, settled before)
//! ```

use std::ops::{Bound, ControlFlow};

use bytes::{BufMut as _, Bytes, BytesMut};
use kontiki_storage::engine::{Batch, Engine, EngineError, Tree};
use prost::Message as _;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::proto;
use crate::types::StoredMembership;
use crate::wire;

const MEMBERSHIP: &[u8] = b"membership";
pub(super) const OUTCOME: &[u8] = b"outcome/";
pub(super) const SESSION: &[u8] = b"session/";

/// The key of a numbered record.
pub(super) fn key(prefix: &'static [u8], number: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(prefix.len() + size_of::<u64>());
    key.put_slice(prefix);
    key.put_u64(number);
    key.freeze()
}

fn damaged(key: &[u8], reason: impl ToString) -> EngineError {
    let offset = key.escape_ascii().to_string();
    EngineError::Damaged { path: "state".to_owned(), offset, reason: reason.to_string() }
}

pub(super) fn put_membership(batch: &mut Batch, membership: &StoredMembership) {
    let (key, record) = membership_pair(membership);
    batch.put(Tree::State, key, record);
}

/// The key and the record of a membership.
pub(super) fn membership_pair(membership: &StoredMembership) -> (Bytes, Bytes) {
    let message = wire::stored_membership_to(membership);
    let record = codec::frame(message.encoded_len(), |record| {
        message.encode(record).expect("the buffer must grow as needed");
    });
    (Bytes::from_static(MEMBERSHIP), record)
}

pub(super) fn load_membership(
    engine: &dyn Engine,
) -> Result<Option<StoredMembership>, EngineError> {
    let Some(record) = engine.get(Tree::State, MEMBERSHIP)? else { return Ok(None) };
    let payload = codec::unframe(&record).map_err(|error| damaged(MEMBERSHIP, error))?;
    let message =
        proto::StoredMembership::decode(payload).map_err(|error| damaged(MEMBERSHIP, error))?;
    wire::stored_membership_from(message).map(Some).map_err(|error| damaged(MEMBERSHIP, error))
}

/// All numbered records under `prefix`, in order.
pub(super) fn load_all<T: DeserializeOwned>(
    engine: &dyn Engine,
    prefix: &'static [u8],
) -> Result<Vec<(u64, T)>, EngineError> {
    let mut records = Vec::new();
    let mut failure = None;
    let bounds = (key(prefix, 0), key(prefix, u64::MAX));
    engine.scan(
        Tree::State,
        Bound::Included(&bounds.0),
        Bound::Included(&bounds.1),
        &mut |key, record| match load(key, prefix.len(), &record) {
            Ok(loaded) => {
                records.push(loaded);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    failure.map_or(Ok(records), Err)
}

fn load<T: DeserializeOwned>(
    key: &[u8],
    prefix_len: usize,
    record: &Bytes,
) -> Result<(u64, T), EngineError> {
    let number = key[prefix_len..].try_into().map(u64::from_be_bytes);
    let number = number.map_err(|_| damaged(key, "the key has no number"))?;
    let value = codec::decode_record(record).map_err(|error| damaged(key, error))?;
    Ok((number, value))
}
