//! Changes of members: a newcomer follows the log as a learner before it may vote, and a number is
//! never given twice (R8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};

use crate::error::Refusal;
use crate::proto;
use crate::types::{Member, NodeId, Raft, TypeConfig};
use crate::wire::{self, WireError};

/// A learner may vote once it has this much of the leader's log, as in etcd.
const IN_SYNC_PERCENT: u64 = 90;

/// How long ago a member may have answered to count as one that does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

// etcd's words.
const NOT_IN_SYNC: &str = "can only promote a learner member which is in sync with leader";
const NOT_ENOUGH_STARTED: &str = "re-configuration failed due to not enough started members";
pub(crate) const UNHEALTHY: &str = "unhealthy cluster";

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
    Invalid(Refusal),
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
    /// Those that have answered the leader lately; itself among them.
    active: BTreeSet<NodeId>,
    /// How many entries the leader's log has, and how many of them each member.
    log: u64,
    matched: BTreeMap<NodeId, u64>,
}

impl Members {
    /// Refuses voters of whom too few would answer.
    fn check_quorum(&self, voters: &BTreeSet<NodeId>, reason: &str) -> Result<(), Refusal> {
        let (all, active) = (voters.len(), voters.intersection(&self.active).count());
        let needed = all / 2 + 1;
        if active >= needed {
            return Ok(());
        }
        let names: Vec<&str> = voters.difference(&self.active).map(|id| self.name(*id)).collect();
        let detail = format!(
            "{active} of {all} voters would answer then, and {needed} are needed (no answer from {})",
            names.join(", ")
        );
        Err(Refusal::new(reason, detail))
    }

    fn name(&self, id: NodeId) -> &str {
        match self.known.get(&id) {
            Some(member) if !member.name.is_empty() => &member.name,
            _ => "a member that was never started",
        }
    }

    /// A learner may vote once it has nearly all of the leader's log, and lives: it could vote at
    /// once.
    fn check_in_sync(&self, id: NodeId) -> Result<(), Refusal> {
        let Some(matched) = self.matched.get(&id).filter(|_| self.active.contains(&id)) else {
            let detail = format!("{} does not answer", self.name(id));
            return Err(Refusal::new(NOT_IN_SYNC, detail));
        };
        if matched * 100 >= self.log * IN_SYNC_PERCENT {
            return Ok(());
        }
        let detail = format!(
            "{} has {matched} of {} log entries, and {IN_SYNC_PERCENT} % are needed",
            self.name(id),
            self.log
        );
        Err(Refusal::new(NOT_IN_SYNC, detail))
    }

    /// Takes a voter out only where the others still answer in sufficient number. One that is dead
    /// may always go: it is of no help.
    fn plan_remove_voter(&self, id: NodeId) -> Result<Step, Refusal> {
        let mut rest = self.voters.clone();
        rest.remove(&id);
        if rest.is_empty() {
            let detail = format!("{} is the last voter", self.name(id));
            return Err(Refusal::new(NOT_ENOUGH_STARTED, detail));
        }
        self.check_quorum(&rest, UNHEALTHY)?;
        Ok(Step::Change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))))
    }

    fn plan_promote(&self, id: NodeId) -> Result<Step, Refusal> {
        self.check_in_sync(id)?;
        let mut all = self.voters.clone();
        all.insert(id);
        self.check_quorum(&all, NOT_ENOUGH_STARTED)?;
        Ok(Step::Change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))))
    }
}

/// What to ask of Raft for a change; `None` when it is made already.
fn plan(members: &Members, change: Change) -> Result<Option<Step>, Refusal> {
    match change {
        Change::AddLearner(id, member) => match members.known.get(&id) {
            Some(known) if *known == member => Ok(Some(Step::CatchUp(id))),
            Some(known) => Err(format!("node {id} is {known} already (R8)").into()),
            None => {
                let taken = members.known.values().any(|known| known.raft_addr == member.raft_addr);
                if taken {
                    Err(address_taken(&member))
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
                return Err(format!("node {id} is not a member").into());
            }
            let others = members.known.iter().filter(|(other, _)| **other != id);
            if others.map(|(_, other)| &other.raft_addr).any(|addr| *addr == member.raft_addr) {
                return Err(address_taken(&member));
            }
            Ok(Some(Step::Change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])))))
        }
        Change::Promote(id) if members.voters.contains(&id) => Ok(None),
        Change::Promote(id) if members.known.contains_key(&id) => {
            members.plan_promote(id).map(Some)
        }
        Change::Promote(id) => {
            Err(format!("node {id} must be a learner before it may vote").into())
        }
        Change::Remove(id) if members.voters.contains(&id) => {
            members.plan_remove_voter(id).map(Some)
        }
        Change::Remove(id) if members.known.contains_key(&id) => {
            Ok(Some(Step::Change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))))
        }
        Change::Remove(_) => Ok(None),
    }
}

fn address_taken(member: &Member) -> Refusal {
    format!("a member has the address {} already", member.raft_addr).into()
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
    let answered = metrics.heartbeat.iter().flatten();
    let lately = |at: &Option<SerdeInstant>| at.is_some_and(|at| at.elapsed() < ANSWERED_WITHIN);
    let mut active: BTreeSet<_> =
        answered.filter(|(_, at)| lately(at)).map(|(id, _)| *id).collect();
    active.insert(metrics.id);
    Members {
        known: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        voters: membership.voter_ids().collect(),
        active,
        log: metrics.last_log_index.unwrap_or_default(),
        matched: matched(&metrics),
    }
}

type SerdeInstant = openraft::metrics::SerdeInstant<openraft::alias::InstantOf<TypeConfig>>;

/// How far the log of each member goes, as the leader knows it; nobody else knows anything.
pub(crate) fn matched(metrics: &openraft::RaftMetrics<TypeConfig>) -> BTreeMap<NodeId, u64> {
    let replication = metrics.replication.iter().flatten();
    replication.map(|(id, matched)| (*id, matched.as_ref().map_or(0, |id| id.index))).collect()
}

/// Makes a change, if this member leads.
pub(crate) async fn change(raft: &Raft, change: Change) -> Result<(), Refused> {
    if !raft.is_leader() {
        return Err(Refused::NotLeader("this member does not lead".to_owned()));
    }
    let Some(step) = plan(&members(raft), change).map_err(Refused::Invalid)? else { return Ok(()) };
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
            Refused::Invalid(error.to_string().into())
        }
        other => Refused::NotLeader(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
