//! Compares this member's state with that of its peers, for as long as it runs (R6).
//!
//! At one revision all members have the same hash. Every few seconds, and soon after a start, a
//! member asks how far each peer is, and then for the hash that each had where the last of them is.
//! Whoever differs from what a majority of the voters agree on has been damaged, or has applied
//! something else: it says what it found and stops serving for good. It is rebuilt as a new member,
//! from its peers. Where no majority agrees nobody can say who is right, and all stop, as members of
//! etcd do under its alarm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kontiki_storage::kv::Revision;

use super::Inner;
use crate::proto;
use crate::status::{Corruption, MemberStatus, PeerHash, Role};
use crate::types::NodeId;

/// Between two comparisons.
const EVERY: Duration = Duration::from_secs(5);

/// From a start to the first comparison: until the peers are known.
const FIRST: Duration = Duration::from_secs(1);

/// How long a peer may take to answer.
const ASK: Duration = Duration::from_secs(1);

/// What a comparison comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody differs, of those that answered.
    Equal,
    /// Some differ, and it cannot be said who is wrong: not all have answered.
    Undecided,
    /// Others differ from what a majority, this member among it, agrees on.
    OthersDiffer,
    /// This member differs from what a majority agrees on, or there is no majority.
    Differs,
}

/// Judges the hash `mine` of member `me` by the hashes of others at the same revision. Only voters
/// have a say.
fn judge(me: NodeId, mine: u64, others: &[PeerHash], voters: &[NodeId]) -> Verdict {
    if others.iter().all(|other| other.hash == mine) {
        return Verdict::Equal;
    }
    let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
    let own = PeerHash { id: me, hash: mine };
    for one in others.iter().chain([&own]).filter(|one| voters.contains(&one.id)) {
        *groups.entry(one.hash).or_default() += 1;
    }
    let agreed = groups.iter().find(|(_, count)| **count > voters.len() / 2).map(|(hash, _)| *hash);
    match agreed {
        Some(hash) if hash == mine => Verdict::OthersDiffer,
        Some(_) => Verdict::Differs,
        None if groups.values().sum::<usize>() < voters.len() => Verdict::Undecided,
        None => Verdict::Differs,
    }
}

/// Compares until the node is stopped, or must stop by itself.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut pause = FIRST;
    loop {
        // Cancel-safe: a comparison that is given up has done nothing.
        tokio::select! {
            biased;
            () = inner.token.cancelled() => return,
            found = inner.compare_after(pause) => if let Some(found) = found {
                return inner.stop_serving(found).await;
            },
        }
        pause = EVERY;
    }
}

impl Inner {
    /// Compares once; what was found, if this member must stop for it.
    async fn compare_after(&self, pause: Duration) -> Option<Corruption> {
        tokio::time::sleep(pause).await;
        let members = self.member_statuses();
        let is_voter = |member: &&MemberStatus| member.role == Role::Voter;
        let voters: Vec<NodeId> = members.iter().filter(is_voter).map(|one| one.id).collect();
        let others = members.iter().map(|one| one.id).filter(|id| *id != self.me());
        let others: Vec<NodeId> = others.collect();
        let now = self.store.revision();
        let reached = join_all(others.iter().map(|id| self.ask(*id, Revision::ZERO))).await;
        let reached = reached.into_iter().flatten().map(|reply| Revision::new(reply.revision));
        // One that lags further than hashes are remembered is compared once it has caught up.
        let remembered = reached.filter(|at| self.store.hash_at(*at).is_some());
        let revision = remembered.chain([now]).min()?;
        let hash = self.store.hash_at(revision)?;
        let asked = others.iter().map(|id| async move {
            let hash = self.ask(*id, revision).await?.hash_at?;
            Some(PeerHash { id: *id, hash })
        });
        let peers: Vec<PeerHash> = join_all(asked).await.into_iter().flatten().collect();
        let found = Corruption { revision, hash, peers };
        match judge(self.me(), hash, &found.peers, &voters) {
            Verdict::Equal => None,
            Verdict::Undecided => {
                tracing::error!(%found, "members differ; too few answer to say which is wrong");
                None
            }
            Verdict::OthersDiffer => {
                tracing::error!(%found, "other members differ from this one and its majority");
                None
            }
            Verdict::Differs => Some(found),
        }
    }

    /// Where a peer stands, and the hash that it had at `revision`, where it remembers.
    async fn ask(&self, id: NodeId, revision: Revision) -> Option<proto::StatusReply> {
        let request = proto::StatusRequest { revision: revision.get() };
        self.client(id).ok()?.status(request, ASK).await.ok()
    }

    /// Stops serving for good. Raft is stopped as well: this member's word counts for nothing now.
    async fn stop_serving(&self, found: Corruption) {
        tracing::error!(%found, "this member stops serving; replace it by a new member");
        self.store.stop(&found.to_string());
        // Only this task sets it, once.
        let _ = self.corruption.set(found);
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "raft did not end in order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(hashes: &[(NodeId, u64)]) -> Vec<PeerHash> {
        hashes.iter().map(|(id, hash)| PeerHash { id: *id, hash: *hash }).collect()
    }

    #[test]
    fn who_differs_from_a_majority_of_the_voters_is_wrong() {
        let voters = [1, 2, 3];
        let judged = |mine, others: &[_]| judge(1, mine, &peers(others), &voters);
        assert_eq!(judged(7, &[(2, 7), (3, 7)]), Verdict::Equal);
        assert_eq!(judged(8, &[(2, 7), (3, 7)]), Verdict::Differs);
        assert_eq!(judged(7, &[(2, 7), (3, 8)]), Verdict::OthersDiffer);
        assert_eq!(judged(7, &[]), Verdict::Equal, "nobody answers: nothing is known");
    }

    #[test]
    fn without_a_majority_all_are_wrong_once_all_have_answered() {
        let judged = |others: &[_]| judge(1, 7, &peers(others), &[1, 2, 3]);
        assert_eq!(judged(&[(2, 8)]), Verdict::Undecided);
        assert_eq!(judged(&[(2, 8), (3, 9)]), Verdict::Differs);
        assert_eq!(judge(1, 7, &peers(&[(2, 8)]), &[1, 2]), Verdict::Differs);
    }

    #[test]
    fn a_learner_has_no_say_but_may_be_wrong() {
        let voters = [1, 2, 3];
        assert_eq!(judge(4, 8, &peers(&[(1, 7), (2, 7), (3, 7)]), &voters), Verdict::Differs);
        assert_eq!(judge(1, 7, &peers(&[(2, 7), (4, 8)]), &voters), Verdict::OthersDiffer);
    }
}
