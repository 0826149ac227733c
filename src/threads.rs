//! [`Threads`]: what computes has threads of its own, so that it holds up nobody who serves.
//!
//! ```text
//!   serving                                        background
//!    consensus, peers, etcd API, Kubernetes API ◄──►  informers, controllers, scheduler
//! ```
//!
//! A task that computes without a pause holds up what waits behind it on its thread. Where that was
//! raft, the others elected a new leader, whose controllers then computed in turn: a cluster of 5,000
//! nodes had a leader every three seconds and no service.
//!
//! Consensus shares its threads with the APIs, which must pause while they compute: on threads of its
//! own each put of the etcd API changed threads twice, for 147 us of CPU instead of 125 (64 clients)
//! and a ratio to etcd of 1.33 instead of 1.47.

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};

/// The threads of a part; they end when this is dropped, in the middle of what they do.
pub struct Threads {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    /// Threads of that name, as many as there are processors.
    pub fn start(name: &'static str) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name(name)
            .enable_all()
            .build()
            .with_context(|| format!("start the threads `{name}`"))?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// To spawn there.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Does something that is not asynchronous as if it were there: what it spawns is.
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        act()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // To wait for the threads is not allowed where asynchronous code runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_computes_on_threads_of_its_own_holds_up_nobody_else() {
        let background = Threads::start("background").unwrap();
        let (stop, until_stop) = sync_channel::<()>(1);
        // Blocks its thread, as a long computation does.
        background.handle().spawn(async move { until_stop.recv() });
        tokio::time::timeout(Duration::from_secs(5), tokio::time::sleep(Duration::from_millis(1)))
            .await
            .expect("the serving thread must be free");
        let name = background.within(|| Handle::current().id());
        assert_eq!(name, background.handle().id());
        stop.send(()).unwrap();
    }
}
