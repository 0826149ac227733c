//! Linearizable reads (R4): one round for all reads that wait; likewise for the renewals of leases.
//!
//! A read may only use a round that began after the read did, so reads that come while a round is
//! under way wait for the next one.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How many reads wait for a round; further ones are refused.
const WAITING_MAX: usize = 16 * 1024;

type Waiter = oneshot::Sender<Result<u64, String>>;

/// The way to the task that runs the rounds.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    waiting: mpsc::Sender<Waiter>,
}

impl ReadIndex {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Waiter>) {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        (Self { waiting }, queue)
    }

    /// The index that a read which begins now must wait for.
    pub(crate) async fn next(&self) -> Result<u64, String> {
        let (done, index) = oneshot::channel();
        let full = |_| "too many reads wait already".to_owned();
        self.waiting.try_send(done).map_err(full)?;
        index.await.unwrap_or_else(|_| Err("the server is shutting down".to_owned()))
    }
}

/// Runs rounds while anybody waits, until `token` is cancelled.
pub(crate) async fn run<F>(
    mut queue: mpsc::Receiver<Waiter>,
    token: CancellationToken,
    mut round: impl FnMut() -> F,
) where
    F: Future<Output = Result<u64, String>>,
{
    let mut waiters = Vec::new();
    loop {
        // Cancel-safe: a waiter is either received or still queued.
        let count = tokio::select! {
            biased;
            () = token.cancelled() => return,
            count = queue.recv_many(&mut waiters, WAITING_MAX) => count,
        };
        if count == 0 {
            return;
        }
        let index = tokio::select! {
            biased;
            () = token.cancelled() => return,
            index = round() => index,
        };
        for waiter in waiters.drain(..) {
            // Who read may have gone.
            let _ = waiter.send(index.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    #[tokio::test]
    async fn waiting_reads_share_a_round_that_began_after_them() {
        let (reads, queue) = ReadIndex::channel();
        let rounds = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&rounds);
        let (open, begin) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let (gate, begun) = (Arc::clone(&open), Arc::clone(&begin));
        let token = CancellationToken::new();
        let running = tokio::spawn(run(queue, token.clone(), move || {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            async move {
                begun.notify_one();
                let _permit = gate.acquire().await.unwrap();
                Ok(number)
            }
        }));
        let first = tokio::spawn({
            let reads = reads.clone();
            async move { reads.next().await }
        });
        begin.notified().await;
        let later: Vec<_> = (0..3)
            .map(|_| {
                let reads = reads.clone();
                tokio::spawn(async move { reads.next().await })
            })
            .collect();
        while reads.waiting.capacity() > WAITING_MAX - later.len() {
            tokio::task::yield_now().await;
        }
        open.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(0));
        for read in later {
            assert_eq!(read.await.unwrap(), Ok(1));
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
        token.cancel();
        running.await.unwrap();
    }
}
