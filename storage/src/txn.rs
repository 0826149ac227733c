//! [`Txn::evaluate`]: what a transaction does to a given state, decided without touching it.
//!
//! It reads through a [`View`] and returns the answer with the changes to make. Within a
//! transaction later operations see earlier ones; all changes share one revision, numbered in their
//! order by sub-revision. A transaction that changes nothing takes no revision.

use std::ops::ControlFlow;

use bytes::Bytes;
use thiserror::Error;

use crate::engine::EngineError;
use crate::kv::{
    Compare, CompareResult, CompareTarget, EventKind, InvalidRequest, KeyRange, KeyValue, KvError,
    Op, OpResponse, RangeRequest, RangeResponse, Revision, Txn, TxnResponse,
};

mod check;
mod path;
mod view;

pub(crate) use check::check_range;
use path::{Path, Step};
pub(crate) use view::{Layer, View, VisitKeys};

/// One change that a transaction makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mutation {
    /// Put or deleted.
    pub(crate) kind: EventKind,
    /// The key after it; of a deletion, its key and revision only.
    pub(crate) kv: KeyValue,
    /// The key before the transaction; of a put, only where it did not create the key.
    pub(crate) prev: Option<KeyValue>,
}

/// What a transaction comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evaluated {
    pub(crate) response: TxnResponse,
    /// In order; the position of each is its sub-revision.
    pub(crate) mutations: Vec<Mutation>,
}

/// Why a transaction could not be evaluated.
#[derive(Debug, Error)]
pub(crate) enum EvaluateError {
    /// It is not allowed; nothing is to be done.
    #[error(transparent)]
    Refused(#[from] KvError),
    /// History could not be read: fatal.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<InvalidRequest> for EvaluateError {
    fn from(invalid: InvalidRequest) -> Self {
        Self::Refused(KvError::Invalid(invalid))
    }
}

impl Txn {
    /// Refuses what no state of the store could make valid: empty keys, a key put twice, too many
    /// operations.
    pub fn validate(&self) -> Result<(), InvalidRequest> {
        check::validate(self)
    }

    /// What this transaction does to what `view` shows. Must be a function of the two alone.
    ///
    /// Which branches are taken, nested ones too, and whether what they ask for is allowed, is
    /// judged by the state before the transaction, as etcd does.
    pub(crate) fn evaluate(&self, view: &dyn View) -> Result<Evaluated, EvaluateError> {
        self.validate()?;
        let path = Path::of(self, view)?;
        path.check(view)?;
        let mut run = Run::over(view);
        let response = run.txn(&path)?;
        Ok(Evaluated { response, mutations: run.mutations })
    }
}

/// What the deletion of these keys does to what `view` shows: the end of a lease.
pub(crate) fn delete_keys(view: &dyn View, keys: &[Bytes]) -> Result<Evaluated, EvaluateError> {
    let mut run = Run::over(view);
    for key in keys {
        run.delete(&KeyRange::key(key.clone()))?;
    }
    let response = TxnResponse { revision: run.revision(), succeeded: true, responses: Vec::new() };
    Ok(Evaluated { response, mutations: run.mutations })
}

/// Reads what `request` asks for, at the latest state of `view` or at a past one.
pub(crate) fn read(
    view: &dyn View,
    request: &RangeRequest,
    current: Revision,
) -> Result<RangeResponse, EvaluateError> {
    let at = check_revision(request.revision, current, view.compacted())?;
    let most = if request.count_only { 0 } else { request.limit };
    let unlimited = request.limit == 0 && !request.count_only;
    let mut response = RangeResponse { revision: current, kvs: Vec::new(), more: false, count: 0 };
    view.visit(&request.range, at, &mut |kv| {
        response.count += 1;
        if unlimited || response.count <= most {
            let mut kv = kv.clone();
            if request.keys_only {
                kv.value = Bytes::new();
            }
            response.kvs.push(kv);
        }
        ControlFlow::Continue(())
    })?;
    response.more = !request.count_only && response.count > response.kvs.len() as u64;
    Ok(response)
}

/// The past revision to read at; `None` where it is the latest.
pub(crate) fn check_revision(
    requested: Option<Revision>,
    current: Revision,
    compacted: Revision,
) -> Result<Option<Revision>, KvError> {
    match requested {
        None => Ok(None),
        Some(requested) if requested > current => {
            Err(KvError::FutureRevision { requested, current })
        }
        Some(requested) if requested < compacted => {
            Err(KvError::Compacted { requested, compacted })
        }
        Some(requested) if requested == current => Ok(None),
        Some(requested) => Ok(Some(requested)),
    }
}

/// A transaction being evaluated.
struct Run<'a> {
    begin: Revision,
    base: &'a dyn View,
    layer: Layer<'a>,
    mutations: Vec<Mutation>,
}

