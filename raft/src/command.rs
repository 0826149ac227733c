//! What the log carries, and what comes of it.
//!
//! A command is encoded once, by the member that proposes it; from there its bytes are forwarded,
//! replicated, stored and applied as they are.

use std::fmt;

use bytes::Bytes;
use kontiki_storage::kv::{KvError, Revision, Term, Txn, TxnResponse};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::types::NodeId;

/// Who proposed something, so that it is applied at most once however often it is sent (R10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// The member.
    pub node: NodeId,
    /// Which life of its process: grows with every start.
    pub incarnation: u64,
    /// Which proposal of that life.
    pub sequence: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A transaction.
    Txn(Txn),
    /// Forget history before a revision.
    Compact(Revision),
    /// Make a lease.
    LeaseGrant {
        /// Its number.
        id: i64,
        /// For how long.
        ttl_seconds: i64,
    },
    /// End a lease and delete its keys. Where it has run out, the leader that says so is named by
    /// the fence (R7), and the grant it speaks of as well.
    LeaseRevoke {
        /// Its number.
        id: i64,
        /// Which grant of it.
        grant: Option<u64>,
    },
    /// Note what is left of leases, in seconds; `None` is all of it.
    LeaseCheckpoint(Vec<(i64, Option<i64>)>),
}

/// An act with what decides whether it still counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// Who proposed it.
    pub id: ProposalId,
    /// No proposal of that life with a lower sequence awaits its outcome any more.
    pub settled_before: u64,
    /// The term under which it must be logged (R9).
    pub fence: Option<Term>,
    /// What to do.
    pub act: Act,
}

/// An encoded [`Proposed`]; cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Command(pub(crate) Bytes);

impl Command {
    /// The command that says `proposed`.
    pub fn encode(proposed: &Proposed) -> Self {
        Self(codec::encode(proposed))
    }

    /// What it says.
    pub fn decode(&self) -> Result<Proposed, CodecError> {
        codec::decode(&self.0)
    }

    /// Its size.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What an act gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Of [`Act::Txn`].
    Txn(TxnResponse),
    /// Of [`Act::Compact`].
    Compact,
    /// Of an entry that carries no command.
    Nothing,
    /// Of [`Act::LeaseGrant`] and [`Act::LeaseRevoke`]: the store's revision.
    Lease(Revision),
    /// Of [`Act::LeaseCheckpoint`].
    LeaseCheckpoint,
}

/// What a log entry came to; the same on every member. A refusal changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome(pub Result<Done, Refusal>);

/// [`KvError`] as far as it can be decided from the log, in a form that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// See [`KvError::Compacted`].
    Compacted {
        /// The one asked for.
        requested: Revision,
        /// The compacted revision.
        compacted: Revision,
    },
    /// See [`KvError::FutureRevision`].
    FutureRevision {
        /// The one asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// See [`KvError::Fenced`].
    Fenced {
        /// The proposal's term.
        term: Term,
        /// The entry's.
        current: Term,
    },
    /// See [`kontiki_storage::kv::InvalidRequest`].
    Invalid(Rule),
    /// The proposer had stopped waiting for it before it was applied: nothing was done.
    Settled,
    /// Anything else, in words.
    Other(String),
    /// See [`KvError::NoSpace`]. Told by the leader alone, never from the log.
    NoSpace,
}

/// [`kontiki_storage::kv::InvalidRequest`] in a form that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of InvalidRequest")]
pub enum Rule {
    EmptyKey,
    DuplicateKey,
    KeyNotFound,
    TooManyOps,
    LeaseNotFound,
    LeaseExists,
    LeaseTooLong,
}

impl Outcome {
    /// Encodes it, for the wire and for the memory of outcomes.
    pub fn encode(&self) -> Bytes {
        codec::encode(&self.0)
    }

    /// Decodes what [`Outcome::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes).map(Self)
    }

    /// The outcome in the words of the `Kv` trait.
    pub fn into_result(self) -> Result<Done, KvError> {
        self.0.map_err(KvError::from)
    }
}

mod convert;
