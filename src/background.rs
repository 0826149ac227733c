//! [`Background`]: threads of their own for what computes.
//!
//! ```text
//!   serving threads                        background threads
//!    raft, etcd API, Kubernetes API  ◄──►   informers, controllers, scheduler
//! ```
//!
//! A task that computes without a pause holds up what waits behind it on its thread. Where that was
//! raft, the others elected a new leader, which then computed in turn: a cluster with 5,000 nodes had
//! a leader every three seconds and no service.

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};

/// The threads; they end when this is dropped, in the middle of what they do.
pub struct Background {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Background {
    /// As many threads as there are processors.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("background")
            .enable_all()
            .build()
            .context("start the threads for controllers")?;
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

impl Drop for Background {
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
    async fn who_computes_in_the_background_holds_up_nobody_who_serves() {
        let background = Background::start().unwrap();
        let (stop, until_stop) = sync_channel::<()>(1);
        // Blocks its thread, as a long computation does.
        background.handle().spawn(async move { drop(until_stop.recv()) });
        tokio::time::timeout(Duration::from_secs(5), tokio::time::sleep(Duration::from_millis(1)))
            .await
            .expect("the serving thread must be free");
        let name = background.within(|| Handle::current().id());
        assert_eq!(name, background.handle().id());
        stop.send(()).unwrap();
    }
}
