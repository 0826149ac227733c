//! [`Kv`]: the one interface of the store that everything above it sees.
//!
//! Its words are etcd's: a global revision, keys with a create and a modification revision and a
//! version, transactions of compares and operations, watches from a past revision. `raft/src/node.rs`
//! implements it over three servers, [`crate::local::LocalKv`] over one store in this process; who
//! uses it cannot tell which.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::range::{KeyRange, RangeEnd, prefix_end};
pub use crate::revision::{Revision, Term};
pub use crate::watch::Watcher;

/// A key with what is known of it at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision that made the key exist.
    pub create_revision: Revision,
    /// The revision of its last change.
    pub mod_revision: Revision,
    /// How many times it was put since it exists: 1 after its creation.
    pub version: u64,
    /// The lease it lives by; 0 is none.
    pub lease: i64,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began (invariant R4).
    #[default]
    Linearizable,
    /// Whatever this server has applied.
    Serializable,
    /// Waits, with a deadline, until this server has applied that revision.
    NotOlderThan(Revision),
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; `None` is the latest.
    pub revision: Option<Revision>,
    /// The most keys to return; 0 is all.
    pub limit: u64,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// How fresh.
    pub consistency: Consistency,
}

impl RangeRequest {
    /// The latest linearizable state of `range`, whole.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: 0,
            keys_only: false,
            count_only: false,
            consistency: Consistency::default(),
        }
    }
}

/// What was read, in key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    /// The store's revision when it was read (not the one asked for).
    pub revision: Revision,
    /// The keys, at most `limit`.
    pub kvs: Vec<KeyValue>,
    /// Whether there are more keys in the range than were returned.
    pub more: bool,
    /// How many keys the range holds, whatever the limit.
    pub count: u64,
}

/// What a [`Compare`] looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// How often the key was put since it exists; 0 where it does not exist.
    Version(u64),
    /// The revision that created it; 0 where it does not exist.
    CreateRevision(Revision),
    /// The revision of its last change; 0 where it does not exist.
    ModRevision(Revision),
    /// Its value; a key that does not exist fails every such compare.
    Value(Bytes),
    /// Its lease; 0 where it has none.
    Lease(i64),
}

/// How a [`Compare`] compares what is stored (left) with what it names (right).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareResult {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
}

/// One condition of a transaction; over a range it must hold for every key there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key, or the range of keys.
    pub range: KeyRange,
    /// How.
    pub result: CompareResult,
    /// With what.
    pub target: CompareTarget,
}

impl Compare {
    /// Holds while `key` was last changed at `revision`; with [`Revision::ZERO`], while it does not exist.
    pub fn unchanged_since(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self {
            range: KeyRange::key(key),
            result: CompareResult::Equal,
            target: CompareTarget::ModRevision(revision),
        }
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Read, seeing the transaction's own earlier writes.
    Range(RangeRequest),
    /// Set a key.
    Put {
        /// The key; not empty.
        key: Bytes,
        /// The new value; `None` keeps the old one (`ignore_value`).
        value: Option<Bytes>,
        /// The new lease, 0 for none; `None` keeps the old one (`ignore_lease`).
        lease: Option<i64>,
        /// Return what was there before.
        prev_kv: bool,
    },
    /// Delete keys.
    DeleteRange {
        /// Which.
        range: KeyRange,
        /// Return what was there before.
        prev_kv: bool,
    },
    /// A transaction within the transaction.
    Txn(Box<Txn>),
}

impl Op {
    /// Puts `value` at `key`, without a lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: Some(value.into()), lease: Some(0), prev_kv: false }
    }

    /// Deletes one key and returns what it held.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::DeleteRange { range: KeyRange::key(key), prev_kv: true }
    }

    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Range(RangeRequest::new(KeyRange::key(key)))
    }
}

/// The most compares of a transaction, and the most operations of a branch, as in etcd; those of
/// the transactions around a nested one count for it.
pub const TXN_OPS_MAX: usize = 128;

/// If all compares hold, `success`, else `failure`: in one revision, or none at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// The conditions; none holds always.
    pub compare: Vec<Compare>,
    /// Done when all hold.
    pub success: Vec<Op>,
    /// Done otherwise.
    pub failure: Vec<Op>,
}

/// What one [`Op`] gave, in the order of the operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResponse {
    /// Of [`Op::Range`].
    Range(RangeResponse),
    /// Of [`Op::Put`].
    Put {
        /// What was there, where asked for.
        prev_kv: Option<KeyValue>,
    },
    /// Of [`Op::DeleteRange`].
    DeleteRange {
        /// How many keys went.
        deleted: u64,
        /// What they held, where asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// Of [`Op::Txn`].
    Txn(TxnResponse),
}

