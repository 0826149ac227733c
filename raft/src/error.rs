//! Why a node cannot start, or a member cannot be changed.

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
    #[error("change the members: {reason}")]
    Membership {
        /// Why.
        reason: String,
    },
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

impl NodeError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoLeader { .. })
    }
}
