//! `POST /kontiki/v1/members`: what `kontiki member` asks a server for.

use std::time::Duration;

use kontiki_api::status::Status;
use kontiki_raft::error::NodeError;
use kontiki_raft::member_ids;
use kontiki_raft::node::Node;
use kontiki_raft::types::Member;
use serde_json::{Value, json};

use crate::members::MemberChange;

/// How long a change may take: it needs a quorum, and no learner is waited for.
const DEADLINE: Duration = Duration::from_secs(15);

/// Makes a change, at whichever member leads.
pub(super) async fn change(node: &Node, change: Value) -> Result<Value, Status> {
    let change: MemberChange = serde_json::from_value(change)
        .map_err(|error| Status::bad_request(format!("the change is malformed: {error}")))?;
    if node.status().leader.is_none() {
        return Err(Status::unavailable(
            "there is no leader: too few voters answer one another to change anything",
        ));
    }
    let name = change.subject();
    let changing = tokio::time::timeout(DEADLINE, make(node, change));
    match changing.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&name, &error)),
        Err(_) => Err(Status::timeout(format!(
            "no quorum answered within {DEADLINE:?}; whether it was done shows in the members"
        ))),
    }
}

async fn make(node: &Node, change: MemberChange) -> Result<Value, NodeError> {
    let id = match change {
        MemberChange::Add { name, raft } => return add(node, name, raft).await,
        MemberChange::Promote { id } => node.promote(id).await.map(|()| id)?,
        MemberChange::Remove { id } => node.remove(id).await.map(|()| id)?,
    };
    Ok(json!({ "id": id }))
}

async fn add(node: &Node, name: String, raft: String) -> Result<Value, NodeError> {
    let id = member_ids::allocate(&*node.kv()).await;
    let id = id.map_err(|error| NodeError::NoLeader { reason: error.to_string() })?;
    let member = Member { name, raft_addr: raft, ..Member::default() };
    node.register(id, member).await?;
    Ok(json!({ "id": id }))
}

fn refused(name: &str, error: &NodeError) -> Status {
    match error {
        NodeError::Membership(refusal) => Status::conflict("", "members", name, refusal),
        other => Status::unavailable(other.to_string()),
    }
}