/// What a transaction gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// The store's revision after it; the transaction's own, where it wrote something.
    pub revision: Revision,
    /// Whether all compares held.
    pub succeeded: bool,
    /// One for each operation that was done.
    pub responses: Vec<OpResponse>,
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision of which events are wanted; `None` is the next one to come. One that is
    /// in the future sends nothing before it.
    pub start: Option<Revision>,
    /// Send what each key held before its event.
    pub prev_kv: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted: the event's `kv` has the key and the revision of the deletion.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the event.
    pub kv: KeyValue,
    /// The key before it, where asked for and where it existed.
    pub prev_kv: Option<KeyValue>,
}

/// What a [`Watcher`] yields. A transaction's events come whole, in one batch (invariant R5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMessage {
    /// Events of one or more revisions in order, never a part of one.
    Events(Vec<Event>),
    /// Everything up to this revision has been sent: the watch can be resumed after it.
    Progress(Revision),
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KvError {
    /// The revision was compacted away; the caller must read anew.
    #[error("revision {requested} has been compacted; the oldest kept is {compacted}")]
    Compacted {
        /// The one asked for.
        requested: Revision,
        /// The compacted revision: only later ones, and itself for reads, are there.
        compacted: Revision,
    },
    /// The revision lies in the future.
    #[error("revision {requested} is in the future; the store is at {current}")]
    FutureRevision {
        /// The one asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The proposer's term is past (invariant R9). Nothing was done.
    #[error("the proposal was made in term {term}, the current term is {current}")]
    Fenced {
        /// The proposal's.
        term: Term,
        /// The log's.
        current: Term,
    },
    /// A request that can never succeed. Nothing was done.
    #[error("{0}")]
    Invalid(InvalidRequest),
    /// A request larger than a log entry may be. Nothing was done.
    #[error("the request has {size_bytes} bytes; at most {max_bytes} are taken")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The leader's disk is full: what makes the store grow is refused until there is room. Nothing
    /// was done. Deleting and compacting go on.
    #[error("mvcc: database space exceeded: the disk of the leading server is full")]
    NoSpace,
    /// No leader could be reached within the deadline; nothing was done, and it can be tried again.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// What stood in the way.
        reason: String,
    },
    /// The deadline passed while the request was under way: it may or may not be done.
    #[error("no answer within the deadline; whether the request took effect is unknown: {reason}")]
    Unknown {
        /// What stood in the way.
        reason: String,
    },
    /// A watcher read too slowly and was dropped; it can resume after its last revision.
    #[error("the watcher fell behind and was closed; resume it after revision {last}")]
    SlowWatcher {
        /// The last revision that was sent.
        last: Revision,
    },
    /// This server's store refuses to serve: its files are damaged, or its disk is full.
    #[error("the store of this server has failed: {reason}")]
    Failed {
        /// What happened, with the path.
        reason: String,
    },
}

impl KvError {
    /// Whether the same request can be sent again without being done twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::SlowWatcher { .. })
    }
}

/// A request that breaks a rule, whatever the state of the store. Texts follow etcd.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRequest {
    /// A key is missing.
    #[error("key is not provided")]
    EmptyKey,
    /// A transaction sets a key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// `ignore_value` or `ignore_lease` for a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// Too many operations in a transaction.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// The lease does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// A lease of that number exists.
    #[error("lease already exists")]
    LeaseExists,
    /// A lease for longer than can be granted.
    #[error("too large lease TTL")]
    LeaseTooLong,
}

/// A transaction on its way to the store, with what the proposer must still be for it to count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proposal {
    /// What to do.
    pub txn: Txn,
    /// The term under which a leader-only task proposes; refused as [`KvError::Fenced`] once past.
    pub fence: Option<Term>,
}

impl From<Txn> for Proposal {
    fn from(txn: Txn) -> Self {
        Self { txn, fence: None }
    }
}

/// A multi-version key-value store. Implementations must
/// - answer a write only when it is durable (R1), and apply a proposal at most once (R10);
/// - bound every wait by a deadline of their own;
/// - do nothing at all when they answer an error other than [`KvError::Unknown`].
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Reads keys.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;

    /// Does a transaction.
    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError>;

    /// Begins a watch.
    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError>;

    /// Forgets what was before `revision`, which itself stays readable.
    async fn compact(&self, revision: Revision) -> Result<(), KvError>;

    /// The revision that this server has applied.
    fn revision(&self) -> Revision;

    /// The revision up to which history is compacted.
    fn compacted(&self) -> Revision;
}
