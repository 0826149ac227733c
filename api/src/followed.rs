//! [`Followed`]: what is made of configurations in the store, made anew whenever they change.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::informer::Informer;
use crate::object::Object;

/// What is made of configurations, as it is now.
pub(crate) struct Followed<T> {
    now: RwLock<Arc<T>>,
    is_made: watch::Sender<bool>,
}

impl<T: Default> Default for Followed<T> {
    fn default() -> Self {
        Self { now: RwLock::default(), is_made: watch::Sender::new(false) }
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// As it is now.
    pub(crate) fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.read())
    }

    /// Waits until it was made once. Callers bound the wait.
    pub(crate) async fn made(&self) {
        // The sender lives as long as `self`.
        drop(self.is_made.subscribe().wait_for(|is_made| *is_made).await);
    }

    /// Makes it of what the informers have, whenever that changes, until `stop`.
    pub(crate) async fn follow(
        self: Arc<Self>,
        sources: Vec<Arc<Informer<Object>>>,
        mut make: impl FnMut(Vec<Vec<Arc<Object>>>) -> T + Send,
        stop: CancellationToken,
    ) {
        // Subscribed first: what changes after the lists are read is told.
        let mut changes: Vec<_> = sources.iter().map(|source| source.subscribe()).collect();
        for source in &sources {
            if stop.run_until_cancelled(source.synced()).await.is_none() {
                return;
            }
        }
        loop {
            for changes in &mut changes {
                while changes.try_recv().is_ok() {}
            }
            let made = make(sources.iter().map(|source| source.list()).collect());
            *self.now.write() = Arc::new(made);
            self.is_made.send_replace(true);
            let next = changes.iter_mut().map(|changes| Box::pin(changes.recv()));
            let next = futures_util::future::select_all(next);
            match stop.run_until_cancelled(next).await {
                Some((Some(_), ..)) => {}
                _ => return,
            }
        }
    }
}
