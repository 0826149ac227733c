//! Sends proposals to a leader elsewhere, many in one message.
//!
//! What they came to is told once it is applied here, too, as in etcd: who wrote at a member reads
//! it there, however it reads.

use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::latest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::local::Attempt;
use crate::proto;
use crate::runtime;
use crate::transport::{CallError, PeerClient};
use crate::types::NodeId;

/// How many proposals wait to be sent. All that there can be fit in.
const QUEUE: usize = crate::proposals::OUTSTANDING_MAX;

/// How many proposals one message carries.
const BATCH: usize = 128;

/// How many bytes of proposals one message carries; one may be larger, alone.
const BATCH_BYTES: usize = 1 << 20;

/// How many messages are under way; while there are as many, proposals gather for the next.
const IN_FLIGHT: usize = 8;

/// How long an outcome waits to be applied here. A member that lags by more tells it all the same:
/// the cluster has it.
const APPLY_HERE: Duration = Duration::from_secs(1);

/// A proposal to be sent.
pub(crate) struct Forward {
    pub(crate) target: NodeId,
    pub(crate) client: Arc<dyn PeerClient>,
    pub(crate) command: Command,
    pub(crate) timeout: Duration,
    pub(crate) done: oneshot::Sender<Attempt>,
}

/// The way to the task that sends.
pub(crate) fn channel() -> (mpsc::Sender<Forward>, mpsc::Receiver<Forward>) {
    mpsc::channel(QUEUE)
}

/// Sends what comes until `token` is cancelled. `applied` says how far this member is.
pub(crate) async fn run(
    mut queue: mpsc::Receiver<Forward>,
    applied: latest::Receiver<u64>,
    token: CancellationToken,
) {
    let mut calls = JoinSet::new();
    let mut target = None;
    let mut held: Option<Forward> = None;
    loop {
        let mut first = if let Some(first) = held.take() {
            first
        } else {
            // Cancel-safe: a proposal is either received or still queued.
            let next = tokio::select! {
                biased;
                () = token.cancelled() => return,
                next = queue.recv() => next,
            };
            let Some(first) = next else { return };
            first
        };
        if target != Some(first.target) {
            // What a leader that has fallen silent does not answer must not hold up its successor.
            calls.detach_all();
            target = Some(first.target);
        }
        while calls.try_join_next().is_some() {}
        if calls.len() >= IN_FLIGHT {
            // Cancel-safe: a call that has ended is joined the next time.
            tokio::select! {
                biased;
                // Nobody waits for it here any more: it goes to another leader.
                () = first.done.closed() => continue,
                _ = calls.join_next() => {}
            }
        }
        let (batch, next) = gather(first, &mut queue);
        held = next;
        calls.spawn(runtime::hosted(send(batch, applied.clone())));
    }
}

/// `first` and what is queued behind it for the same leader; and one for another leader, if it
/// comes to that.
fn gather(first: Forward, queue: &mut mpsc::Receiver<Forward>) -> (Vec<Forward>, Option<Forward>) {
    let target = first.target;
    let mut bytes = first.command.len_bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        match queue.try_recv() {
            Ok(next) if next.target == target => {
                bytes += next.command.len_bytes();
                batch.push(next);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => break,
        }
    }
    (batch, None)
}

