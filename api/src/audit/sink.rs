//! [`Sink`]: the queue before something that writes events down, and its end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

type Event = Arc<Value>;

/// How many events may wait for a place on behalf of who could not.
const LATE_MAX: usize = 1024;

/// Where events are put for somebody who writes them.
pub(super) struct Sink {
    name: &'static str,
    /// Gone when it is closed; who writes then has no more to wait for.
    queue: Mutex<Option<mpsc::Sender<Event>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    /// Events that wait for a place on behalf of who could not.
    late: TaskTracker,
}

/// Held by who writes until all is written.
pub(super) struct End(
    #[allow(dead_code, reason = "it tells by being dropped")] oneshot::Sender<()>,
);

impl Sink {
    /// One with so many places, what is put in, and what who takes it out holds.
    pub(super) fn new(name: &'static str, places: usize) -> (Self, mpsc::Receiver<Event>, End) {
        let (queue, events) = mpsc::channel(places);
        let (end, ended) = oneshot::channel();
        let (queue, ended) = (Mutex::new(Some(queue)), Mutex::new(Some(ended)));
        (Self { name, queue, ended, late: TaskTracker::new() }, events, End(end))
    }

    /// Waits for a place so long.
    pub(super) async fn put(&self, event: Event, patience: Duration) {
        match self.queue() {
            Some(queue) => wait(queue, event, patience, self.name).await,
            None => lost(self.name),
        }
    }

    /// Takes a place if there is one; otherwise a task waits for it.
    pub(super) fn put_later(&self, event: Event, patience: Duration) {
        let Some(queue) = self.queue() else { return lost(self.name) };
        match (queue.try_send(event), Handle::try_current()) {
            (Ok(()), _) => {}
            (Err(TrySendError::Full(event)), Ok(runtime)) if self.late.len() < LATE_MAX => {
                self.late.spawn_on(wait(queue, event, patience, self.name), &runtime);
            }
            (Err(_), _) => lost(self.name),
        }
    }

    /// Takes a place if there is one.
    pub(super) fn put_or_drop(&self, event: Event) {
        if self.queue().is_none_or(|queue| queue.try_send(event).is_err()) {
            lost(self.name);
        }
    }

    /// Takes no more, and waits so long until all is written.
    pub(super) async fn close(&self, patience: Duration) {
        drop(self.queue.lock().take());
        self.late.close();
        let Some(ended) = self.ended.lock().take() else { return };
        let ending = async {
            self.late.wait().await;
            // Told by its end, not by a message.
            drop(ended.await);
        };
        if tokio::time::timeout(patience, ending).await.is_err() {
            tracing::error!(name = self.name, "stopping before all events are written");
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<Event>> {
        self.queue.lock().clone()
    }
}

async fn wait(queue: mpsc::Sender<Event>, event: Event, patience: Duration, name: &'static str) {
    if queue.send_timeout(event, patience).await.is_err() {
        lost(name);
    }
}

fn lost(name: &str) {
    tracing::error!(name, "no more events are taken: one is dropped");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn event(number: usize) -> Event {
        Arc::new(json!(number))
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_loses_nothing_though_the_queue_is_full() {
        let (sink, mut events, end) = Sink::new("a test", 1);
        for number in 0..5 {
            sink.put_later(event(number), PATIENCE);
        }
        let mut read = Vec::new();
        let reading = async {
            while let Some(event) = events.recv().await {
                read.push(event.as_u64().unwrap());
            }
            drop(end);
        };
        tokio::join!(reading, sink.close(PATIENCE));
        read.sort_unstable();
        assert_eq!(read, [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_for_who_could_not_and_no_more() {
        let (sink, mut events, end) = Sink::new("a test", 1);
        for number in 0..LATE_MAX + 100 {
            sink.put_later(event(number), PATIENCE);
        }
        let mut read = 0;
        let reading = async {
            while events.recv().await.is_some() {
                read += 1;
            }
            drop(end);
        };
        tokio::join!(reading, sink.close(PATIENCE));
        assert_eq!(read, LATE_MAX + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_what_was_taken_and_not_for_ever() {
        let (sink, mut events, end) = Sink::new("a test", 2);
        sink.put(event(1), PATIENCE).await;
        let writing = tokio::spawn(async move {
            let _end = end;
            let mut written = 0;
            while events.recv().await.is_some() {
                tokio::time::sleep(PATIENCE / 2).await;
                written += 1;
            }
            written
        });
        sink.close(PATIENCE).await;
        assert!(writing.is_finished(), "it is written when closing ends");
        assert_eq!(writing.await.unwrap(), 1);
        let (stuck, _events, _end) = Sink::new("a test", 1);
        let begun = tokio::time::Instant::now();
        stuck.close(PATIENCE).await;
        assert!(begun.elapsed() >= PATIENCE);
    }
}
