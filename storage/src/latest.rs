//! [`Sender`] and [`Receiver`] of the latest of a value that changes: tokio's `watch`, except that
//! those who wait are woken in the order in which they began to. tokio spreads them over several
//! lists by a random number, and a simulation in which that decides who goes first cannot be
//! repeated.

use std::sync::Arc;

use tokio::sync::watch::error::{RecvError, SendError};
use tokio::sync::{Notify, watch};

/// Makes a pair of them.
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(first);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Says what the value is.
#[derive(Debug)]
pub struct Sender<T> {
    value: watch::Sender<T>,
    /// Behind `value`, so that it is dropped after it: who is woken then finds it closed.
    changes: Changes,
}

#[derive(Debug, Clone)]
struct Changes(Arc<Notify>);

impl Drop for Changes {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), changes: self.changes.clone() }
    }
}

impl<T> Sender<T> {
    /// One that nobody listens to yet.
    pub fn new(first: T) -> Self {
        Self { value: watch::Sender::new(first), changes: Changes(Arc::default()) }
    }

    /// Sets the value, unless nobody listens.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.value.send(value)?;
        self.changes.0.notify_waiters();
        Ok(())
    }

    /// Sets the value whether anybody listens or not.
    pub fn send_replace(&self, value: T) {
        self.send_modify(|old| *old = value);
    }

    /// Changes the value.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.value.send_modify(modify);
        self.changes.0.notify_waiters();
    }

    /// Changes the value where `modify` says that it did; whether it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let is_modified = self.value.send_if_modified(modify);
        if is_modified {
            self.changes.0.notify_waiters();
        }
        is_modified
    }

    /// The value. Nothing is sent while it is borrowed.
    pub fn borrow(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    /// One who hears of changes from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), changes: Arc::clone(&self.changes.0) }
    }
}

/// Hears what the value is.
#[derive(Debug)]
pub struct Receiver<T> {
    value: watch::Receiver<T>,
    changes: Arc<Notify>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), changes: Arc::clone(&self.changes) }
    }
}

impl<T> Receiver<T> {
    /// The value. Nothing is sent while it is borrowed.
    pub fn borrow(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    /// [`Receiver::borrow`], which is then seen.
    pub fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.value.borrow_and_update()
    }

    /// Takes the value as seen.
    pub fn mark_unchanged(&mut self) {
        self.value.mark_unchanged();
    }

    /// Waits for a value that was not seen, and takes it as seen; an error when no more will come.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // Before anything is looked at: what is sent from here on wakes it.
            let change = self.changes.notified();
            let closed = self.value.has_changed().err();
            if self.value.borrow().has_changed() {
                self.value.mark_unchanged();
                return Ok(());
            }
            if let Some(closed) = closed {
                return Err(closed);
            }
            change.await;
        }
    }

    /// Waits until `is_wanted` holds of the value, and returns that value. Cancel-safe.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<T, RecvError>
    where
        T: Clone,
    {
        loop {
            {
                let value = self.value.borrow_and_update();
                if is_wanted(&value) {
                    return Ok(value.clone());
                }
            }
            self.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_began_to() {
        let sender = Sender::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (mut receiver, woken) = (sender.subscribe(), Arc::clone(&woken));
            waiting.spawn(async move {
                receiver.changed().await.unwrap();
                woken.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        waiting.join_all().await;
        assert_eq!(*woken.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_value_is_heard_before_the_end_is() {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        drop(sender);
        assert!(receiver.changed().await.is_ok());
        assert_eq!(*receiver.borrow(), 1);
        assert!(receiver.changed().await.is_err());
        assert!(receiver.wait_for(|value| *value == 2).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_hears_that_the_last_sender_is_gone() {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(sender);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "another sender is left");
        drop(other);
        assert!(waiting.await.unwrap().is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_change_is_missed_by_others_on_other_threads() {
        let (sender, receiver) = channel(0_u32);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut receiver = receiver.clone();
            waiting.spawn(async move {
                for value in 1..=2000 {
                    receiver.wait_for(|now| *now >= value).await.unwrap();
                }
            });
        }
        for value in 1..=2000 {
            sender.send_replace(value);
            tokio::task::yield_now().await;
        }
        let all = tokio::time::timeout(Duration::from_secs(60), waiting.join_all());
        all.await.expect("all must hear of the last value");
    }
}
