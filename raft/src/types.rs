//! The types that openraft is told to use, and who a member is.
//!
//! Terms follow the original paper: one leader a term (`leader_id_std`), so that a term names its
//! leader and can fence what that leader's tasks propose (R9).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome};

/// A member's number. One is never given twice in the life of a cluster (R8).
pub type NodeId = u64;

/// What the cluster remembers of a member, replicated with the membership.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// What people call it: `server-1`.
    pub name: String,
    /// Where its peers reach it: `host:port`.
    pub raft_addr: String,
    /// Where clients reach its Kubernetes API: `https://host:port`.
    pub api_url: String,
    /// Where its etcd API listens: `host:port`; empty where it has none.
    pub etcd_addr: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.raft_addr)
    }
}

openraft::declare_raft_types!(
    /// The types of this cluster's Raft.
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        AsyncRuntime = crate::runtime::Runtime,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

pub(crate) type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;
