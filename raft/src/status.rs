//! What a node tells of itself.

use std::collections::BTreeMap;
use std::fmt;

use kontiki_storage::kv::{Revision, Term};
use serde::{Deserialize, Serialize};

use crate::types::{Member, NodeId};

/// Who leads, as this node knows it. Leader-only tasks follow it (R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The leader, where one is known.
    pub leader: Option<NodeId>,
    /// Its term, or the last one seen.
    pub term: Term,
    /// Whether this node leads and can serve: it has applied the first entry of its own term, and
    /// with it everything acknowledged before.
    pub is_local: bool,
}

/// What part a member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It votes, and counts for a quorum.
    Voter,
    /// It follows the log and has no say.
    Learner,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: NodeId,
    /// Its name and addresses.
    #[serde(flatten)]
    pub member: Member,
    /// Its part.
    pub role: Role,
}

/// The hash of a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHash {
    /// The peer.
    pub id: NodeId,
    /// Its hash.
    pub hash: u64,
}

/// What a member found that differs from its peers (R6). It serves nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// The revision at which it was compared.
    pub revision: Revision,
    /// This member's hash there.
    pub hash: u64,
    /// The hashes of those that answered.
    pub peers: Vec<PeerHash>,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, hash, peers } = self;
        write!(f, "at revision {revision} the hash of the data here is {hash:016x}")?;
        for (number, PeerHash { id, hash }) in peers.iter().enumerate() {
            let before = if number == 0 { "; that" } else { "," };
            write!(f, "{before} of member {id} is {hash:016x}")?;
        }
        Ok(())
    }
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub id: NodeId,
    /// All members that it knows of, by number.
    pub members: Vec<MemberStatus>,
    /// The leader, where one is known.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: Term,
    /// The last entry of its log.
    pub last_log_index: u64,
    /// The term of that entry.
    pub last_log_term: Term,
    /// How far the log of each member goes, as the leader knows it; empty elsewhere.
    pub matched: BTreeMap<NodeId, u64>,
    /// The last entry known to be committed.
    pub committed_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// The store's revision.
    pub revision: Revision,
    /// History before this revision is forgotten.
    pub compacted: Revision,
    /// The hash of the state at `revision` (R6).
    pub hash: u64,
    /// How its data differs from its peers', where it does.
    pub corruption: Option<Corruption>,
    /// Why it has stopped, where it has.
    pub failed: Option<String>,
}
