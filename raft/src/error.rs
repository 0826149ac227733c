//! Why a node cannot start, or a member cannot be changed.

use std::fmt;

use kontiki_storage::engine::EngineError;
use kontiki_storage::error::StoreError;
use thiserror::Error;

use crate::types::NodeId;

/// Why a node did not do what it was asked.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The data directory belongs to another cluster or node (R8).
    #[error(
        "the data belongs to node {found_node} of cluster {found_cluster}, not to node {node} of \
         cluster {cluster}"
    )]
    Identity {
        /// The cluster it was started for.
        cluster: String,
        /// The node it was started as.
        node: NodeId,
        /// Whose data it is.
        found_cluster: String,
        /// Which node's.
        found_node: NodeId,
    },
    /// The engine failed.
    #[error("open the log")]
    Engine(#[from] EngineError),
    /// The store failed.
    #[error("open the store")]
    Store(#[from] StoreError),
    /// A file of the log is damaged or foreign.
    #[error("open the log: {reason}")]
    Log {
        /// What is wrong, and where.
        reason: String,
    },
    /// The peer certificate or its authority cannot be used.
    #[error("use the peer certificate: {reason}")]
    Tls {
        /// What is wrong with it.
        reason: String,
    },
    /// Raft has stopped.
    #[error("raft has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The cluster exists already.
    #[error("the cluster has been bootstrapped before")]
    AlreadyBootstrapped,
    /// A change of members was refused; nothing was changed.
    #[error("change the members: {0}")]
    Membership(Refusal),
    /// No leader could do it within the deadline; whether it was done shows in the members.
    #[error("change the members: no leader answered in time: {reason}")]
    NoLeader {
        /// What stood in the way.
        reason: String,
    },
    /// Serving peers failed.
    #[error("serve peers")]
    Serve(#[source] tonic::transport::Error),
}

/// Why a change of members was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In etcd's words, where it has any: its clients match on them.
    pub reason: String,
    /// What that is here, and what to do; may be empty.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, detail: String::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.detail {
            "" => f.write_str(&self.reason),
            detail => write!(f, "{}: {detail}", self.reason),
        }
    }
}

impl NodeError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoLeader { .. })
    }
}
