//! How this member is: for `/readyz`, and for `GET /kontiki/v1/status`.

use async_trait::async_trait;
use kontiki_api::server::{ClusterStatus, ReadyCheck};
use kontiki_api::status::Status as ApiStatus;
use kontiki_raft::node::Node;
use kontiki_raft::status::{MemberStatus as RaftMember, NodeStatus, Role};
use kontiki_storage::engine::Room;
use serde_json::Value;

use crate::cluster_status::{MemberStatus, ServerStatus};

/// Ready is a voter that knows its leader.
pub struct Membership(pub Node);

#[async_trait]
impl ReadyCheck for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    async fn check(&self) -> Result<(), String> {
        let status = self.0.status();
        if let Some(reason) = status.failed {
            return Err(reason);
        }
        if self.0.store().engine().room() == Room::Exhausted {
            return Err("the disk is full: this server falls behind".into());
        }
        let me = status.members.iter().find(|member| member.id == status.id);
        match me.map(|member| member.role) {
            Some(Role::Voter) if status.leader.is_some() => Ok(()),
            Some(Role::Voter) => Err("no leader is known".into()),
            Some(Role::Learner) => Err("still a learner: catching up".into()),
            None => Err("not a member yet".into()),
        }
    }
}

/// Tells what this member knows of its cluster.
pub struct Status(pub Node);

#[async_trait]
impl ClusterStatus for Status {
    async fn status(&self) -> Result<Value, ApiStatus> {
        let status = of(self.0.cluster_id(), &self.0.status());
        serde_json::to_value(status).map_err(ApiStatus::internal)
    }

    async fn change_members(&self, change: Value) -> Result<Value, ApiStatus> {
        super::members::change(&self.0, change).await
    }
}

fn of(cluster_id: &str, status: &NodeStatus) -> ServerStatus {
    let name =
        |id: u64| status.members.iter().find(|m| m.id == id).map(|found| found.member.name.clone());
    ServerStatus {
        name: name(status.id).unwrap_or_default(),
        id: status.id,
        cluster_id: cluster_id.to_owned(),
        role: role(status).to_owned(),
        leader: status.leader.and_then(name),
        term: status.term.0,
        commit_index: status.committed_index,
        applied_index: status.applied_index,
        revision: status.revision.get(),
        compacted: status.compacted.get(),
        hash: format!("{:016x}", status.hash),
        failed: status.failed.clone(),
        last_log_index: status.last_log_index,
        last_log_term: status.last_log_term.0,
        members: status.members.iter().map(|known| member(known, status)).collect(),
    }
}

fn role(status: &NodeStatus) -> &'static str {
    let me = status.members.iter().find(|member| member.id == status.id);
    match me.map(|member| member.role) {
        _ if status.failed.is_some() => "failed",
        _ if status.leader == Some(status.id) => "leader",
        Some(Role::Voter) if status.leader.is_some() => "follower",
        Some(Role::Voter) => "candidate",
        Some(Role::Learner) | None => "learner",
    }
}

fn member(known: &RaftMember, status: &NodeStatus) -> MemberStatus {
    MemberStatus {
        id: known.id,
        name: known.member.name.clone(),
        api: known.member.api_url.clone(),
        raft: known.member.raft_addr.clone(),
        etcd: known.member.etcd_addr.clone(),
        role: match known.role {
            Role::Voter => "voter".into(),
            Role::Learner => "learner".into(),
        },
        matched: status.matched.get(&known.id).copied(),
    }
}
