//! Between openraft's types and the messages of the peers' protocol.
//!
//! What comes from the network is checked here: a message without what it must have is refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId as _;
use thiserror::Error;

use crate::command::Command;
use crate::proto;
use crate::types::{
    CommittedLeaderId, Entry, LeaderId, LogId, Member, Membership, Payload, StoredMembership, Vote,
};

/// A message that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// A field is missing.
    #[error("the message lacks its {0}")]
    Missing(&'static str),
    /// A membership contradicts itself.
    #[error("the membership is not valid: {0}")]
    Membership(String),
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

pub(crate) fn log_id_to(id: &LogId) -> proto::LogId {
    proto::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id_from(id: proto::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to(vote: &Vote) -> proto::Vote {
    proto::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from(vote: Option<proto::Vote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    Ok(Vote { leader_id: LeaderId::new(vote.term, vote.node), committed: vote.committed })
}

pub(crate) fn member_to(id: u64, member: &Member) -> proto::Member {
    proto::Member {
        id,
        name: member.name.clone(),
        raft_addr: member.raft_addr.clone(),
        api_url: member.api_url.clone(),
        etcd_addr: member.etcd_addr.clone(),
    }
}

pub(crate) fn member_from(member: proto::Member) -> (u64, Member) {
    let proto::Member { id, name, raft_addr, api_url, etcd_addr } = member;
    (id, Member { name, raft_addr, api_url, etcd_addr })
}

pub(crate) fn membership_to(membership: &Membership) -> proto::Membership {
    proto::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|ids| proto::VoterSet { ids: ids.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(id, member)| member_to(*id, member)).collect(),
    }
}

pub(crate) fn membership_from(membership: proto::Membership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> = membership.members.into_iter().map(member_from).collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|error| WireError::Membership(error.to_string()))
}

pub(crate) fn stored_membership_to(stored: &StoredMembership) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

pub(crate) fn stored_membership_from(
    stored: proto::StoredMembership,
) -> Result<StoredMembership, WireError> {
    let membership = membership_from(stored.membership.ok_or(WireError::Missing("membership"))?)?;
    Ok(StoredMembership::new(stored.log_id.map(log_id_from), membership))
}

pub(crate) fn entry_to(entry: &Entry) -> proto::Entry {
    use proto::entry::Payload as P;
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(command) => Some(P::Command(command.0.clone())),
        EntryPayload::Membership(membership) => Some(P::Membership(membership_to(membership))),
    };
    proto::Entry { term: entry.log_id.leader_id.term, index: entry.log_id.index, payload }
}

/// A command is copied into a buffer of its own: kept as it came, it would keep the whole receive
/// buffer or log record alive.
pub(crate) fn entry_from(entry: proto::Entry) -> Result<Entry, WireError> {
    use proto::entry::Payload as P;
    let payload: Payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(P::Command(bytes)) => EntryPayload::Normal(Command(Bytes::copy_from_slice(&bytes))),
        Some(P::Membership(membership)) => EntryPayload::Membership(membership_from(membership)?),
    };
    Ok(Entry { log_id: log_id(entry.term, entry.index), payload })
}
