//! What openraft tells its tasks by: [`latest`], which wakes them in an order that repeats.

use kontiki_storage::latest;
use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use tokio::sync::watch::Ref;

/// See the module.
#[derive(Debug)]
pub struct Latest;

impl Watch for Latest {
    type Sender<T: OptionalSend + OptionalSync> = latest::Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = latest::Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(
        init: T,
    ) -> (latest::Sender<T>, latest::Receiver<T>) {
        latest::channel(init)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Latest, T> for latest::Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        Self::send(self, value).map_err(|unsent| SendError(unsent.0))
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        Self::send_if_modified(self, modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> latest::Receiver<T> {
        Self::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Latest, T> for latest::Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Self::changed(self).await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        Self::borrow_and_update(self)
    }
}
