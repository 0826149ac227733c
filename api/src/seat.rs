//! [`Seat`]: a request's place among those that are handled at once. It is left while the request
//! waits for a webhook, so that one that hangs holds up nobody who does not ask it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::Status;

/// How long a request may wait for its place.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// A request's place.
#[derive(Debug)]
pub(crate) struct Seat {
    places: Arc<Semaphore>,
    outside: Arc<Semaphore>,
    permit: Mutex<Held>,
}

/// What a request holds of the places. Calls outside may overlap: the last one back takes it again.
#[derive(Debug, Default)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    outside: usize,
}

impl Seat {
    /// A place at once or after a bounded wait; `None` where it takes too long.
    pub(crate) async fn take(
        places: &Arc<Semaphore>,
        outside: &Arc<Semaphore>,
    ) -> Option<Arc<Self>> {
        let permit = acquire(places).await?;
        Some(Arc::new(Self {
            places: Arc::clone(places),
            outside: Arc::clone(outside),
            permit: Mutex::new(Held { permit: Some(permit), outside: 0 }),
        }))
    }

    /// Gives the place to somebody else.
    pub(crate) fn leave(&self) {
        drop(self.permit.lock().permit.take());
    }

    /// Does something that waits for others, with the place left to somebody else meanwhile.
    pub(crate) async fn outside<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        let many = || Status::too_many_requests("Too many requests, please try again later.", 1);
        let Ok(_outside) = Arc::clone(&self.outside).try_acquire_owned() else {
            return Err(many());
        };
        {
            let mut held = self.permit.lock();
            held.outside += 1;
            drop(held.permit.take());
        }
        let done = work.await;
        let is_last = {
            let mut held = self.permit.lock();
            held.outside -= 1;
            held.outside == 0
        };
        if is_last {
            let permit = acquire(&self.places).await.ok_or_else(many)?;
            self.permit.lock().permit = Some(permit);
        }
        Ok(done)
    }
}

async fn acquire(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    tokio::time::timeout(WAIT, Arc::clone(places).acquire_owned()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_outside_holds_no_place() {
        let (places, outside) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let seat = Seat::take(&places, &outside).await.unwrap();
        assert_eq!(places.available_permits(), 0);
        let inside = seat.outside(async { places.available_permits() }).await.unwrap();
        assert_eq!((inside, places.available_permits()), (1, 0));
        let busy = seat.outside(async { seat.outside(async {}).await.is_err() }).await.unwrap();
        assert!(busy, "calls outside are bounded");
        seat.leave();
        assert_eq!(places.available_permits(), 1);
    }
}
