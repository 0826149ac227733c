//! Changes of members: a newcomer follows the log as a learner before it may vote, and a number is
//! never given twice (R8).

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};

use crate::proto;
use crate::types::{Member, NodeId, Raft, TypeConfig};
use crate::wire::{self, WireError};

/// A learner may vote once it has this much of the leader's log, as in etcd.
const IN_SYNC_PERCENT: u64 = 90;

/// Why it may not before that, in etcd's words.
const NOT_IN_SYNC: &str = "can only promote a learner member which is in sync with leader";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Adds a member that follows the log without a vote. Returns when it has caught up.
    AddLearner(NodeId, Member),
    /// Adds it without waiting for it: it need not run yet.
    Register(NodeId, Member),
    /// Changes what is known of a member: its addresses.
    Update(NodeId, Member),
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Takes a member out.
    Remove(NodeId),
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By somebody who does not lead: to be tried elsewhere, or again.
    NotLeader(String),
    /// By the leader, for good.
    Invalid(String),
}

impl Change {
    pub(crate) fn to_message(&self) -> proto::MemberRequest {
        use proto::member_request::Change as C;
        let change = match self {
            Self::AddLearner(id, member) => C::AddLearner(wire::member_to(*id, member)),
            Self::Register(id, member) => C::Register(wire::member_to(*id, member)),
            Self::Update(id, member) => C::Update(wire::member_to(*id, member)),
            Self::Promote(id) => C::Promote(*id),
            Self::Remove(id) => C::Remove(*id),
        };
        proto::MemberRequest { change: Some(change) }
    }

    pub(crate) fn from_message(message: proto::MemberRequest) -> Result<Self, WireError> {
        use proto::member_request::Change as C;
        Ok(match message.change.ok_or(WireError::Missing("change"))? {
            C::AddLearner(member) => {
                let (id, member) = wire::member_from(member);
                Self::AddLearner(id, member)
            }
            C::Register(member) => {
                let (id, member) = wire::member_from(member);
                Self::Register(id, member)
            }
            C::Update(member) => {
                let (id, member) = wire::member_from(member);
                Self::Update(id, member)
            }
            C::Promote(id) => Self::Promote(id),
            C::Remove(id) => Self::Remove(id),
        })
    }
}

/// What the members are, as far as a change is concerned.
struct Members {
    known: BTreeMap<NodeId, Member>,
    voters: BTreeSet<NodeId>,
}

/// What to ask of Raft for a change; `None` when it is made already.
fn plan(members: &Members, change: Change) -> Result<Option<Step>, String> {
    match change {
        Change::AddLearner(id, member) => match members.known.get(&id) {
            Some(known) if *known == member => Ok(Some(Step::CatchUp(id))),
            Some(known) => Err(format!("node {id} is {known} already (R8)")),
            None => {
                let taken = members.known.values().any(|known| known.raft_addr == member.raft_addr);
                if taken {
                    Err(format!("a member has the address {} already", member.raft_addr))
                } else {
                    Ok(Some(Step::AddLearner(id, member)))
                }
            }
        },
        Change::Register(id, member) => {
            let wanted = Change::AddLearner(id, member);
            Ok(plan(members, wanted)?.and_then(|step| match step {
                Step::AddLearner(id, member) => Some(Step::Register(id, member)),
                _ => None,
            }))
        }
        Change::Update(id, member) => {
            if !members.known.contains_key(&id) {
                return Err(format!("node {id} is not a member"));
            }
            let others = members.known.iter().filter(|(other, _)| **other != id);
            if others.map(|(_, other)| &other.raft_addr).any(|addr| *addr == member.raft_addr) {
                return Err(format!("a member has the address {} already", member.raft_addr));
            }
            Ok(Some(Step::Change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])))))
        }
        Change::Promote(id) if members.voters.contains(&id) => Ok(None),
        Change::Promote(id) if members.known.contains_key(&id) => {
            Ok(Some(Step::Change(ChangeMembers::AddVoterIds(BTreeSet::from([id])))))
        }
        Change::Promote(id) => Err(format!("node {id} must be a learner before it may vote")),
        Change::Remove(id) if members.voters.contains(&id) && members.voters.len() == 1 => {
            Err(format!("node {id} is the last voter"))
        }
        Change::Remove(id) if members.voters.contains(&id) => {
            Ok(Some(Step::Change(ChangeMembers::RemoveVoters(BTreeSet::from([id])))))
        }
        Change::Remove(id) if members.known.contains_key(&id) => {
            Ok(Some(Step::Change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))))
        }
        Change::Remove(_) => Ok(None),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    AddLearner(NodeId, Member),
    Register(NodeId, Member),
    CatchUp(NodeId),
    Change(ChangeMembers<NodeId, Member>),
}

