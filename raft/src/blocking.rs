//! Runs what waits for the disk where it stalls nobody else.

use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::Blocking;
use crate::error::NodeError;

/// How many closures wait for the thread. Its only caller awaits each one, so it is never full.
const QUEUE: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// One thread that does closures in order, or the caller's own.
pub(crate) enum Runner {
    Inline,
    Thread { work: mpsc::Sender<Work>, _thread: Mutex<Option<JoinHandle<()>>> },
}

impl Runner {
    pub(crate) fn start(name: &str, blocking: Blocking) -> Result<Self, NodeError> {
        if blocking == Blocking::Inline {
            return Ok(Self::Inline);
        }
        let (work, mut queue) = mpsc::channel::<Work>(QUEUE);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(work) = queue.blocking_recv() {
                    work();
                }
            })
            .map_err(|error| NodeError::Stopped { reason: format!("start {name}: {error}") })?;
        Ok(Self::Thread { work, _thread: Mutex::new(Some(thread)) })
    }

    /// Does `act` and returns what it gave; `None` when the thread has gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let Self::Thread { work, .. } = self else { return Some(act()) };
        let (done, result) = oneshot::channel();
        let act = move || {
            // Who asked may have gone.
            let _ = done.send(act());
        };
        work.send(Box::new(act)).await.ok()?;
        result.await.ok()
    }
}

/// Does `act` on some thread that may block; `None` when it panicked or the runtime is ending.
pub(crate) async fn offload<T: Send + 'static>(
    blocking: Blocking,
    act: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    match blocking {
        Blocking::Inline => Some(act()),
        Blocking::Threads => tokio::task::spawn_blocking(act).await.ok(),
    }
}
