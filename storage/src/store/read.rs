//! Reads beside apply: the latest state under a short lock, the past without one.

use super::Shared;
use super::state::{Located, StateView, read_version};
use crate::error::StoreError;
use crate::kv::{InvalidRequest, KvError, RangeRequest, RangeResponse, Revision};
use crate::txn::{self, EvaluateError};

/// How often a read of the past starts again because a snapshot was installed under it.
const TRIES: usize = 3;

pub(super) fn range(shared: &Shared, request: &RangeRequest) -> Result<RangeResponse, KvError> {
    txn::check_range(&request.range).map_err(KvError::Invalid)?;
    for _ in 0..TRIES {
        let state = shared.state.read();
        let current = state.head.revision;
        let past = txn::check_revision(request.revision, current, state.head.compacted)?;
        let Some(at) = past else {
            let view = StateView { state: &state, engine: &*shared.engine };
            return txn::read(&view, request, current).map_err(|error| failure(shared, error));
        };
        let epoch = state.head.epoch;
        let located = state.locate(&request.range, at);
        drop(state);
        if let Some(response) = past_range(shared, request, located, epoch, current)? {
            return Ok(response);
        }
        refuse_if_compacted(shared, at)?;
    }
    Err(KvError::Unavailable { reason: "the store's state is being replaced".to_owned() })
}

/// Fetches what was located; `None` where some of it has been forgotten in the meantime.
fn past_range(
    shared: &Shared,
    request: &RangeRequest,
    located: Vec<Located>,
    epoch: u32,
    current: Revision,
) -> Result<Option<RangeResponse>, KvError> {
    let count = located.len() as u64;
    let wanted = match (request.count_only, request.limit) {
        (true, _) => 0,
        (false, 0) => located.len(),
        (false, limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut kvs = Vec::with_capacity(wanted.min(located.len()));
    for place in located.into_iter().take(wanted) {
        let mut kv = match place {
            Located::Latest(kv) => kv,
            Located::Past(id) => match read_version(&*shared.engine, epoch, id) {
                Ok(Some(version)) => version.kv,
                Ok(None) => return Ok(None),
                Err(error) => return Err(failure(shared, error.into())),
            },
        };
        if request.keys_only {
            kv.value.clear();
        }
        kvs.push(kv);
    }
    let more = !request.count_only && count > kvs.len() as u64;
    Ok(Some(RangeResponse { revision: current, kvs, more, count }))
}

fn refuse_if_compacted(shared: &Shared, requested: Revision) -> Result<(), KvError> {
    let compacted = shared.state.read().head.compacted;
    if requested < compacted {
        return Err(KvError::Compacted { requested, compacted });
    }
    Ok(())
}

/// A refusal as it is; an engine that cannot be read stops the store (R6).
fn failure(shared: &Shared, error: EvaluateError) -> KvError {
    match error {
        EvaluateError::Refused(refusal) => refusal,
        EvaluateError::Engine(error) => {
            let error = StoreError::from(error);
            shared.fail(&error);
            error.into()
        }
    }
}

impl From<InvalidRequest> for KvError {
    fn from(invalid: InvalidRequest) -> Self {
        Self::Invalid(invalid)
    }
}