async fn send(batch: Vec<Forward>, mut applied: latest::Receiver<u64>) {
    let Some(first) = batch.first() else { return };
    let client = Arc::clone(&first.client);
    let timeout = batch.iter().map(|forward| forward.timeout).max().unwrap_or_default();
    let commands = batch.iter().map(|forward| forward.command.0.clone()).collect();
    let reply = client.propose(proto::ProposeRequest { commands }, timeout).await;
    if let Ok(reply) = &reply {
        let here = applied.wait_for(|applied| *applied >= reply.applied_index);
        // Whether it is, or this member is slow, or stops: the outcome stands.
        let _ = tokio::time::timeout(APPLY_HERE, here).await;
    }
    let mut outcomes = match &reply {
        Ok(reply) => reply.outcomes.clone().into_iter(),
        Err(_) => Vec::new().into_iter(),
    };
    for forward in batch {
        let attempt = match (&reply, outcomes.next()) {
            (_, Some(outcome)) => Attempt::from_message(outcome),
            (Err(CallError::Unreachable(reason) | CallError::Refused(reason)), None) => {
                Attempt::NotDone(reason.clone())
            }
            (Err(CallError::Lost(reason)), None) => Attempt::Unknown(reason.clone()),
            (Ok(_), None) => Attempt::Unknown("the leader's answer is too short".to_owned()),
        };
        // Who proposed it may have gone.
        let _ = forward.done.send(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Messages, Probe};

    /// A peer that answers proposals at once, or never.
    struct Peer {
        is_silent: bool,
    }

    #[async_trait::async_trait]
    impl PeerClient for Peer {
        async fn propose(
            &self,
            request: proto::ProposeRequest,
            timeout: Duration,
        ) -> Result<proto::ProposeReply, CallError> {
            if self.is_silent {
                tokio::time::sleep(timeout).await;
                return Err(CallError::Lost("it does not answer".to_owned()));
            }
            let refused = proto::Proposed {
                result: Some(proto::proposed::Result::NotLeader("not here".to_owned())),
            };
            let outcomes = vec![refused; request.commands.len()];
            Ok(proto::ProposeReply { outcomes, applied_index: 0 })
        }

        async fn append(
            &self,
            _: Messages<proto::AppendRequest>,
        ) -> Result<Messages<Result<proto::AppendReply, CallError>>, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn heartbeat(
            &self,
            _: proto::AppendRequest,
            _: Duration,
        ) -> Result<proto::AppendReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn vote(
            &self,
            _: proto::VoteRequest,
            _: Duration,
        ) -> Result<proto::VoteReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn transfer_leader(
            &self,
            _: proto::TransferRequest,
            _: Duration,
        ) -> Result<proto::TransferReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn change_member(
            &self,
            _: proto::MemberRequest,
            _: Duration,
        ) -> Result<proto::MemberReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn lease(
            &self,
            _: proto::LeaseRequest,
            _: Duration,
        ) -> Result<proto::LeaseReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn status(
            &self,
            _: proto::StatusRequest,
            _: Duration,
        ) -> Result<proto::StatusReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn install_snapshot(
            &self,
            _: Messages<proto::SnapshotChunk>,
        ) -> Result<proto::SnapshotReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn read_index(&self, _: Duration) -> Result<proto::ReadIndexReply, CallError> {
            unreachable!("it is only proposed to")
        }

        async fn presence(&self) -> bool {
            unreachable!("it is only proposed to")
        }

        async fn probe(&self) -> Probe {
            unreachable!("it is only proposed to")
        }
    }

    async fn forward(
        queue: &mpsc::Sender<Forward>,
        target: NodeId,
        is_silent: bool,
    ) -> oneshot::Receiver<Attempt> {
        let (done, attempt) = oneshot::channel();
        let client: Arc<dyn PeerClient> = Arc::new(Peer { is_silent });
        let (command, timeout) = (Command::default(), Duration::from_secs(60));
        let forward = Forward { target, client, command, timeout, done };
        assert!(queue.send(forward).await.is_ok());
        // So that each is sent by itself.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        attempt
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_falls_silent_does_not_hold_up_its_successor() {
        let (queue, waiting) = channel();
        let applied = latest::channel(0_u64).1;
        let _running = tokio::spawn(run(waiting, applied, CancellationToken::new()));
        let mut unanswered = Vec::new();
        for _ in 0..2 * IN_FLIGHT {
            unanswered.push(forward(&queue, 1, true).await);
        }
        let answered = forward(&queue, 2, false).await;
        // Those who proposed to the first turn to the second.
        drop(unanswered);
        let answered = tokio::time::timeout(Duration::from_secs(1), answered).await;
        assert_eq!(answered.unwrap().unwrap(), Attempt::NotDone("not here".to_owned()));
    }
}
