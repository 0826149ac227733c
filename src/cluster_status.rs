//! What one server knows of its cluster: `GET /kontiki/v1/status`, and `kontiki status` from it.

use serde::{Deserialize, Serialize};

/// The answer of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its member id; never used again once it is gone.
    pub id: u64,
    /// The cluster, given once at its beginning.
    pub cluster_id: String,
    /// `leader`, `follower`, `candidate`, `learner`, `failed`.
    pub role: String,
    /// The name of the leader it follows, if it knows one.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// The last log index it knows to be committed.
    pub commit_index: u64,
    /// The last log index it has applied.
    pub applied_index: u64,
    /// The last entry of its log, and the term of that: where it stands among others.
    #[serde(default)]
    pub last_log_index: u64,
    /// The term of that entry.
    #[serde(default)]
    pub last_log_term: u64,
    /// The store's revision.
    pub revision: u64,
    /// The revision below which history is gone.
    pub compacted: u64,
    /// The hash of all state up to `revision`: equal on all servers at the same revision.
    pub hash: String,
    /// Why it has stopped serving, where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
}

/// One member as another knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its member id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// URL of its Kubernetes API.
    pub api: String,
    /// Where its peers reach it.
    pub raft: String,
    /// Where it speaks the etcd API: on its own machine only.
    pub etcd: String,
    /// `voter` or `learner`.
    pub role: String,
    /// How far its log goes: told by the leader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
}

impl ServerStatus {
    /// How many members vote.
    pub fn voters(&self) -> usize {
        self.members.iter().filter(|member| member.role == "voter").count()
    }
}
