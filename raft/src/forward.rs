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
    let mut held: Option<Forward> = None;
    loop {
        while calls.try_join_next().is_some() {}
        if calls.len() >= IN_FLIGHT {
            calls.join_next().await;
        }
        let first = if let Some(first) = held.take() {
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