fn members(raft: &Raft) -> Members {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    Members {
        known: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        voters: membership.voter_ids().collect(),
    }
}

/// Makes a change, if this member leads.
pub(crate) async fn change(raft: &Raft, change: Change) -> Result<(), Refused> {
    if !raft.is_leader() {
        return Err(Refused::NotLeader("this member does not lead".to_owned()));
    }
    let promoted = if let Change::Promote(id) = change { Some(id) } else { None };
    let Some(step) = plan(&members(raft), change).map_err(Refused::Invalid)? else { return Ok(()) };
    if promoted.is_some_and(|id| !is_in_sync(raft, id)) {
        return Err(Refused::Invalid(NOT_IN_SYNC.to_owned()));
    }
    match step {
        Step::AddLearner(id, member) => {
            raft.add_learner(id, member, false).await.map_err(refused)?;
            catch_up(raft, id).await
        }
        Step::Register(id, member) => {
            raft.add_learner(id, member, false).await.map(|_| ()).map_err(refused)
        }
        Step::CatchUp(id) => catch_up(raft, id).await,
        // A voter that is removed leaves altogether.
        Step::Change(change) => {
            raft.change_membership(change, false).await.map(|_| ()).map_err(refused)
        }
    }
}

/// Whether a learner has nearly all of the leader's log: it could vote at once.
fn is_in_sync(raft: &Raft, id: NodeId) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
    let last = metrics.last_log_index.unwrap_or_default();
    matched.is_some_and(|matched| matched.index * 100 >= last * IN_SYNC_PERCENT)
}

/// Waits until member `id` has all that is in the log now. The caller's deadline bounds it.
async fn catch_up(raft: &Raft, id: NodeId) -> Result<(), Refused> {
    let mut metrics = raft.metrics();
    let target = metrics.borrow_watched().last_log_index;
    loop {
        {
            let now = metrics.borrow_watched();
            let Some(replication) = &now.replication else {
                return Err(Refused::NotLeader("this member does not lead any more".to_owned()));
            };
            let matched = replication.get(&id).copied().flatten().map(|log_id| log_id.index);
            if matched >= target {
                return Ok(());
            }
        }
        if metrics.changed().await.is_err() {
            return Err(Refused::NotLeader("raft has stopped".to_owned()));
        }
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Refused {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Refused::Invalid(error.to_string())
        }
        other => Refused::NotLeader(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member { name: name.to_owned(), raft_addr: format!("{name}:1"), ..Member::default() }
    }

    fn three() -> Members {
        let known = [(1, member("a")), (2, member("b")), (3, member("c"))].into();
        Members { known, voters: [1, 2].into() }
    }

    #[test]
    fn a_number_or_an_address_is_not_given_twice() {
        plan(&three(), Change::AddLearner(3, member("d"))).unwrap_err();
        plan(&three(), Change::AddLearner(4, member("c"))).unwrap_err();
        let again = plan(&three(), Change::AddLearner(3, member("c")));
        assert_eq!(again, Ok(Some(Step::CatchUp(3))));
        let step = Step::AddLearner(4, member("d"));
        assert_eq!(plan(&three(), Change::AddLearner(4, member("d"))), Ok(Some(step)));
    }

    #[test]
    fn only_a_learner_becomes_a_voter_and_the_last_voter_stays() {
        plan(&three(), Change::Promote(9)).unwrap_err();
        assert_eq!(plan(&three(), Change::Promote(2)), Ok(None));
        assert!(plan(&three(), Change::Promote(3)).unwrap().is_some());
        assert!(plan(&three(), Change::Remove(2)).unwrap().is_some());
        assert_eq!(plan(&three(), Change::Remove(9)), Ok(None));
        let alone = Members { voters: [1].into(), ..three() };
        plan(&alone, Change::Remove(1)).unwrap_err();
    }
}
