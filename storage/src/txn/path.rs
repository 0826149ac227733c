//! [`Path`]: which branch of a transaction, and of each one nested in it, is taken.
//!
//! It is found before anything is done, from the state as it was: a nested compare does not see
//! what the transaction has done before it. So is what must hold of the operations on the way.

use super::{EvaluateError, View, check_revision, holds};
use crate::engine::EngineError;
use crate::kv::{InvalidRequest, Op, Txn};

/// The operations that are done.
pub(super) struct Path<'a> {
    /// Whether all compares held.
    pub(super) succeeded: bool,
    pub(super) steps: Vec<Step<'a>>,
}

/// One of them.
pub(super) enum Step<'a> {
    Op(&'a Op),
    Txn(Path<'a>),
}

impl<'a> Path<'a> {
    pub(super) fn of(txn: &'a Txn, view: &dyn View) -> Result<Self, EngineError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && holds(view, compare)?;
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let step = |op: &'a Op| {
            Ok::<_, EngineError>(match op {
                Op::Txn(txn) => Step::Txn(Self::of(txn, view)?),
                op => Step::Op(op),
            })
        };
        Ok(Self { succeeded, steps: ops.iter().map(step).collect::<Result<_, _>>()? })
    }

    /// Refuses what the state does not allow: all puts are looked at before all reads, as in etcd.
    pub(super) fn check(&self, view: &dyn View) -> Result<(), EvaluateError> {
        self.each(&mut |op| match op {
            Op::Put { key, value, lease, .. } => check_put(view, key, value.is_some(), *lease),
            _ => Ok(()),
        })?;
        self.each(&mut |op| match op {
            Op::Range(request) => {
                check_revision(request.revision, view.revision(), view.compacted())?;
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn each(
        &self,
        check: &mut dyn FnMut(&Op) -> Result<(), EvaluateError>,
    ) -> Result<(), EvaluateError> {
        for step in &self.steps {
            match step {
                Step::Op(op) => check(op)?,
                Step::Txn(path) => path.each(check)?,
            }
        }
        Ok(())
    }
}

fn check_put(
    view: &dyn View,
    key: &[u8],
    has_value: bool,
    lease: Option<i64>,
) -> Result<(), EvaluateError> {
    if (!has_value || lease.is_none()) && view.get(key).is_none() {
        return Err(InvalidRequest::KeyNotFound.into());
    }
    match lease {
        Some(id) if id != 0 && view.lease(id).is_none() => {
            Err(InvalidRequest::LeaseNotFound.into())
        }
        _ => Ok(()),
    }
}