impl<'a> Run<'a> {
    fn over(view: &'a dyn View) -> Self {
        let (begin, layer) = (view.revision(), Layer::over(view));
        Self { begin, base: view, layer, mutations: Vec::new() }
    }

    /// A key as it was before the transaction, where `prev` is what it is by now: a deletion to the
    /// last key may meet a put of the same transaction.
    fn before(&self, key: &[u8], prev: Option<KeyValue>) -> Option<KeyValue> {
        if self.mutations.is_empty() { prev } else { self.base.get(key) }
    }

    /// The store's revision as the operations done so far leave it.
    fn revision(&self) -> Revision {
        if self.mutations.is_empty() { self.begin } else { self.begin.next() }
    }

    fn txn(&mut self, path: &Path<'_>) -> Result<TxnResponse, EvaluateError> {
        let steps = path.steps.iter().map(|step| match step {
            Step::Op(op) => self.op(op),
            Step::Txn(path) => self.txn(path).map(OpResponse::Txn),
        });
        let responses = steps.collect::<Result<_, _>>()?;
        Ok(TxnResponse { revision: self.revision(), succeeded: path.succeeded, responses })
    }

    fn op(&mut self, op: &Op) -> Result<OpResponse, EvaluateError> {
        match op {
            Op::Range(request) => self.range(request).map(OpResponse::Range),
            Op::Put { key, value, lease, prev_kv } => {
                let prev = self.put(key, value.as_ref(), *lease);
                Ok(OpResponse::Put { prev_kv: prev.filter(|_| *prev_kv) })
            }
            Op::DeleteRange { range, prev_kv } => {
                let gone = self.delete(range)?;
                let deleted = gone.len() as u64;
                let prev_kvs = if *prev_kv { gone } else { Vec::new() };
                Ok(OpResponse::DeleteRange { deleted, prev_kvs })
            }
            Op::Txn(_) => unreachable!("a path must have a step of its own for each transaction"),
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, EvaluateError> {
        read(&self.layer, request, self.revision())
    }

    fn put(&mut self, key: &Bytes, value: Option<&Bytes>, lease: Option<i64>) -> Option<KeyValue> {
        let prev = self.layer.get(key);
        let revision = self.begin.next();
        let kept = prev.as_ref();
        let kv = KeyValue {
            // Copied, so that a small value does not keep a whole receive buffer in memory.
            key: kept.map_or_else(|| Bytes::copy_from_slice(key), |kv| kv.key.clone()),
            value: match value {
                Some(value) => Bytes::copy_from_slice(value),
                None => kept.map(|kv| kv.value.clone()).unwrap_or_default(),
            },
            create_revision: kept.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: kept.map_or(0, |kv| kv.version) + 1,
            lease: lease.or_else(|| kept.map(|kv| kv.lease)).unwrap_or_default(),
        };
        self.layer.set(kv.key.clone(), revision, Some(kv.clone()));
        let before = prev.as_ref().and_then(|prev| self.before(&kv.key, Some(prev.clone())));
        self.mutations.push(Mutation { kind: EventKind::Put, kv, prev: before });
        prev
    }

    fn delete(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, EvaluateError> {
        let mut gone = Vec::new();
        self.layer.visit(range, None, &mut |kv| {
            gone.push(kv.clone());
            ControlFlow::Continue(())
        })?;
        let revision = self.begin.next();
        for prev in &gone {
            self.layer.set(prev.key.clone(), revision, None);
            let kv = tombstone(prev.key.clone(), revision);
            let prev = self.before(&kv.key, Some(prev.clone()));
            self.mutations.push(Mutation { kind: EventKind::Delete, kv, prev });
        }
        Ok(gone)
    }
}

/// What an event of a deletion says of its key.
fn tombstone(key: Bytes, revision: Revision) -> KeyValue {
    KeyValue {
        key,
        value: Bytes::new(),
        create_revision: Revision::ZERO,
        mod_revision: revision,
        version: 0,
        lease: 0,
    }
}

/// Whether a compare holds for every key of its range. Over no key at all it is judged by a key
/// that does not exist: all numbers zero, and no value that could equal or differ.
fn holds(view: &dyn View, compare: &Compare) -> Result<bool, EngineError> {
    let mut any = false;
    let mut all = true;
    view.visit(&compare.range, None, &mut |kv| {
        any = true;
        all = holds_for(kv, compare);
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if any {
        return Ok(all);
    }
    let absent = tombstone(Bytes::new(), Revision::ZERO);
    Ok(!matches!(compare.target, CompareTarget::Value(_)) && holds_for(&absent, compare))
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

#[cfg(test)]
mod tests;
